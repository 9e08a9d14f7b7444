package cgroups

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bytes converts a size where −1 means no limit.
func (o *output) bytes(n int64) (string, bool) {
	switch {
	case n == 0:
		return "", false
	case n == -1:
		return "max", true
	case n < 0:
		o.fail("%d is not a size; write a number of bytes, or -1 for no limit", n)
		return "", false
	}
	return strconv.FormatInt(n, 10), true
}

func memoryLimit(r *resources, o *output) {
	if v, ok := o.bytes(get(r.Memory.Limit)); ok {
		o.set(v).Check = get(r.Memory.CheckBeforeUpdate)
	}
}

// memorySwap: the specification counts memory and swap together, v2 apart.
func memorySwap(r *resources, o *output) {
	limit, swap := get(r.Memory.Limit), get(r.Memory.Swap)
	switch {
	case swap == -1, swap == 0 && limit == -1:
		o.set("max").Optional = true
	case swap == 0 || limit < -1:
		// unset, or memoryLimit has complained
	case swap < 0:
		o.bytes(swap)
	case limit <= 0:
		o.fail("%d needs memory/limit, since it counts memory and swap together; set memory/limit too", swap)
	case swap < limit:
		o.fail("%d is below memory/limit %d, which it includes; write at least that, or -1 for no limit", swap, limit)
	default:
		l := o.set(strconv.FormatInt(swap-limit, 10))
		l.Optional, l.Check = swap == limit, get(r.Memory.CheckBeforeUpdate)
	}
}

func memoryReservation(r *resources, o *output) {
	if v, ok := o.bytes(get(r.Memory.Reservation)); ok {
		o.set(v)
	}
}

// maxPids is the kernel's PID_MAX_LIMIT; above it pids.max is a bare EINVAL.
const maxPids = 4 << 20

// pidsLimit: 0 is a limit, the container's first process exists already.
func pidsLimit(r *resources, o *output) {
	switch n := r.Pids.Limit; {
	case n == nil:
	case *n == -1:
		o.set("max")
	case *n < 0 || *n > maxPids:
		o.fail("%d is not a number of processes; write 0 to %d, or -1 for no limit", *n, maxPids)
	default:
		o.set(strconv.FormatInt(*n, 10))
	}
}

func cpuIdle(r *resources, o *output) {
	switch n := r.CPU.Idle; {
	case n == nil:
	case *n == 0 || *n == 1:
		o.set(strconv.FormatInt(*n, 10)).Optional = *n == 0
	default:
		o.fail("%d is neither 0 (normal) nor 1 (SCHED_IDLE)", *n)
	}
}

func cpuShares(r *resources, o *output) {
	shares := get(r.CPU.Shares)
	if shares == 0 {
		return
	}
	if get(r.CPU.Idle) == 1 {
		o.warn("ignored, an idle group (cpu/idle 1) has no weight")
		return
	}
	o.set(strconv.FormatUint(weight(shares), 10))
}

// weight maps shares 2…262144 to weight 1…10000 so that 1024, v1's default,
// becomes 100, v2's default. The exponent is a parabola through these three
// points; a straight line would make 1024 a 39. The explicit conversions keep
// the compiler from fusing operations, which could tip the rounding up.
func weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, float64(float64(l*l)+float64(125*l))/612-7.0/34)))
}

// The bounds are those of the scheduler (kernel/sched: min_cfs_quota_period,
// max_cfs_quota_period, max_cfs_runtime), which answers a bare EINVAL.
const minCFS, maxPeriod, maxQuota = 1000, 1000000, 1<<44 - 1

// cpuQuota: a quota alone leaves the period as it is, 100000 in a new group.
func cpuQuota(r *resources, o *output) {
	quota, period := get(r.CPU.Quota), get(r.CPU.Period)
	value := strconv.FormatInt(quota, 10)
	switch {
	case quota == 0:
		return
	case quota == -1:
		value = "max"
	case quota < minCFS || quota > maxQuota:
		o.fail("%d is not a quota; write at least %d µs and at most %d, or -1 for no limit", quota, minCFS, maxQuota)
		return
	}
	if period != 0 {
		value += " " + strconv.FormatUint(period, 10)
	}
	o.set(value)
}

