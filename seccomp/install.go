package seccomp

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The flags of seccomp(2) under names that fit here.
const (
	flagTsync            = unix.SECCOMP_FILTER_FLAG_TSYNC
	flagLog              = unix.SECCOMP_FILTER_FLAG_LOG
	flagSpecAllow        = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	flagNewListener      = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	flagTsyncEsrch       = unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	flagWaitKillableRecv = 1 << 5 // Linux 5.19
	specsFlagTsync       = specs.LinuxSeccompFlag("SECCOMP_FILTER_FLAG_TSYNC")
	setModeFilter        = unix.SECCOMP_SET_MODE_FILTER
)

// flags is sorted by name.
var flags = []struct {
	name specs.LinuxSeccompFlag
	bit  uint32
}{
	{specs.LinuxSeccompFlagLog, flagLog},
	{specs.LinuxSeccompFlagSpecAllow, flagSpecAllow},
	{specsFlagTsync, flagTsync},
	{specs.LinuxSeccompFlagWaitKillableRecv, flagWaitKillableRecv},
}

func flagBit(name specs.LinuxSeccompFlag) uint32 {
	for _, f := range flags {
		if f.name == name {
			return f.bit
		}
	}
	return 0
}

// Flags are the names of all flags a profile may use, whether or not this
// kernel knows them.
func Flags() []string {
	names := make([]string, len(flags))
	for i := range flags {
		names[i] = string(flags[i].name)
	}
	return names
}

// SupportedFlags are those of Flags that the running kernel knows.
func SupportedFlags() []string {
	var names []string
	for _, f := range flags {
		if kernelKnows(f.bit) {
			names = append(names, string(f.name))
		}
	}
	return names
}

// kernelKnows asks with a program that cannot be read: an unknown flag is
// refused (EINVAL) before the kernel looks at the program (EFAULT).
func kernelKnows(flag uint32) bool {
	if flag == flagWaitKillableRecv {
		flag |= flagNewListener // EINVAL without it
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, uintptr(flag), 0)
	return errno == unix.EFAULT
}

// InstallFlags are the seccomp(2) flags that a profile's flags stand for.
// A profile without flags (null) gets SPEC_ALLOW, as runc and crun do: the
// mitigation it switches off slows every container, and the kernel itself has
// no longer applied it to filtered processes since Linux 5.16. An empty list
// means none.
func InstallFlags(p *specs.LinuxSeccomp) uint32 {
	var bits uint32
	if p.Flags == nil {
		bits = flagSpecAllow
	}
	for _, name := range p.Flags {
		bits |= flagBit(name)
	}
	if !notifies(p) {
		// The kernel refuses it; without notifications it has no meaning.
		return bits &^ flagWaitKillableRecv
	}
	bits |= flagNewListener
	if bits&flagTsync != 0 {
		// The kernel wants failures to synchronise come back as ESRCH: a positive
		// result would be a thread id and a descriptor at once.
		bits |= flagTsyncEsrch
	}
	return bits
}

func notifies(p *specs.LinuxSeccomp) bool {
	for i := range p.Syscalls {
		if p.Syscalls[i].Action == specs.ActNotify {
			return true
		}
	}
	return false
}

// Install makes f the calling thread's filter: one seccomp(2), no other system
// call. The caller has locked the thread, and has either set no_new_privs or
// still has CAP_SYS_ADMIN in its user namespace. fd is the listener's (it is
// close-on-exec), or -1.
//
// Only the calling thread is filtered unless the profile asks for TSYNC; the
// other threads of a Go program end at execve(2) anyway.
func Install(f *Filter) (fd int, err error) {
	if len(f.BPF) == 0 || len(f.BPF)%instructionSize != 0 {
		return -1, os.NewSyscallError("seccomp", unix.EINVAL)
	}
	n := len(f.BPF) / instructionSize
	if n > maxInstructions {
		return -1, os.NewSyscallError("seccomp", unix.E2BIG)
	}
	// The kernel copies the program, so its alignment does not matter.
	prog := unix.SockFprog{Len: uint16(n), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.BPF[0]))}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	switch {
	case errno != 0:
		return -1, installError(f.Flags, errno)
	case f.Listener():
		return int(r), nil
	case r != 0:
		return -1, fmt.Errorf("seccomp: thread %d has a filter of its own and cannot be synchronised", r)
	}
	return -1, nil
}

// installError says which flag an old kernel does not know.
func installError(bits uint32, errno unix.Errno) error {
	if errno == unix.EINVAL {
		for _, f := range flags {
			if bits&f.bit != 0 && !kernelKnows(f.bit) {
				return fmt.Errorf("seccomp: this kernel does not know %s: %w", f.name, errno)
			}
		}
	}
	return os.NewSyscallError("seccomp", errno)
}
