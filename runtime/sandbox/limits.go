package sandbox

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/systemd"
	"github.com/huskrun/husk/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cpuPeriod is that of the kernel's default, in microseconds.
const cpuPeriod = 100_000

// limits sets those of the cgroup and of the process.
func (b *builder) limits() error {
	o, r := b.o, b.spec.Linux.Resources
	if o.Swap > 0 && o.Memory == 0 {
		return bad("swap", "give --memory too", "there is no limit on memory to which it could be added")
	}
	if o.CPUs < 0 || o.CPUs > 0 && o.CPUs < 0.01 || math.IsNaN(o.CPUs) || o.CPUs > 1<<20 {
		return bad("cpus", "give 0.01 at least", "%v is not a number of CPUs", o.CPUs)
	}
	if o.Timeout < 0 || o.Idle < 0 {
		return bad("timeout", "give a time, as in 10m", "%v is in the past", min(o.Timeout, o.Idle))
	}
	missing := b.missing()
	if o.Memory > 0 && b.has("memory", "memory", missing) {
		memory, total := int64(o.Memory), int64(o.Memory+o.Swap)
		r.Memory = &specs.LinuxMemory{Limit: &memory, Swap: &total}
	}
	if o.CPUs > 0 && b.has("cpus", "cpu", missing) {
		quota, period := int64(o.CPUs*cpuPeriod), uint64(cpuPeriod)
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if o.Pids > 0 && b.has("pids", "pids", missing) {
		pids := int64(o.Pids)
		r.Pids = &specs.LinuxPids{Limit: &pids}
	}
	if o.IO > 0 && b.has("io", "io", missing) {
		if err := b.limitIO(); err != nil {
			return err
		}
	}
	return b.rlimits()
}

// has says whether a limit can be had. If not, an attempt at it fails with the reason,
// unless doing without is allowed.
func (b *builder) has(flag, controller string, missing []string) bool {
	if !b.o.BestEffort || !slices.Contains(missing, controller) {
		return true
	}
	b.LeftOut = append(b.LeftOut, fmt.Sprintf("--%s: the %s controller is not available", flag, controller))
	return false
}

// missing lists the controllers that the group of a job cannot have.
func (b *builder) missing() (list []string) {
	if !b.o.BestEffort && b.uid == 0 || !b.accounted() {
		return nil
	}
	var have []string
	if parent, err := b.parent(); err == nil {
		text, _ := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		have = strings.Fields(string(text))
	}
	for _, c := range []string{"memory", "cpu", "pids", "io"} {
		if !slices.Contains(have, c) {
			list = append(list, c)
		}
	}
	return list
}

// accounted says whether it matters that the job has a group of its own.
func (b *builder) accounted() bool {
	o := b.o
	return o.Memory > 0 || o.CPUs > 0 || o.Pids > 0 || o.IO > 0 || o.Report != "" || o.Summary
}

// busPatience is what the user's systemd has to say that it is there.
const busPatience = 5 * time.Second

// parent is the directory below which the group of the job will be. An ordinary user needs
// one that was delegated; where none was, the user's systemd makes it, to which a part of the hierarchy is
// delegated.
func (b *builder) parent() (dir string, err error) {
	mount, err := cgroups.Mountpoint()
	if err != nil || b.uid == 0 {
		return mount, err
	}
	if dir, err = cgroups.Delegated(); err == nil {
		return mount + dir, nil
	}
	unit, err := systemd.Parse("", "sandbox", true)
	if err != nil {
		return "", err
	}
	manager, err := unit.Connect(busPatience)
	if err != nil {
		return "", err
	}
	defer manager.Close()
	if dir, err = manager.Path(unit); err == nil {
		b.cgroups = runtime.Systemd
	}
	return filepath.Join(mount, dir, "../.."), err // above the unit and its slice
}

// limitIO limits the rate of the disk that the workspace is on.
func (b *builder) limitIO() error {
	var st unix.Stat_t
	if err := unix.Stat(b.workspace, &st); err != nil {
		return bad("workspace", "", "%s: %w", b.workspace, err)
	}
	major, minor, err := diskOf(st.Dev)
	if err != nil {
		return bad("io", "the workspace has to be on a file system on a disk", "%s: %w", b.workspace, err)
	}
	d := specs.LinuxThrottleDevice{Rate: uint64(b.o.IO)}
	d.Major, d.Minor = major, minor
	list := []specs.LinuxThrottleDevice{d}
	b.spec.Linux.Resources.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: list, ThrottleWriteBpsDevice: list}
	return nil
}

// diskOf returns the number of the disk that a device is, or is a partition of: only
// whole disks can be limited.
func diskOf(dev uint64) (major, minor int64, err error) {
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return 0, 0, err
	}
	if _, err := os.Stat(dir + "/partition"); err == nil {
		dir = filepath.Dir(dir)
	}
	text, err := os.ReadFile(dir + "/dev")
	if err != nil {
		return 0, 0, err
	}
	first, second, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
	if major, err = strconv.ParseInt(first, 10, 32); err == nil {
		minor, err = strconv.ParseInt(second, 10, 32)
	}
	return major, minor, err
}

// rlimits sets those of the process. The number of processes is limited here too: in a
// user namespace of its own it counts the job's alone, also where no cgroup does.
func (b *builder) rlimits() error {
	b.spec.Process.Rlimits = nil
	add := func(kind string, n uint64) {
		b.spec.Process.Rlimits = append(b.spec.Process.Rlimits, specs.POSIXRlimit{Type: kind, Soft: n, Hard: n})
	}
	add("RLIMIT_CORE", coreLimit())
	if n := b.o.Nofile; n > 0 {
		if n < 16 {
			return bad("nofile", "give 16 at least", "%s are too few to start a program with", strconv.FormatUint(n, 10))
		}
		add("RLIMIT_NOFILE", n)
	}
	if b.o.Pids > 0 {
		add("RLIMIT_NPROC", b.o.Pids)
	}
	return nil
}

// coreLimit is the one that keeps cores also from a program of the host to which the kernel
// pipes them, root's, and which a limit of 0 does not concern (core(5)). The caller may
// have less.
func coreLimit() uint64 {
	var own unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &own) != nil {
		return 0
	}
	return min(1, own.Max)
}