func cpuPeriod(r *resources, o *output) {
	period := get(r.CPU.Period)
	switch {
	case period == 0:
	case period < minCFS || period > maxPeriod:
		o.fail("%d is not a period; write %d to %d µs", period, minCFS, maxPeriod)
	case get(r.CPU.Quota) == 0:
		o.set("max " + strconv.FormatUint(period, 10)).KeepFirst = true
	}
}

func cpuBurst(r *resources, o *output) {
	burst, quota := r.CPU.Burst, get(r.CPU.Quota)
	switch {
	case burst == nil:
	case quota > 0 && *burst > uint64(quota):
		o.fail("%d is above cpu/quota %d; write at most that", *burst, quota)
	case *burst > maxQuota:
		o.fail("%d is not a burst; write 0 to %d µs", *burst, maxQuota)
	default:
		o.set(strconv.FormatUint(*burst, 10)).Optional = *burst == 0
	}
}

func (o *output) list(list string) {
	if list == "" {
		return
	}
	for part := range strings.SplitSeq(list, ",") {
		if !isRange(part) {
			o.fail("%q in %q is neither a number nor a range; write for example 0-3,5", part, list)
			return
		}
	}
	o.set(list)
}

func isRange(s string) bool {
	first, last, ok := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil || !ok {
		return err == nil
	}
	b, err := strconv.ParseUint(last, 10, 16)
	return err == nil && a <= b
}

// ioWeight writes both files where both exist: io.bfq.weight is there as soon as
// BFQ is loaded, although other devices may be under io.cost.
func ioWeight(r *resources, o *output) {
	w := get(r.BlockIO.Weight)
	if w == 0 || !o.checkWeight("", w) {
		return
	}
	l := o.set(strconv.Itoa(int(w)))
	l.AltFile, l.AltValue = "io.weight", bfqToIO(w)
	o.setAt("", "io.weight", bfqToIO(w)).Optional = true
}

func (o *output) checkWeight(sub string, w uint16) bool {
	if w < 10 || w > 1000 {
		o.failAt(sub, "%d is not a weight; write 10 to 1000", w)
		return false
	}
	return true
}

// bfqToIO maps 10…1000 to 1…10000.
func bfqToIO(w uint16) string { return strconv.Itoa(1 + (int(w)-10)*9999/990) }

// ioWeightDevice: 0 takes the device's own weight back, as in cgroup v1.
func ioWeightDevice(r *resources, o *output) {
	for i, d := range r.BlockIO.WeightDevice {
		sub := "/" + strconv.Itoa(i)
		if get(d.LeafWeight) != 0 {
			o.failAt(sub+"/leafWeight", noLeafWeight)
		}
		dev, ok := o.device(sub, d.LinuxBlockIODevice)
		w := get(d.Weight)
		switch {
		case !ok || d.Weight == nil:
		case w == 0:
			l := o.setAt(sub, o.file, dev+" default")
			l.AltFile, l.AltValue = "io.weight", l.Value
		case o.checkWeight(sub+"/weight", w):
			l := o.setAt(sub, o.file, dev+" "+strconv.Itoa(int(w)))
			l.AltFile, l.AltValue = "io.weight", dev+" "+bfqToIO(w)
		}
	}
}

func (o *output) device(sub string, d specs.LinuxBlockIODevice) (string, bool) {
	if d.Major < 0 || d.Minor < 0 || d.Major > math.MaxUint32 || d.Minor > math.MaxUint32 {
		o.failAt(sub, "%d:%d is not a device; write its major and minor number", d.Major, d.Minor)
		return "", false
	}
	return strconv.FormatInt(d.Major, 10) + ":" + strconv.FormatInt(d.Minor, 10), true
}

