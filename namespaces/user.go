package namespaces

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// NewUser makes a user namespace that no process is in, for its id maps: an
// id-mapped mount takes them from there. It lives as long as the file or such a
// mount.
//
// A namespace is made with a process in it, and only a process with a single
// thread may unshare this kind. So there is one for the moment, which waits for
// its death; it has no exit signal, and waitpid(2) without __WALL does not see it.
func NewUser(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	h := userHalf{parent: uintptr(os.Getpid())}
	h.args.flags = unix.CLONE_NEWUSER | unix.CLONE_PIDFD
	h.args.pidfd = uint64(uintptr(unsafe.Pointer(&h.pidfd)))
	beforeFork()
	pid, errno := h.fork()
	afterFork()
	if errno != 0 {
		return nil, os.NewSyscallError("clone3 user", errno)
	}
	p := Process{PID: int(pid), FD: os.NewFile(uintptr(h.pidfd), "pidfd")}
	defer p.reap()
	defer func() { _ = unix.PidfdSendSignal(int(p.FD.Fd()), unix.SIGKILL, nil, 0) }()
	c := Config{UIDMaps: uids, GIDMaps: gids}
	if err := c.writeMaps(p.PID); err != nil {
		return nil, err
	}
	return Open("/proc/"+strconv.Itoa(p.PID)+"/ns/user", unix.CLONE_NEWUSER)
}

// userHalf is what the child of NewUser needs: see half for the rules.
type userHalf struct {
	args   cloneArgs
	pidfd  int32
	parent uintptr
}

//go:noinline
//go:norace
//go:nosplit
func (h *userHalf) fork() (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&h.args)), unsafe.Sizeof(h.args), 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	for {
		// All signals are blocked but the one that ends it.
		if ppid, _, _ := syscall.RawSyscall6(unix.SYS_GETPPID, 0, 0, 0, 0, 0, 0); ppid != h.parent {
			syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, 0)
		}
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
