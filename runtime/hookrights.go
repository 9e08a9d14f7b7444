package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"
	"slices"
	"syscall"
	"unsafe"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// This file runs startContainer hooks with the rights of the process, as crun and runc do:
// who configures the hook names a path, but what is there is for the image to say, and no
// program of an image shall come by more than the container's own. The hook's process is
// born like the payload of an exec, and gives up what the steps of the plan that follow
// give up (but the limits, which are for the process): ids, capabilities, the filter.

// spawn starts the hook h with the rights that the rest of the plan ends with.
func (i *initer) spawn(h *hookCall, args []string, stdin, output int) (pid int, err error) {
	l := &last{Last: namespaces.Last{Own: true, Conn: -1}}
	hook := &Step{Op: opHook, Args: []string{"", "", h.path}}
	l.call(hook, unix.SYS_SETPGID, 0, 0)
	for fd, from := range []int{stdin, output, output} {
		l.call(hook, unix.SYS_DUP3, uintptr(from), uintptr(fd), 0)
	}
	// Not just close-on-exec: a link at its path could lead through /proc/self/fd.
	l.call(hook, unix.SYS_CLOSE_RANGE, 3, math.MaxInt32, 0)
	for _, s := range i.rest {
		if err := i.giveUp(l, s.untracing()); err != nil {
			return 0, err
		}
	}
	path, err := syscall.BytePtrFromString(h.path)
	if err == nil {
		l.Argv, err = syscall.SlicePtrFromStrings(args)
	}
	if err == nil {
		l.Envp, err = syscall.SlicePtrFromStrings(h.env)
	}
	if err != nil {
		return 0, err
	}
	l.Paths = []*byte{path}
	pid, answers, err := l.Start()
	if err == nil && len(answers) == 0 {
		return pid, nil
	}
	if pid != 0 {
		_, _ = retry(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) })
	}
	if failed, ok := errors.AsType[*namespaces.CallError](err); ok {
		return 0, fmt.Errorf("hook %s: %s: %w", h.path, l.steps[failed.Call], failed.Err)
	}
	if err == nil {
		err = &fs.PathError{Op: "run hook", Path: h.path, Err: answers[0]}
	}
	return 0, err
}

// untracing takes CAP_SYS_PTRACE from a step that gives capabilities. Until it executes
// the process, the init has all the rights that husk has: nobody else in the container may
// take control of it, dumpable or not.
func (s Step) untracing() *Step {
	if s.Op == opBounding || s.Op == opCaps || s.Op == opAmbient {
		s.Nums = slices.Clone(s.Nums)
		for k := range s.Nums {
			s.Nums[k] &^= tracing
		}
	}
	return &s
}

const tracing = 1 << unix.CAP_SYS_PTRACE

// giveUp adds the calls that do for another process what the init does for itself in
// step s, if it is about rights.
func (i *initer) giveUp(l *last, s *Step) error {
	switch s.Op {
	case opSeccomp:
		// Nobody is told of a listener: calls that would be asked about fail with ENOSYS.
		prog := bpfProgram(s)
		l.hold = append(l.hold, prog)
		flags := uintptr(s.Nums[0]) &^ (unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
		l.call(s, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(prog)))
	case opBounding:
		for n := range uintptr(64) {
			set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
			if err != nil {
				break // the kernel knows no more
			}
			if set == 1 && s.Nums[0]&(1<<n) == 0 {
				l.call(s, unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0)
			}
		}
	case opUser:
		i.giveUpIDs(l, s)
	case opCaps:
		return giveUpCaps(l, s)
	case opAmbient:
		for m := uint64(s.Nums[0] & l.ambient); m != 0; m &= m - 1 {
			l.call(s, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(bits.TrailingZeros64(m)), 0)
		}
	case opNoNewPrivs:
		l.call(s, unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0)
	}
	return nil
}

func (i *initer) giveUpIDs(l *last, s *Step) {
	groups := make([]uint32, len(s.Nums)-1) // one more than there are, to point to
	for k := range s.Nums[2:] {
		groups[k] = uint32(s.Nums[k+2])
	}
	l.hold = append(l.hold, groups)
	l.call(s, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0)
	if n := len(s.Nums) - 2; n > 0 || !i.setgroupsDenied() {
		l.call(s, unix.SYS_SETGROUPS, uintptr(n), uintptr(unsafe.Pointer(&groups[0])))
	}
	uid, gid := uintptr(s.Nums[0]), uintptr(s.Nums[1])
	l.call(s, unix.SYS_SETRESGID, gid, gid, gid)
	l.call(s, unix.SYS_SETRESUID, uid, uid, uid)
	l.call(s, unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0, 0)
}

func giveUpCaps(l *last, s *Step) error {
	have, err := permitted()
	if err != nil {
		return err
	}
	permit, inheritable := s.Nums[1]&have, s.Nums[2]&have
	l.ambient = permit & inheritable
	header, data := capData(s.Nums[0]&permit, permit, inheritable)
	l.hold = append(l.hold, header, data)
	l.call(s, unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&data[0])))
	l.call(s, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0)
	// A change of ids undoes this.
	l.call(s, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0)
	return nil
}
