package libseccomp

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/huskrun/husk/seccomp"
)

// TestMain: the test binary is also the process whose calls are filtered.
func TestMain(m *testing.M) {
	if profile := os.Getenv("HUSK_SECCOMP_PROFILE"); profile != "" {
		filtered(profile)
	}
	os.Exit(m.Run())
}

// filtered installs the profile's filter and prints what some calls say then.
func filtered(profile string) {
	runtime.LockOSThread()
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	var p specs.LinuxSeccomp
	switch profile {
	case "write":
		p = specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			errnoRule(uint(unix.ENOSPC), args(arg(0, specs.OpEqualTo, 77)), "write"),
			errnoRule(0, nil, "rmdir"),
		}}
	case "kill":
		p = specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"rmdir"}, Action: specs.ActKillProcess}}}
	default:
		text, err := os.ReadFile(profile)
		must(err)
		decoded, err := seccomp.Decode(text)
		must(err)
		p = *decoded
	}
	must(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	f, err := Compile(&p)
	must(err)
	_, err = seccomp.Install(f)
	must(err)
	call := func(name string, nr uintptr, args ...uintptr) {
		var a [3]uintptr
		copy(a[:], args)
		_, _, errno := unix.RawSyscall(nr, a[0], a[1], a[2])
		fmt.Printf("%s:%d ", name, errno)
	}
	call("write", unix.SYS_WRITE, 77)
	call("write2", unix.SYS_WRITE, 78)
	call("rmdir", unix.SYS_RMDIR)
	call("keyctl", unix.SYS_KEYCTL, 9999)
	call("clone3", unix.SYS_CLONE3)
	call("future", 599)
	call("vsock", unix.SYS_SOCKET, 40, 99)
	call("unshare", unix.SYS_UNSHARE, 0)
	call("personality", unix.SYS_PERSONALITY, 0xffffffff)
	os.Exit(0)
}

// TestKernel runs filters for real.
func TestKernel(t *testing.T) {
	tests := []struct{ profile, want string }{
		// EBADF is 9, EFAULT 14, EINVAL 22, ENOSPC 28, ENOSYS 38, EOPNOTSUPP 95.
		{"write", "write:28 write2:9 rmdir:0 keyctl:95 clone3:22 future:38 vsock:22 unshare:0 personality:0 "},
		{"../testdata/docker.json", "write:9 write2:9 rmdir:14 keyctl:1 clone3:38 future:38 vsock:1 unshare:1 personality:0 "},
	}
	for _, tt := range tests {
		if got := underFilter(t, tt.profile); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.profile, got, tt.want)
		}
	}
	if got := underFilter(t, "kill"); !strings.Contains(got, "bad system call") {
		t.Errorf("kill: %s", got)
	}
}

func underFilter(t *testing.T, profile string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"HUSK_SECCOMP_PROFILE=" + profile}
	out, err := cmd.CombinedOutput()
	var ee *exec.ExitError
	if err != nil && (!asExit(err, &ee) || ee.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS) {
		t.Fatalf("%v: %s", err, out)
	}
	if err != nil {
		return err.Error()
	}
	return string(out)
}

func asExit(err error, ee **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*ee = e
	return ok
}
