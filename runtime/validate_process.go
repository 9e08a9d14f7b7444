package runtime

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// scheduler follows sched_setattr(2).
func (v *validator) scheduler(s *specs.Scheduler) {
	const field = "/process/scheduler"
	oneOf(v, field+"/policy", s.Policy, "a scheduling policy", namesOf(schedPolicies)...)
	if s.Policy == specs.SchedISO && !knowsPolicy(valueOf(schedPolicies, s.Policy)) {
		v.bad(field+"/policy", "SCHED_ISO is not implemented by this kernel", "use SCHED_BATCH, or a real-time policy")
	}
	for i, f := range s.Flags {
		oneOf(v, item(field+"/flags", i), f, "a scheduling flag", namesOf(schedFlags)...)
	}
	if s.Nice < -20 || s.Nice > 19 {
		v.bad(field+"/nice", fmt.Sprintf("is %d", s.Nice), "write a number from -20 to 19")
	}
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	if realtime && (s.Priority < 1 || s.Priority > 99) {
		v.bad(field+"/priority", fmt.Sprintf("is %d", s.Priority), "write a number from 1 to 99 for "+string(s.Policy))
	} else if !realtime && s.Priority != 0 {
		v.bad(field+"/priority", "is for SCHED_FIFO and SCHED_RR only", "remove it or change the policy")
	}
	if s.Policy == specs.SchedDeadline {
		v.deadline(field, s)
	} else if s.Runtime != 0 || s.Deadline != 0 || s.Period != 0 {
		v.bad(field, "has runtime, deadline or period, which are for SCHED_DEADLINE only", "remove them or change the policy")
	}
}

// knowsPolicy asks the kernel, without setting anything.
func knowsPolicy(policy uint64) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_GET_PRIORITY_MAX, uintptr(policy), 0, 0)
	return errno == 0
}

// minRuntime is the kernel's resolution, 1 << DL_SCALE nanoseconds.
const minRuntime = 1024

// deadline is the kernel's __checkparam_dl. A period of 0 is the deadline.
func (v *validator) deadline(field string, s *specs.Scheduler) {
	const order = "write nanoseconds with runtime ≤ deadline ≤ period"
	if s.Runtime < minRuntime {
		v.bad(field+"/runtime", fmt.Sprintf("is %d", s.Runtime), fmt.Sprintf("write at least %d nanoseconds", minRuntime))
	}
	if s.Deadline < s.Runtime {
		v.bad(field+"/deadline", fmt.Sprintf("%d is below the runtime %d", s.Deadline, s.Runtime), order)
	}
	if s.Period != 0 && s.Period < s.Deadline {
		v.bad(field+"/period", fmt.Sprintf("%d is below the deadline %d", s.Period, s.Deadline), order)
	}
}

func (v *validator) ioPriority(p *specs.LinuxIOPriority) {
	oneOf(v, "/process/ioPriority/class", p.Class, "an I/O priority class", namesOf(ioClasses)...)
	if p.Priority < 0 || p.Priority > 7 {
		v.bad("/process/ioPriority/priority", fmt.Sprintf("is %d", p.Priority), "write a number from 0 to 7")
	}
}

// numberList checks what parseList reads.
func (v *validator) numberList(field, list string) {
	if list == "" {
		return
	}
	if _, ok := parseList(list); !ok {
		v.bad(field, quote(list)+" is not a list of numbers", "write it as in \"0-3,7\"")
	}
}
