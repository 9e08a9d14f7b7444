package namespaces

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// LoopbackUp brings up the loopback interface of the network namespace that
// the calling thread is in. Any socket will do for these requests, and one of
// AF_UNIX also where the kernel has no IPv4.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return os.NewSyscallError("ioctl SIOCGIFFLAGS lo", err)
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS lo", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}

// RestoreNofile gives this process back the soft RLIMIT_NOFILE it was started
// with, which package syscall raises at the start of every Go program. The
// original value is private to that package, but its Exec restores it before
// it asks the kernel; asking for the empty path then fails with ENOENT before
// anything else happens.
func RestoreNofile() {
	_ = syscall.Exec("", []string{""}, nil)
}