// throttle writes one key at a time: io.max keeps the others of the device.
func (o *output) throttle(key string, devices []specs.LinuxThrottleDevice) {
	for i, d := range devices {
		sub := "/" + strconv.Itoa(i)
		rate := "max" // what 0 meant in v1
		if d.Rate != 0 {
			rate = strconv.FormatUint(d.Rate, 10)
		}
		if dev, ok := o.device(sub, d.LinuxBlockIODevice); ok {
			o.setAt(sub, o.file, dev+" "+key+"="+rate)
		}
	}
}

// hugepages limits use and reservation: a page reserved by mmap but never
// touched counts only in rsvd, and exceeding max alone is a SIGBUS.
func hugepages(r *resources, o *output) {
	for i, h := range r.HugepageLimits {
		sub := "/" + strconv.Itoa(i)
		if !isPageSize(h.Pagesize) {
			o.failAt(sub+"/pageSize", "%q is not a page size; write for example 2MB or 1GB", h.Pagesize)
			continue
		}
		value := strconv.FormatUint(h.Limit, 10)
		o.setAt(sub, "hugetlb."+h.Pagesize+".max", value)
		o.setAt(sub, "hugetlb."+h.Pagesize+".rsvd.max", value).Optional = true
	}
}

// isPageSize is strict because the size becomes part of a file name.
func isPageSize(s string) bool {
	if len(s) < 3 || !strings.Contains("KB MB GB", s[len(s)-2:]) || s[0] == '0' {
		return false
	}
	_, err := strconv.ParseUint(s[:len(s)-2], 10, 16)
	return err == nil
}

func rdma(r *resources, o *output) {
	for _, dev := range slices.Sorted(maps.Keys(r.Rdma)) {
		sub, value := "/"+escape(dev), dev
		if h := r.Rdma[dev].HcaHandles; h != nil {
			value += " hca_handle=" + strconv.FormatUint(uint64(*h), 10)
		}
		if h := r.Rdma[dev].HcaObjects; h != nil {
			value += " hca_object=" + strconv.FormatUint(uint64(*h), 10)
		}
		switch {
		case dev == "" || strings.ContainsAny(dev, " \t\n/="):
			o.failAt(sub, "%q is not the name of an RDMA device", dev)
		case value == dev:
			o.failAt(sub, "sets nothing; write hcaHandles or hcaObjects")
		default:
			o.setAt(sub, o.file, value)
		}
	}
}

// unified takes files by name; each line of a value is a write of its own.
func unified(r *resources, o *output) {
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		sub := "/" + escape(file)
		if problem := checkFile(file); problem != "" {
			o.failAt(sub, "%q %s", file, problem)
			continue
		}
		for line := range strings.SplitSeq(strings.TrimRight(r.Unified[file], "\n"), "\n") {
			if problem := checkValue(file, line); problem != "" {
				o.failAt(sub, "%q %s", r.Unified[file], problem)
				break
			}
			o.setAt(sub, file, line)
		}
	}
}

// checkValue refuses what the kernel reads as an empty line. For it that is a
// number, 0: for memory.max the order to kill. A list it clears.
func checkValue(file, line string) string {
	switch {
	case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return "contains control characters"
	case strings.TrimSpace(line) == "" && !strings.HasPrefix(file, "cpuset."):
		return "is empty, or a line of it; write a value, or leave the key out"
	}
	return ""
}

// checkFile keeps unified to limits: a key must not leave the directory, and
// must not move processes, freeze, kill or delegate behind husk's back.
func checkFile(file string) string {
	controller, rest, _ := strings.Cut(file, ".")
	switch {
	case strings.Contains(file, "/"):
		return `contains "/"; write the name of a file in the cgroup directory, such as memory.high`
	case controller == "" || rest == "" || len(file) > unix.NAME_MAX:
		return "is not the name of an interface file; write CONTROLLER.PARAMETER, such as memory.high"
	case strings.ContainsFunc(file, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "contains spaces or control characters; write the name of a file, such as memory.high"
	case controller == "cgroup" && !strings.HasPrefix(rest, "max.") && rest != "pressure":
		return "is not a limit but under husk's control; of the cgroup files only cgroup.max.depth, cgroup.max.descendants and cgroup.pressure can be set"
	}
	return ""
}

// escape makes s an element of a JSON pointer (RFC 6901).
func escape(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}
