package seccomp

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is a struct seccomp_notif: a call that waits for an answer.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// answer is a struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// flagContinue has the call made as if there were no filter (Linux 5.5).
const flagContinue = 1

// The requests of a listener, seccomp_unotify(2).
var (
	notifRecv    = request(iocRead|iocWrite, 0, unsafe.Sizeof(notification{}))
	notifSend    = request(iocRead|iocWrite, 1, unsafe.Sizeof(answer{}))
	notifIDValid = request(iocWrite, 2, 8)
	notifFlags   = request(iocWrite, 4, 8) // Linux 6.6
)

const (
	iocWrite = 1 << iota
	iocRead
)

// request is _IOC of <asm/ioctl.h> for the type '!'.
func request(dir, nr, size uintptr) uintptr {
	shift := uintptr(30)
	switch runtime.GOARCH {
	case "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le": // which have no direction at all, too
		shift, dir = 29, dir&iocRead|dir&iocWrite<<2
	}
	return dir<<shift | size<<16 | '!'<<8 | nr
}

// IsListener says whether a descriptor is that of a filter's notifications, which may
// have come from a process that is not to be believed.
func IsListener(fd int) bool {
	// Its own driver, such as FUSE, would answer the call of a file as it likes.
	if name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err != nil || name != "anon_inode:seccomp notify" {
		return false
	}
	var id uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifIDValid, uintptr(unsafe.Pointer(&id)))
	return errno == unix.ENOENT // there is no call with that number; others say ENOTTY
}

// receive takes the next call that waits. ENOENT: it does no longer.
func receive(fd int, n *notification) error {
	for {
		*n = notification{} // the kernel insists
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifRecv, uintptr(unsafe.Pointer(n)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_RECV", errno)
		}
	}
}

// listen answers the calls of the listener fd, which it closes, until nobody is left under
// its filter.
func listen(fd int, judge func(*notification) answer) error {
	runtime.LockOSThread()         // the one that the kernel wakes, and is woken by
	defer runtime.UnlockOSThread() // else it would end, and with it a child that is tied to it
	defer unix.Close(fd)
	const wakeHere = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifFlags, wakeHere)
	for {
		// Not every kernel ends a wait in ioctl(2) when the last process has gone.
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := retry(func() (int, error) { return unix.Poll(p, -1) }); err != nil {
			return os.NewSyscallError("poll", err)
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return nil
		}
		var n notification
		err := receive(fd, &n)
		if err == nil {
			a := judge(&n)
			a.id = n.id
			err = send(fd, a)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

func send(fd int, a answer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSend, uintptr(unsafe.Pointer(&a)))
	if errno == unix.ENOENT { // who called was killed, or interrupted and calls again
		return nil
	}
	return os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_SEND", errorOf(errno))
}

func errorOf(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
