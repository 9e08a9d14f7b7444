package runtime

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is how a process ended.
type siginfo struct {
	pid    int
	code   int         // exit status
	signal int         // signal that killed it, 0 if it exited
	used   unix.Rusage // by it and those it has waited for
}

// exitStatus is what a shell reports.
func (s siginfo) exitStatus() int {
	if s.signal != 0 {
		return 128 + s.signal
	}
	return s.code
}

// waitPidfd reaps the process behind a pidfd, which must be the caller's child.
func waitPidfd(pidfd int) (siginfo, error) { return waitid(unix.P_PIDFD, pidfd, unix.WEXITED) }

// nextChild waits until a child has ended and returns its pid. The child stays to be reaped.
func nextChild() (int, error) {
	info, err := waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOWAIT)
	return info.pid, err
}

func waitid(kind, id, options int) (siginfo, error) {
	// siginfo_t of waitid: signo, errno, code, padding, pid, uid, status.
	var raw struct {
		signo, errno, code, _ int32
		pid                   int32
		uid                   uint32
		status                int32
		_                     [100]byte
	}
	var used unix.Rusage
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, uintptr(kind), uintptr(id), uintptr(unsafe.Pointer(&raw)), uintptr(options),
			uintptr(unsafe.Pointer(&used)), 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return siginfo{}, os.NewSyscallError("waitid", errno)
		}
		const exited = 1 // CLD_EXITED
		if raw.code == exited {
			return siginfo{pid: int(raw.pid), code: int(raw.status), used: used}, nil
		}
		return siginfo{pid: int(raw.pid), signal: int(raw.status), used: used}, nil
	}
}
