package cgroups

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Limit is one value for one interface file. Limits are data: `husk plan`
// prints them, [Group.Apply] writes them.
type Limit struct {
	Field       string // JSON pointer
	File, Value string
	Late        bool // written when the container's init is parked

	// Optional: the value is what a kernel without the file does anyway.
	Optional bool
	// AltFile gets AltValue where File does not exist or not work.
	AltFile, AltValue string
	// KeepFirst: the first word stays what it is in the file (a period comes alone).
	KeepFirst bool
	// Check: refuse a value that is not above memory.current (checkBeforeUpdate).
	Check bool
}

// Controller is the controller that the limit's file belongs to, "" for files
// that every group has.
func (l Limit) Controller() string {
	name, rest, _ := strings.Cut(l.File, ".")
	if name == "cgroup" || rest == "pressure" {
		return ""
	}
	return name
}

func (l Limit) String() string { return fmt.Sprintf("write %q to %s", l.Value, l.File) }

// FieldError is a mistake in one field, or the failure to apply it.
type FieldError struct {
	Field       string // JSON pointer
	File, Value string // what was being written, if anything
	Err         error
}

func (e *FieldError) Error() string {
	if e.File == "" {
		return e.Field + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s: write %q to %s: %v", e.Field, e.Value, e.File, e.Err)
}

func (e *FieldError) Unwrap() error { return e.Err }

// row is one field of linux.resources: where it goes and how it is converted.
// The controller is the file's name up to the dot.
type row struct {
	field string // below /linux/resources
	file  string // "" where v2 has none
	late  bool
	conv  func(r *resources, o *output)
	text  string // what conv makes of the value, or why v2 refuses it
}

const (
	early = false
	late  = true
)

type resources = specs.LinuxResources

// table is the whole translation from cgroup v1's terms, which the
// specification speaks, to cgroup v2's files; limits.md is made from it. Order
// matters: cpu.idle before cpu.weight (a weight is EINVAL while idle is 1),
// cpu.max.burst before cpu.max (retried after it), unified last so that it wins.
var table = []row{
	{"cpu/idle", "cpu.idle", late, cpuIdle, "0 or 1 (SCHED_IDLE)"},
	{"cpu/shares", "cpu.weight", late, cpuShares, "0: unset; ≤ 2: 1; ≥ 262144: 10000; else with l = log2(shares) ⌈10^((l² + 125·l)/612 − 7/34)⌉, so 1024 is 100; ignored with a warning beside cpu/idle 1"},
	{"cpu/cpus", "cpuset.cpus", early, func(r *resources, o *output) { o.list(r.CPU.Cpus) }, "the list; each of them must be available in the groups above"},
	{"cpu/mems", "cpuset.mems", early, func(r *resources, o *output) { o.list(r.CPU.Mems) }, "the list; each of them must be available in the groups above"},
	{"cpu/realtimeRuntime", "", early, func(r *resources, o *output) { o.lacks(get(r.CPU.RealtimeRuntime) != 0) }, "cgroup v2 does not limit realtime scheduling; remove it"},
	{"cpu/realtimePeriod", "", early, func(r *resources, o *output) { o.lacks(get(r.CPU.RealtimePeriod) != 0) }, "cgroup v2 does not limit realtime scheduling; remove it"},
	{"blockIO/weight", "io.bfq.weight", early, ioWeight, "10 to 1000, 0: unset; also, or where there is no BFQ only, `io.weight` 1 + (weight − 10)·9999/990"},
	{"blockIO/leafWeight", "", early, func(r *resources, o *output) { o.lacks(get(r.BlockIO.LeafWeight) != 0) }, noLeafWeight},
	{"blockIO/weightDevice", "io.bfq.weight", early, ioWeightDevice, "`MAJOR:MINOR WEIGHT`, 0: `default`; where the device is not scheduled by BFQ `io.weight`, converted as above"},
	{"blockIO/throttleReadBpsDevice", "io.max", early, func(r *resources, o *output) { o.throttle("rbps", r.BlockIO.ThrottleReadBpsDevice) }, "`MAJOR:MINOR rbps=RATE`, 0: `max`"},
	{"blockIO/throttleWriteBpsDevice", "io.max", early, func(r *resources, o *output) { o.throttle("wbps", r.BlockIO.ThrottleWriteBpsDevice) }, "`MAJOR:MINOR wbps=RATE`, 0: `max`"},
	{"blockIO/throttleReadIOPSDevice", "io.max", early, func(r *resources, o *output) { o.throttle("riops", r.BlockIO.ThrottleReadIOPSDevice) }, "`MAJOR:MINOR riops=RATE`, 0: `max`"},
	{"blockIO/throttleWriteIOPSDevice", "io.max", early, func(r *resources, o *output) { o.throttle("wiops", r.BlockIO.ThrottleWriteIOPSDevice) }, "`MAJOR:MINOR wiops=RATE`, 0: `max`"},
	{"hugepageLimits", "hugetlb.SIZE.max", early, hugepages, "bytes; the same in `hugetlb.SIZE.rsvd.max` where the kernel has it"},
	{"rdma", "rdma.max", early, rdma, "`DEVICE hca_handle=N hca_object=N`, only those that are set"},
	{"network", "", early, func(r *resources, o *output) {
		o.lacks(get(r.Network.ClassID) != 0 || len(r.Network.Priorities) > 0)
	}, "cgroup v2 has neither net_cls nor net_prio; remove it (nftables can match the cgroup instead)"},

	{"memory/limit", "memory.max", late, memoryLimit, "bytes; 0: unset; −1: `max`"},
	{"memory/swap", "memory.swap.max", late, memorySwap, "swap − limit, since v2 counts them apart; 0: unset, beside limit −1 `max`; −1: `max`; not below limit, nor without one (an update takes that in force)"},
	{"memory/reservation", "memory.low", late, memoryReservation, "bytes; 0: unset; −1: `max`"},
	{"memory/checkBeforeUpdate", "memory.max", late, func(*resources, *output) {}, "refuses limits in use: one not above `memory.current`, or for swap one below `memory.swap.current`"},
	{"memory/kernel", "", late, func(r *resources, o *output) { o.ignores(r.Memory.Kernel) }, "ignored, cgroup v2 counts kernel memory in memory/limit"},
	{"memory/kernelTCP", "", late, func(r *resources, o *output) { o.ignores(r.Memory.KernelTCP) }, "ignored, cgroup v2 counts kernel memory in memory/limit"},
	{"memory/swappiness", "", late, func(r *resources, o *output) {
		o.lacks(r.Memory.Swappiness != nil && *r.Memory.Swappiness != math.MaxUint64)
	}, "cgroup v2 has no swappiness per group; remove it (memory/swap equal to memory/limit forbids swap)"},
	{"memory/disableOOMKiller", "", late, func(r *resources, o *output) { o.lacks(get(r.Memory.DisableOOMKiller)) }, "cgroup v2 cannot disable the OOM killer; remove it (process/oomScoreAdj -1000 exempts a process)"},
	{"memory/useHierarchy", "", late, func(r *resources, o *output) {
		o.lacks(r.Memory.UseHierarchy != nil && !*r.Memory.UseHierarchy)
	}, "cgroup v2 always accounts hierarchically; remove it"},
	{"pids/limit", "pids.max", late, pidsLimit, "0 to 4194304 (0: no process beyond those that are there); −1: `max`"},
	{"cpu/burst", "cpu.max.burst", late, cpuBurst, "µs, at most the quota"},
	{"cpu/quota", "cpu.max", late, cpuQuota, "`QUOTA PERIOD` in µs; −1: `max`; 0: unset; without cpu/period the period stays, 100000 in a new group"},
	{"cpu/period", "cpu.max", late, cpuPeriod, "1000 to 1000000 µs; 0: unset; without cpu/quota the quota stays"},
	{"unified", "FILE", late, unified, "FILE is the key, each line of the value a write; wins over all fields above; refused: `/` in a key, and files `cgroup.*` except `cgroup.max.*` and `cgroup.pressure`"},
}

// noLeafWeight is said of devices too.
const noLeafWeight = "cgroup v2 has no leaf weight; remove it"

const pointer = "/linux/resources/"

// output collects what the conversions of all rows yield.
type output struct {
	row
	limits   []Limit
	warnings []string
	errs     []error
}

func (o *output) set(value string) *Limit { return o.setAt("", o.file, value) }

// setAt adds a limit for an element below the row's field.
func (o *output) setAt(sub, file, value string) *Limit {
	o.limits = append(o.limits, Limit{Field: pointer + o.field + sub, File: file, Value: value, Late: o.late})
	return &o.limits[len(o.limits)-1]
}

func (o *output) fail(format string, args ...any) { o.failAt("", format, args...) }

func (o *output) failAt(sub, format string, args ...any) {
	o.errs = append(o.errs, &FieldError{Field: pointer + o.field + sub, Err: fmt.Errorf(format, args...)})
}

// lacks reports, if used, a field whose effect v2 cannot give.
func (o *output) lacks(used bool) {
	if used {
		o.fail("%s", o.text)
	}
}

// ignores warns of a size without which nothing changes for the container.
func (o *output) ignores(size *int64) {
	if v, ok := o.bytes(get(size)); ok && v != "max" {
		o.warn(o.text)
	}
}

func (o *output) warn(text string) {
	o.warnings = append(o.warnings, pointer+o.field+": "+text)
}

// Compile translates resources into limits, in the order to write them, and
// the controllers these need. All mistakes are reported at once, joined, each a
// [*FieldError]. What v2 lacks is an error where leaving it out would change
// what the container may do, else a warning. Devices are for [CompileDevices].
func Compile(r *specs.LinuxResources) (limits []Limit, controllers, warnings []string, err error) {
	if r == nil {
		return nil, nil, nil, nil
	}
	var out output
	r = withParts(r)
	for _, out.row = range table {
		out.conv(r, &out)
	}
	out.contradictions()
	for _, l := range out.limits {
		if c := l.Controller(); c != "" && !slices.Contains(controllers, c) {
			controllers = append(controllers, c)
		}
	}
	return out.limits, controllers, out.warnings, errors.Join(out.errs...)
}

// contradictions reports two values for the same thing, of which the kernel would
// keep the later: a device or a page size that is listed twice. What unified
// overrides is meant so.
func (o *output) contradictions() {
	type said struct{ field, value string }
	seen := map[string]said{}
	for _, l := range o.limits {
		if l.Optional || strings.HasPrefix(l.Field, pointer+"unified/") {
			continue
		}
		what, value := l.File, l.Value
		if isKeyed(l.File) {
			i := strings.LastIndexAny(l.Value, " =") + 1
			what, value = l.File+" "+l.Value[:i], l.Value[i:]
		}
		if first, ok := seen[what]; ok && first.value != value {
			o.errs = append(o.errs, &FieldError{Field: l.Field, Err: fmt.Errorf("contradicts %s; leave one of them out", first.field)})
		}
		seen[what] = said{l.Field, value}
	}
}

// isKeyed says that a file has one line for each device.
func isKeyed(file string) bool {
	return strings.HasPrefix(file, "io.") || file == "rdma.max"
}

// withParts spares the conversions the question whether a part is there.
func withParts(r *specs.LinuxResources) *specs.LinuxResources {
	all := *r
	all.Memory = cmp.Or(all.Memory, &specs.LinuxMemory{})
	all.CPU = cmp.Or(all.CPU, &specs.LinuxCPU{})
	all.BlockIO = cmp.Or(all.BlockIO, &specs.LinuxBlockIO{})
	all.Pids = cmp.Or(all.Pids, &specs.LinuxPids{})
	all.Network = cmp.Or(all.Network, &specs.LinuxNetwork{})
	return &all
}

// get is the value of an optional number, 0 if unset: engines write 0 for
// "not set", and as a limit it would make no sense except for pids.
func get[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
