package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"unsafe"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// last is the process that executes the payload of an exec, while it is being prepared.
// What only the payload's own process can do, or what would be in our way until it is
// born, becomes one of its system calls.
type last struct {
	namespaces.Last
	late  bool  // the filter is installed by the process, not before it is born
	extra int64 // capabilities that its calls need, which it gives up then

	ambient      int64   // capabilities that can be raised, of a hook
	filter, caps *Step   // for the end, and what is left then
	steps        []*Step // of the calls
	hold         []any   // what the calls point to
}

// call adds a system call on behalf of a step.
func (l *last) call(s *Step, trap uintptr, args ...uintptr) {
	var a [4]uintptr
	copy(a[:], args)
	l.Calls = append(l.Calls, namespaces.Call{Trap: trap, A1: a[0], A2: a[1], A3: a[2], A4: a[3]})
	l.steps = append(l.steps, s)
}

// enterPIDs has this thread's children born in the container's PID namespace. From here
// on the Go runtime can start no thread from this one, and would end the program if it had
// to: it wants another as soon as this goroutine has run for 10 ms, which it has where
// processors are slow or busy. So the runtime is told to start them from elsewhere.
func (i *initer) enterPIDs(s *Step) error {
	goruntime.LockOSThread()
	if err := unix.Setns(i.pidfd, unix.CLONE_NEWPID); err != nil {
		return os.NewSyscallError("setns pid", err)
	}
	terminal, filtered := s.Nums[0] != 0, s.Nums[1] != 0
	i.last = &last{Last: namespaces.Last{Conn: i.conn.FD()}, late: !filtered, extra: s.Nums[2]}
	i.last.call(s, unix.SYS_SETSID)
	if terminal {
		i.last.call(s, unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	i.last.room(s)
	return nil
}

// room raises the limit on processes that this one has from our caller, who means his
// own: it would count against the birth of one of the container's user. A payload that is
// given no other gets it back.
func (l *last) room(s *Step) {
	limit := &unix.Rlimit{}
	if unix.Prlimit(0, unix.RLIMIT_NPROC, nil, limit) != nil || limit.Cur == unix.RLIM_INFINITY {
		return
	}
	for _, highest := range []uint64{unix.RLIM_INFINITY, limit.Max} {
		if unix.Prlimit(0, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: highest, Max: highest}, nil) == nil {
			break
		}
	}
	l.hold = append(l.hold, limit)
	l.call(s, unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NPROC, uintptr(unsafe.Pointer(limit)), 0)
}

// rlimit leaves a limit to the process: one on processes or memory could be in the way
// of its birth.
func (l *last) rlimit(s *Step) error {
	limit := &unix.Rlimit{Cur: uint64(s.Nums[1]), Max: uint64(s.Nums[2])}
	l.hold = append(l.hold, limit)
	l.call(s, unix.SYS_PRLIMIT64, 0, uintptr(s.Nums[0]), uintptr(unsafe.Pointer(limit)), 0)
	return nil
}

// schedule sets what the process inherits at its birth, and leaves the rest to it: who
// has a deadline cannot fork, and what is reset by a fork would be.
func (l *last) schedule(s *Step) error {
	own, attr := s.schedAttr(), s.schedAttr()
	attr.Flags &^= unix.SCHED_FLAG_RESET_ON_FORK
	if attr.Policy != unix.SCHED_DEADLINE {
		if err := setScheduler(s, attr); err != nil || attr.Flags == own.Flags {
			return err
		}
	}
	l.hold = append(l.hold, own)
	l.call(s, unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(own)), 0)
	return nil
}

// setCaps sets the capabilities, and keeps beyond them what the calls need.
func (l *last) setCaps(s *Step) error {
	if l.extra == 0 {
		return setCaps(s.Nums[0], s.Nums[1], s.Nums[2])
	}
	l.caps = s
	return setCaps(s.Nums[0]|l.extra, s.Nums[1]|l.extra, s.Nums[2])
}

// closing is what must come last: the filter, if it has a listener or forbids what makes
// the process, and the end of the rights that it and the calls needed. That end comes
// before the wait for a listener's agent, unless it is for the agent to let it pass.
func (l *last) closing() error {
	have, err := permitted()
	if err != nil {
		return err
	}
	s := l.filter
	if s == nil {
		l.giveUp(have)
		return nil
	}
	packet := new([8]byte)
	if err = l.install(s, packet, have); err != nil {
		return err
	}
	asked := s.listens() && !s.filter().Allows(unix.SYS_CAPSET)
	if !asked {
		l.giveUp(have)
	}
	if s.listens() {
		l.handOver(s, packet)
	}
	if asked {
		l.giveUp(have)
	}
	return nil
}

// rights are the process's own capabilities and the extra ones, of those that we have.
func (l *last) rights(have, extra int64) (*unix.CapUserHeader, *[2]unix.CapUserData) {
	effective, permit, inheritable := l.caps.Nums[0]|extra, l.caps.Nums[1]|extra, l.caps.Nums[2]
	return capData(effective&permit&have, permit&have, inheritable&have)
}

// giveUp adds the call that leaves the process its own capabilities.
func (l *last) giveUp(have int64) {
	if l.caps == nil {
		return
	}
	header, data := l.rights(have, 0)
	l.hold = append(l.hold, header, data)
	l.call(l.caps, unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&data[0])))
}

// startLast has the process born. What is in the way before execve it reports itself.
func (i *initer) startLast(paths, argv, envp []*byte) (pid int, answers []unix.Errno) {
	i.last.Paths, i.last.Argv, i.last.Envp = paths, argv, envp
	err := i.last.closing()
	if err == nil {
		pid, answers, err = i.last.Start()
	}
	if pid != 0 && !i.last.Own {
		// By write(2), which filters more often allow than sendmsg(2).
		_, _ = unix.Write(i.conn.FD(), binary.LittleEndian.AppendUint32([]byte{msgExec, 0}, uint32(pid)))
	}
	if err != nil {
		i.reportLast(err)
		exit(1)
	}
	return pid, answers
}

// lastExec has the process born and tells exec its pid. It returns only after a failure.
func (i *initer) lastExec(paths, argv, envp []*byte) []unix.Errno {
	_, answers := i.startLast(paths, argv, envp)
	if len(answers) == 0 {
		exit(0)
	}
	return answers
}

// reportLast reports what was in the way before execve.
func (i *initer) reportLast(err error) {
	s := i.last.steps[0]
	if failed, ok := errors.AsType[*namespaces.CallError](err); ok {
		s = i.last.steps[failed.Call]
		err = fmt.Errorf("%s: %w", s, failed.Err)
	}
	i.report(s, err)
}
