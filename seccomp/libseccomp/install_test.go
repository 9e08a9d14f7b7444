package libseccomp

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	scmp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/huskrun/husk/seccomp"
)

// TestMain: the test binary is also the process whose calls are filtered.
func TestMain(m *testing.M) {
	if profile := os.Getenv("HUSK_SECCOMP_PROFILE"); profile != "" {
		if seed, ok := strings.CutPrefix(profile, "seed "); ok {
			generated(seed)
		}
		if action, ok := strings.CutPrefix(profile, "action "); ok {
			acted(specs.LinuxSeccompAction(action))
		}
		if profile == "strict" {
			strict()
		}
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
	if err != nil && strings.HasPrefix(string(out), "SIGSYS: ") { // caught by the Go runtime
		return "SIGSYS"
	}
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

// install makes p the filter of the calling thread, which stays that of its goroutine.
func install(p *specs.LinuxSeccomp) *seccomp.Filter {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	f := &seccomp.Filter{}
	if err == nil {
		f, err = Compile(p)
	}
	if err == nil {
		_, err = seccomp.Install(f)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	return f
}

// lifeline are the calls of a Go program that only compares numbers and prints one.
var lifeline = []string{
	"write", "exit_group", "futex", "rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "sigaltstack", "mmap", "munmap", "madvise",
	"mprotect", "sched_yield", "nanosleep", "clock_nanosleep", "clock_gettime", "gettid", "getpid", "tgkill", "clone", "clone3",
	"epoll_pwait", "epoll_wait", "epoll_ctl", "read", "restart_syscall", "exit",
}

// generated installs a generated profile, all of whose answers are errors so that no call
// happens, makes every call, and compares with a plain reading.
func generated(seed string) {
	n, _ := strconv.ParseUint(seed, 10, 64)
	rnd := rand.New(rand.NewPCG(n, 7))
	p := generate(rnd)
	p.DefaultAction, p.DefaultErrnoRet = specs.ActErrno, num(4000)
	var rules []specs.LinuxSyscall
	for i, r := range p.Syscalls {
		r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(name string) bool { return slices.Contains(lifeline, name) })
		if r.Action, r.ErrnoRet = specs.ActErrno, num(uint(3000+i%900)); len(r.Names) > 0 {
			rules = append(rules, r)
		}
	}
	p.Syscalls, p.ListenerPath = append(rules, allow(lifeline...)), ""
	pl := newPlain(p)
	native, err := scmp.GetNativeArch()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	values := interesting(p, rnd, false)
	var calls []data
	var want []uint32
	for nr := range uint32(560) {
		name, _ := scmp.ScmpSyscall(nr).GetNameByArch(native)
		if slices.Contains(lifeline, name) || nr == 335 || nr == 336 {
			continue // uretprobe and uprobe of x86_64 pass every filter
		}
		for range 8 {
			d := data{nr: nr, arch: pl.info[native].Audit}
			for i := range d.args {
				d.args[i] = values[rnd.IntN(len(values))]
			}
			calls, want = append(calls, d), append(want, pl.answer(native, &d)&0xffff)
		}
	}
	got := make([]uint32, len(calls))
	install(p)
	for i := range calls {
		a := &calls[i].args
		_, _, errno := unix.RawSyscall6(uintptr(calls[i].nr), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
		got[i] = uint32(errno)
	}
	wrong := 0
	for i := range calls {
		if got[i] != want[i] {
			wrong++
			if wrong < 4 {
				fmt.Printf("call %d %x: the kernel says %d, the profile %d\n", calls[i].nr, calls[i].args, got[i], want[i])
			}
		}
	}
	fmt.Printf("%d calls, %d rules, %d wrong\n", len(calls), len(rules), wrong)
	os.Exit(0)
}

// TestGeneratedProfilesInKernel is the differential test for real.
func TestGeneratedProfilesInKernel(t *testing.T) {
	for seed := range 12 {
		if got := underFilter(t, fmt.Sprint("seed ", seed)); !strings.Contains(got, " calls, ") || !strings.HasSuffix(got, " 0 wrong\n") {
			t.Errorf("seed %d: %s", seed, got)
		}
	}
}

// acted makes a call with an action.
func acted(a specs.LinuxSeccompAction) {
	go func() { // the rest of a process whose thread was killed
		time.Sleep(300 * time.Millisecond)
		fmt.Print("the thread is gone")
		os.Exit(0)
	}()
	install(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getcwd"}, Action: a}}})
	var buf [64]byte
	_, _, errno := unix.RawSyscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&buf)), uintptr(len(buf)), 0)
	fmt.Printf("errno %d", errno)
	os.Exit(0)
}

// TestEveryActionInKernel: what happens, not what is returned. NOTIFY is tested where
// somebody listens.
func TestEveryActionInKernel(t *testing.T) {
	for action, want := range map[specs.LinuxSeccompAction]string{
		specs.ActAllow: "errno 0", specs.ActLog: "errno 0", specs.ActErrno: "errno 1", specs.ActTrace: "errno 38", // nobody traces
		specs.ActTrap: "SIGSYS", specs.ActKillProcess: "bad system call",
		specs.ActKill: "the thread is gone", specs.ActKillThread: "the thread is gone",
	} {
		if got := underFilter(t, "action "+string(action)); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", action, got, want)
		}
	}
}

// strict is the classical mode: read, write, exit and sigreturn, and nothing else.
func strict() {
	install(&specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess, Syscalls: []specs.LinuxSyscall{
		allow("read", "write", "exit", "exit_group", "rt_sigreturn", "sigreturn"),
	}})
	said := []byte("strict ")
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&said[0])), uintptr(len(said)))
	_, _, _ = unix.RawSyscall(unix.SYS_READ, 999, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&said[0])), uintptr(len(said)))
	_, _, _ = unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
}

func TestStrictInKernel(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"HUSK_SECCOMP_PROFILE=strict"}
	out, err := cmd.Output()
	if string(out) != "strict strict " || err == nil || !strings.Contains(err.Error(), "bad system call") {
		t.Errorf("%q, %v", out, err)
	}
}
