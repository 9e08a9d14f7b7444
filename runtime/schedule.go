package runtime

import (
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// constant is a name of the specification and the kernel's number for it. One table
// each serves validation, the plan and the features document.
type constant[T ~string] struct {
	name  T
	value uint64
}

func valueOf[T ~string](table []constant[T], name T) uint64 {
	for _, c := range table {
		if c.name == name {
			return c.value
		}
	}
	return 0 // Validate has refused it
}

func namesOf[T ~string](table []constant[T]) []T {
	list := make([]T, len(table))
	for i := range table {
		list[i] = table[i].name
	}
	return list
}

// flagsOf joins the bits of flags, and their names for messages.
func flagsOf[T ~string](table []constant[T], flags []T) (bits uint64, words []string) {
	for _, f := range flags {
		bits |= valueOf(table, f)
		words = append(words, string(f))
	}
	return bits, words
}

var schedPolicies = []constant[specs.LinuxSchedulerPolicy]{
	{specs.SchedOther, unix.SCHED_NORMAL},
	{specs.SchedFIFO, unix.SCHED_FIFO},
	{specs.SchedRR, unix.SCHED_RR},
	{specs.SchedBatch, unix.SCHED_BATCH},
	{specs.SchedISO, 4}, // the kernel has reserved the number, and so far done nothing with it
	{specs.SchedIdle, unix.SCHED_IDLE},
	{specs.SchedDeadline, unix.SCHED_DEADLINE},
}

var schedFlags = []constant[specs.LinuxSchedulerFlag]{
	{specs.SchedFlagResetOnFork, unix.SCHED_FLAG_RESET_ON_FORK},
	{specs.SchedFlagReclaim, unix.SCHED_FLAG_RECLAIM},
	{specs.SchedFlagDLOverrun, unix.SCHED_FLAG_DL_OVERRUN},
	{specs.SchedFlagKeepPolicy, unix.SCHED_FLAG_KEEP_POLICY},
	{specs.SchedFlagKeepParams, unix.SCHED_FLAG_KEEP_PARAMS},
	{specs.SchedFlagUtilClampMin, unix.SCHED_FLAG_UTIL_CLAMP_MIN},
	{specs.SchedFlagUtilClampMax, unix.SCHED_FLAG_UTIL_CLAMP_MAX},
}

// Of linux/ioprio.h, which x/sys does not have.
const (
	ioprioProcess = 1 // IOPRIO_WHO_PROCESS
	ioprioShift   = 13
)

var ioClasses = []constant[specs.IOPriorityClass]{
	{specs.IOPRIO_CLASS_RT, 1},
	{specs.IOPRIO_CLASS_BE, 2},
	{specs.IOPRIO_CLASS_IDLE, 3},
}

var domains = []constant[specs.LinuxPersonalityDomain]{
	{specs.PerLinux, 0},
	{specs.PerLinux32, 8},
}

// affinity lets the process run on every CPU, whatever the caller was bound to, or binds
// an exec to those of execCPUAffinity. With the initial CPUs alone it stays on them or
// goes where the cpuset says, as the specification has it.
func (p *Plan) affinity(a *specs.CPUAffinity) {
	switch {
	case a == nil || *a == (specs.CPUAffinity{}):
		p.add(opAffinity, "")
	case a.Final != "":
		mask, _ := parseList(a.Final)
		p.add(opAffinity, "/process/execCPUAffinity/final", a.Final).Nums = mask
	}
}

// schedule adds the scheduling of the processor and of I/O.
func (p *Plan) schedule(proc *specs.Process) {
	if s := proc.Scheduler; s != nil {
		flags, words := flagsOf(schedFlags, s.Flags)
		p.add(opScheduler, "/process/scheduler", append([]string{string(s.Policy)}, words...)...).Nums = []int64{
			int64(valueOf(schedPolicies, s.Policy)), int64(flags), int64(s.Nice), int64(s.Priority),
			int64(s.Runtime), int64(s.Deadline), int64(s.Period),
		}
	}
	if io := proc.IOPriority; io != nil {
		p.add(opIOPriority, "/process/ioPriority", string(io.Class)).Nums = []int64{
			int64(valueOf(ioClasses, io.Class)<<ioprioShift) | int64(io.Priority),
		}
	}
}

// schedAttr is what sched_setattr(2) takes. The specification has no values for the
// clamps of utilization; they are 0 like everything that is not given.
func (s *Step) schedAttr() *unix.SchedAttr {
	return &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: uint32(s.Nums[0]), Flags: uint64(s.Nums[1]),
		Nice: int32(s.Nums[2]), Priority: uint32(s.Nums[3]),
		Runtime: uint64(s.Nums[4]), Deadline: uint64(s.Nums[5]), Period: uint64(s.Nums[6]),
	}
}

func (s *Step) schedText() string {
	text := "set scheduling policy " + s.Args[0]
	for k, name := range []string{"nice", "priority", "runtime", "deadline", "period"} {
		if n := s.Nums[2+k]; n != 0 {
			text += ", " + name + " " + strconv.FormatInt(n, 10)
		}
	}
	if len(s.Args) > 1 {
		text += " (" + strings.Join(s.Args[1:], ", ") + ")"
	}
	return text
}

