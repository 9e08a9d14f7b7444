package namespaces

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Last is the last process on the way into a container: it is born in the PID namespace
// that the calling thread has entered for its children, makes a few system calls, and
// executes the payload. Processes of the container can see it from its birth on, and trace
// it if they may trace what they see. So it is born when its parent, whom they cannot see,
// has given up what the payload shall not have, and with a copy of its parent's memory,
// which is that of a program without secrets. What it has beyond the payload until execve:
// the conversation, whose other end must believe nothing, and what Calls give up.
type Last struct {
	// Own makes the process a child of the caller instead of the caller's parent.
	Own bool
	// Conn is the descriptor of the conversation. If nobody is at its other end any more
	// when the process is about to execute, as happens to one that was frozen before, it
	// ends instead. -1: there is none.
	Conn int
	// Calls are made in this order before execve; the first that fails ends the process.
	Calls []Call
	// Paths are tried one after the other, as execvp(3) does.
	Paths, Argv, Envp []*byte
}

// Call is a system call. What its arguments point to must stay where it is.
type Call struct {
	Trap, A1, A2, A3, A4 uintptr
	// Least is the smallest result that is not a failure (EPIPE, then).
	Least uintptr
	// Result, if not nil, gets the result, for the calls that follow.
	Result *uint32
}

// CallError says which of the calls failed.
type CallError struct {
	Call int
	Err  syscall.Errno
}

func (e *CallError) Error() string { return e.Err.Error() }
func (e *CallError) Unwrap() error { return e.Err }

// verdict is what the process tells its parent, in memory that they share.
type verdict struct {
	born   uint32 // it ran at all
	ended  uint32 // it did not execute
	failed uint32 // the number of the call that failed, from 1
	errno  uint32 // of that call
	tried  uint32 // paths that execve refused, with these answers
	answer [maxPaths]uint32
}

const maxPaths = 1000

var errStillborn = errors.New("the process was killed at its birth")

// Start makes the process, as a child of the caller's parent or the caller's own, and
// returns when it has executed one of the paths or failed: then answers are what execve
// said of each path, or err says what else failed. The pid is 0 if there was no process
// at all.
func (l *Last) Start() (pid int, answers []syscall.Errno, err error) {
	if len(l.Paths) > maxPaths {
		return 0, nil, fmt.Errorf("more than %d directories in PATH: %w", maxPaths, unix.E2BIG)
	}
	page, err := unix.Mmap(-1, 0, int(unsafe.Sizeof(verdict{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, nil, os.NewSyscallError("mmap", err)
	}
	defer func() { _ = unix.Munmap(page) }()
	v := (*verdict)(unsafe.Pointer(&page[0]))
	h := &lastHalf{last: l, verdict: v}
	h.report, h.argv, h.envv = uintptr(l.Conn), l.Argv, l.Envp
	beforeFork()
	n, errno := h.fork()
	afterFork()
	goruntime.KeepAlive(h)
	// Who traces the process may write there even now: it is read once, and nothing in it
	// is believed beyond what it can do to the process itself.
	said := *v
	switch {
	case errno != 0:
		return 0, nil, os.NewSyscallError("clone", errno)
	case said.born == 0:
		return int(n), nil, errStillborn
	case said.failed != 0:
		return int(n), nil, &CallError{min(int(said.failed), len(l.Calls)) - 1, syscall.Errno(said.errno)}
	case said.ended == 0:
		return int(n), nil, nil
	}
	for _, e := range said.answer[:min(int(said.tried), len(l.Paths))] {
		answers = append(answers, syscall.Errno(e))
	}
	return int(n), answers, nil
}

// lastHalf is the child's half of Start. The rules of child.go hold here too.
type lastHalf struct {
	half
	last    *Last
	verdict *verdict
}

// lastFlags of clone(2), which filters let pass that know no clone3(2). Nothing is shared
// with the caller: through its memory who traces the process would be outside.
const lastFlags = unix.CLONE_PARENT | unix.CLONE_VFORK | uintptr(unix.SIGCHLD)

//go:noinline
//go:norace
//go:nosplit
func (h *lastHalf) fork() (uintptr, syscall.Errno) {
	flags := uintptr(lastFlags)
	if h.last.Own {
		flags &^= unix.CLONE_PARENT
	}
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	h.run()
	return 0, 0 // not reached
}

// run is the life of the process.
//
//go:nosplit
//go:norace
func (h *lastHalf) run() {
	v := h.verdict
	v.born = 1
	h.resetSignals()
	for i := range h.last.Calls {
		c := &h.last.Calls[i]
		r, _, e := syscall.RawSyscall6(c.Trap, c.A1, c.A2, c.A3, c.A4, 0, 0)
		if e == 0 && r < c.Least {
			e = unix.EPIPE
		}
		if e != 0 {
			v.failed, v.errno = uint32(i+1), uint32(e)
			h.exit(1)
		}
		if c.Result != nil {
			*c.Result = uint32(r)
		}
	}
	if h.abandoned() {
		h.exit(1)
	}
	for i := range h.last.Paths {
		_, _, e := syscall.RawSyscall6(unix.SYS_EXECVE, uintptr(unsafe.Pointer(h.last.Paths[i])),
			uintptr(unsafe.Pointer(&h.argv[0])), uintptr(unsafe.Pointer(&h.envv[0])), 0, 0, 0)
		v.answer[i] = uint32(e)
		v.tried++
		if e != unix.ENOENT && e != unix.ENOTDIR && e != unix.EACCES {
			break
		}
	}
	v.ended = 1
	h.exit(1)
}
