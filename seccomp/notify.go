package seccomp

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of a listener, seccomp_unotify(2).
var notifIDValid = request(iocWrite, 2, 8)

const iocWrite = 1

// request is _IOC of <asm/ioctl.h> for the type '!'.
func request(dir, nr, size uintptr) uintptr {
	shift := uintptr(30)
	switch runtime.GOARCH {
	case "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le": // which have three directions
		shift, dir = 29, dir<<2
	}
	return dir<<shift | size<<16 | '!'<<8 | nr
}

// IsListener says whether a descriptor is that of a filter's notifications, which may
// have come from a process that is not to be believed.
func IsListener(fd int) bool {
	var id uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifIDValid, uintptr(unsafe.Pointer(&id)))
	return errno == unix.ENOENT // there is no call with that number; others say ENOTTY
}