// setScheduler sets the scheduling of this thread. What is refused in a user namespace,
// our parent may have set already, from where it has the right to.
func setScheduler(s *Step, attr *unix.SchedAttr) error {
	err := unix.SchedSetAttr(0, attr, 0)
	if err == nil || err == unix.EPERM && isScheduled(attr) {
		return nil
	}
	return fmt.Errorf("sched_setattr %s: %w", s.Args[0], err)
}

func isScheduled(want *unix.SchedAttr) bool {
	have, err := unix.SchedGetAttr(0, 0)
	return err == nil && have.Policy == want.Policy && have.Priority == want.Priority &&
		have.Flags&unix.SCHED_FLAG_RESET_ON_FORK == want.Flags&unix.SCHED_FLAG_RESET_ON_FORK &&
		(have.Nice == want.Nice || want.Policy != unix.SCHED_NORMAL && want.Policy != unix.SCHED_BATCH) &&
		(want.Policy != unix.SCHED_DEADLINE || have.Runtime == want.Runtime && have.Deadline == want.Deadline)
}

// setIOPriority sets the priority of this thread, from which all processes of the
// container descend.
func setIOPriority(s *Step) error {
	priority := uintptr(s.Nums[0])
	_, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, ioprioProcess, 0, priority)
	if errno == unix.EPERM { // as in setScheduler
		if have, _, e := unix.RawSyscall(unix.SYS_IOPRIO_GET, ioprioProcess, 0, 0); e == 0 && have == priority {
			return nil
		}
	}
	if errno != 0 {
		return fmt.Errorf("ioprio_set %s: %w", s.Args[0], errno)
	}
	return nil
}

// prioritize gives the process pid, which is in a user namespace, the scheduling for
// which only root of the host has the right. The process asks for the same when it is
// its turn: then it has it, or reports the refusal. One that has to fork first cannot
// have a deadline, nor lose at that moment what is reset by it.
func prioritize(pid int, steps []Step, forks bool) {
	for k := range steps {
		switch s := &steps[k]; s.Op {
		case opScheduler:
			attr := s.schedAttr()
			deadline := attr.Policy == unix.SCHED_DEADLINE
			switch {
			case forks && deadline:
				continue
			case forks:
				attr.Flags &^= unix.SCHED_FLAG_RESET_ON_FORK
			case deadline: // is for those alone who may run everywhere
				_ = allowEveryCPU(pid)
			}
			_ = unix.SchedSetAttr(pid, attr, 0)
		case opIOPriority:
			_, _, _ = unix.RawSyscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(pid), uintptr(s.Nums[0]))
		}
	}
}

// setAffinity binds this thread to the CPUs of a step, or to none.
func setAffinity(s *Step) error {
	if len(s.Nums) == 0 {
		return allowEveryCPU(0)
	}
	if err := bind(s.Nums); err != nil {
		return fmt.Errorf("sched_setaffinity %s: %w", s.Args[0], err)
	}
	return nil
}

func bind(mask []int64) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)*8), uintptr(unsafe.Pointer(&mask[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// maxCPUMask holds more CPUs than any kernel has.
const maxCPUMask = 8192

// allowEveryCPU undoes the affinity of whoever called husk. The cpuset of the cgroup
// still holds.
func allowEveryCPU(pid int) error {
	var mask [maxCPUMask]byte
	for k := range mask {
		mask[k] = 0xff
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(pid), uintptr(len(mask)), uintptr(unsafe.Pointer(&mask)))
	// EINVAL: the cpuset allows none of the CPUs that the thread may use; it then runs
	// where the cpuset says.
	if errno != 0 && errno != unix.EINVAL {
		return os.NewSyscallError("sched_setaffinity", errno)
	}
	return nil
}

// onCPUs calls f on a thread that is bound to the CPUs of a list, as are the processes
// that f starts. An empty list binds to nothing.
func onCPUs(list string, f func() error) error {
	if list == "" {
		return f()
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var before [maxCPUMask / 8]int64
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, maxCPUMask, uintptr(unsafe.Pointer(&before)))
	if errno != 0 {
		return os.NewSyscallError("sched_getaffinity", errno)
	}
	mask, _ := parseList(list)
	if err := bind(mask); err != nil {
		return at("/process/execCPUAffinity/initial", "", fmt.Errorf("sched_setaffinity %s: %w", list, err))
	}
	defer func() { _ = bind(before[:]) }()
	return f()
}

// setPersonality changes what uname(2) says of the machine.
func setPersonality(s *Step) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(s.Nums[0]), 0, 0); errno != 0 {
		return fmt.Errorf("personality %s: %w", s.Args[0], errno)
	}
	return nil
}

// parseList reads the kernel's list format, numbers and ranges between commas, into a
// bit mask of machine words.
func parseList(list string) (mask []int64, ok bool) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		low, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, false
		}
		high, err := strconv.ParseUint(last, 10, 16)
		if err != nil || high < low {
			return nil, false
		}
		for n := low; n <= high; n++ {
			for uint64(len(mask)) <= n/64 {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, true
}
