package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// program assembles instructions of code, jt, jf, k.
func program(ins ...[4]uint32) []byte {
	var b []byte
	for _, in := range ins {
		b = binary.NativeEndian.AppendUint16(b, uint16(in[0]))
		b = append(b, byte(in[1]), byte(in[2]))
		b = binary.NativeEndian.AppendUint32(b, in[3])
	}
	return b
}

// errnoOf returns errno.
func errnoOf(errno uint32) [4]uint32 {
	return [4]uint32{unix.BPF_RET, 0, 0, unix.SECCOMP_RET_ERRNO | errno}
}

// only gives ret to one call and allows the others.
func only(nr, ret uint32) []byte {
	return program(
		[4]uint32{unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, 0, 0, 0},
		[4]uint32{unix.BPF_JMP | unix.BPF_JEQ, 0, 1, nr},
		[4]uint32{unix.BPF_RET, 0, 0, ret},
		[4]uint32{unix.BPF_RET, 0, 0, unix.SECCOMP_RET_ALLOW},
	)
}

// child installs a filter and tries it. It says nothing if all is well.
func child(what string) {
	runtime.LockOSThread()
	bad := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		os.Exit(1)
	}
	if what != "privileged" {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			bad("no_new_privs: %v", err)
		}
	}
	f := &Filter{BPF: only(unix.SYS_GETCWD, unix.SECCOMP_RET_ERRNO|uint32(unix.EXDEV))}
	switch what {
	case "tsync":
		f.Flags = flagTsync
	case "flags":
		f.Flags = flagLog | flagSpecAllow
	case "listener":
		f.BPF, f.Flags = only(unix.SYS_GETCWD, unix.SECCOMP_RET_USER_NOTIF), flagNewListener|flagWaitKillableRecv
	case "synclistener":
		f.BPF, f.Flags = only(unix.SYS_GETCWD, unix.SECCOMP_RET_USER_NOTIF), flagNewListener|flagTsync|flagTsyncEsrch
	case "unsynced":
		unsynced(bad)
		return
	}
	fd, err := Install(f)
	if err != nil {
		bad("install: %v", err)
	}
	if f.Listener() {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags != unix.FD_CLOEXEC {
			bad("listener %d: %v, flags %#x", fd, err, flags)
		}
		if !IsListener(fd) || IsListener(0) || IsListener(1) || IsListener(999) {
			bad("IsListener: %v, %v, %v, %v", IsListener(fd), IsListener(0), IsListener(1), IsListener(999))
		}
		os.Exit(0)
	}
	var buf [64]byte
	getcwd := func() unix.Errno {
		_, _, errno := unix.RawSyscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&buf)), uintptr(len(buf)), 0)
		return errno
	}
	if errno := getcwd(); fd != -1 || errno != unix.EXDEV {
		bad("fd %d, getcwd: %v", fd, errno)
	}
	other := make(chan unix.Errno)
	go func() { runtime.LockOSThread(); other <- getcwd() }()
	if errno := <-other; (errno == unix.EXDEV) != (what == "tsync") {
		bad("getcwd in another thread: %v", errno)
	}
	os.Exit(0)
}

// unsynced: another thread has a filter of its own.
func unsynced(bad func(string, ...any)) {
	ready, end := make(chan error), make(chan int)
	go func() {
		runtime.LockOSThread()
		_, err := Install(&Filter{BPF: only(unix.SYS_GETCWD, unix.SECCOMP_RET_ALLOW)})
		ready <- err
		<-end
	}()
	if err := <-ready; err != nil {
		bad("%v", err)
	}
	_, err := Install(&Filter{BPF: only(unix.SYS_GETCWD, unix.SECCOMP_RET_ALLOW), Flags: flagTsync})
	if err == nil || !strings.Contains(err.Error(), "cannot be synchronised") {
		bad("got %v", err)
	}
	os.Exit(0)
}

func TestInstall(t *testing.T) {
	for _, what := range []string{"no_new_privs", "privileged", "flags", "tsync", "unsynced", "listener", "synclistener"} {
		t.Run(what, func(t *testing.T) {
			if (what == "privileged" || what == "unsynced") && os.Geteuid() != 0 {
				t.Skip("needs CAP_SYS_ADMIN")
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{"HUSK_SECCOMP_CHILD=" + what}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestInstallRefuses(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, f := range []*Filter{{}, {BPF: make([]byte, 7)}, {BPF: make([]byte, 8*4097)}, {BPF: make([]byte, 8)}} {
		if fd, err := Install(f); err == nil || fd != -1 {
			t.Errorf("%d bytes: %v", len(f.BPF), err)
		}
	}
}

func TestFlags(t *testing.T) {
	if !slices.IsSorted(Flags()) {
		t.Error("not sorted")
	}
	known := SupportedFlags()
	for _, want := range Flags()[:3] { // the fourth came with Linux 5.19
		if !slices.Contains(known, want) {
			t.Errorf("%s is not supported", want)
		}
	}
	notify := []specs.LinuxSyscall{{Action: specs.ActNotify}}
	tests := []struct {
		p    specs.LinuxSeccomp
		want uint32
	}{
		{specs.LinuxSeccomp{}, flagSpecAllow},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{}}, 0},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"}}, flagLog | flagTsync},
		{specs.LinuxSeccomp{Syscalls: notify}, flagSpecAllow | flagNewListener},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, Syscalls: notify}, flagTsync | flagTsyncEsrch | flagNewListener},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, Syscalls: notify}, flagWaitKillableRecv | flagNewListener},
		{specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}}, 0},
	}
	for _, tt := range tests {
		if got := InstallFlags(&tt.p); got != tt.want {
			t.Errorf("%v: got %#x, want %#x", tt.p.Flags, got, tt.want)
		}
	}
}

func TestUnknownFlagIsNamed(t *testing.T) {
	err := installError(1<<31, syscall.EINVAL)
	if !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	saved := flags
	defer func() { flags = saved }()
	flags = append(slices.Clone(flags), struct {
		name specs.LinuxSeccompFlag
		bit  uint32
	}{"SECCOMP_FILTER_FLAG_OF_THE_FUTURE", 1 << 30})
	if err := installError(1<<30, unix.EINVAL); !strings.Contains(err.Error(), "does not know SECCOMP_FILTER_FLAG_OF_THE_FUTURE") || !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}
