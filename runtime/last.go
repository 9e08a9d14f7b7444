package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// last is the process that executes the payload of an exec, while it is being prepared.
// What only the payload's own process can do, or what would be in our way until it is
// born, becomes one of its system calls.
type last struct {
	namespaces.Last
	bare  bool    // the filter needs no rights any more, and can wait
	steps []*Step // of the calls
	hold  []any   // what the calls point to
}

// call adds a system call on behalf of a step.
func (l *last) call(s *Step, trap uintptr, args ...uintptr) {
	var a [4]uintptr
	copy(a[:], args)
	l.Calls = append(l.Calls, namespaces.Call{Trap: trap, A1: a[0], A2: a[1], A3: a[2], A4: a[3]})
	l.steps = append(l.steps, s)
}

// enterPIDs has this thread's children born in the container's PID namespace. From here
// on the Go runtime can start no thread from this one.
func (i *initer) enterPIDs(s *Step) error {
	if err := unix.Setns(i.pidfd, unix.CLONE_NEWPID); err != nil {
		return os.NewSyscallError("setns pid", err)
	}
	terminal, legacy := s.Nums[0] != 0, s.Nums[1] != 0
	i.last = &last{Last: namespaces.Last{Cgroup: i.cgroup, Legacy: legacy, Conn: i.conn.FD()}}
	i.last.call(s, unix.SYS_SETSID)
	if terminal {
		i.last.call(s, unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	return nil
}

// keepFSUID keeps root's right to its files, of which the cgroup is one, until the
// process is born, which gives it up before all else. It is not used for anything but
// that: the directory that only the user may enter is entered now.
func (i *initer) keepFSUID(s *Step, uid uintptr) error {
	if !i.inside {
		if err := chdir(i.cwd); err != nil {
			return err
		}
		i.inside = true
	}
	have, err := permitted()
	if err == nil {
		err = capset(have, have, 0) // the change of ids has left none of them effective
	}
	if err != nil {
		return os.NewSyscallError("capset", err)
	}
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
	i.last.call(s, unix.SYS_SETFSUID, uid)
	return nil
}

// rlimit leaves a limit to the process: one on processes or memory could be in the way
// of its birth.
func (l *last) rlimit(s *Step) error {
	limit := &unix.Rlimit{Cur: uint64(s.Nums[1]), Max: uint64(s.Nums[2])}
	l.hold = append(l.hold, limit)
	l.call(s, unix.SYS_PRLIMIT64, 0, uintptr(s.Nums[0]), uintptr(unsafe.Pointer(limit)), 0)
	return nil
}

// filter leaves the seccomp filter to the process where no privilege is needed to install
// it: it might forbid what makes the process.
func (l *last) filter(s *Step) error {
	bpf := []byte(s.Args[0])
	prog := &unix.SockFprog{Len: uint16(len(bpf) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&bpf[0]))}
	l.hold = append(l.hold, prog)
	l.call(s, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(s.Nums[0]), uintptr(unsafe.Pointer(prog)))
	return nil
}

// lastExec has the process born and tells exec its pid. It returns only after a failure.
func (i *initer) lastExec(paths, argv, envp []*byte) []unix.Errno {
	i.last.Paths, i.last.Argv, i.last.Envp = paths, argv, envp
	pid, answers, err := i.last.Start()
	if errors.Is(err, namespaces.ErrStillborn) && i.last.Cgroup >= 0 {
		// Nothing can be born in this cgroup. Then we have ourselves moved there.
		i.tell(msgStillborn, pid)
		if _, err := i.await(msgResume); err != nil {
			os.Exit(1)
		}
		i.last.Cgroup = -1
		pid, answers, err = i.last.Start()
	}
	if pid != 0 {
		i.tell(msgExec, pid)
	}
	if err != nil {
		i.reportLast(err)
		os.Exit(1)
	}
	if len(answers) == 0 {
		os.Exit(0)
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

// tell names a process by write(2), which filters more often allow than sendmsg(2).
func (i *initer) tell(kind byte, pid int) {
	_, _ = unix.Write(i.conn.FD(), binary.LittleEndian.AppendUint32([]byte{kind, 0}, uint32(pid)))
}
