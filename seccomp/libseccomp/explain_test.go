package libseccomp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/huskrun/husk/seccomp"
)

func explain(t *testing.T, p *specs.LinuxSeccomp) *seccomp.Explanation {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	e, err := seccomp.Explain(text, Compiler())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// answerTo is the answer that the first architecture's calls of a name get.
func answerTo(e *seccomp.Explanation, name string) string {
	for _, g := range e.Arches[0].Groups {
		if slices.Contains(g.Calls, name) {
			return g.Answer
		}
	}
	return "not there"
}

func TestExplain(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: num(13), ListenerPath: "/agent", Syscalls: []specs.LinuxSyscall{
		allow("read", "write", "mkdirat", "nonsense", "breakpoint"),
		{Names: []string{"chroot"}, Action: specs.ActLog},
		{Names: []string{"ptrace"}, Action: specs.ActTrap},
		{Names: []string{"acct"}, Action: specs.ActTrace, ErrnoRet: num(7)},
		{Names: []string{"bpf"}, Action: specs.ActKill},
		{Names: []string{"reboot"}, Action: specs.ActKillProcess},
		{Names: []string{"mknodat"}, Action: specs.ActNotify},
		errnoRule(0, nil, "sync"),
		errnoRule(4094, nil, "umount2"),
		errnoRule(13, nil, "mount"),
		{Names: []string{"personality"}, Action: specs.ActAllow, Args: args(arg(0, specs.OpEqualTo, 8))},
		{Names: []string{"clone"}, Action: specs.ActAllow, Args: args(arg(0, specs.OpMaskedEqual, 0xf0, 0xf), arg(1, specs.OpGreaterEqual, 0))},
		{Names: []string{"close"}, Action: specs.ActAllow, Args: args(arg(0, specs.OpLessThan, 3), arg(0, specs.OpGreaterThan, 9))},
	}}
	e := explain(t, p)
	for name, want := range map[string]string{
		"read": "allowed", "chroot": "allowed and logged", "ptrace": "SIGSYS", "acct": "traced (message 7)", "bpf": "kills the thread",
		"reboot": "kills the process", "mknodat": "asked of the listener", "sync": "does nothing (errno 0)", "umount2": "errno 4094",
		"mount": "EACCES", "getppid": "EACCES", "personality": "allowed or EACCES", "clone": "allowed or EACCES", "close": "allowed or EACCES",
		"listns": "ENOSYS",
	} {
		if got := answerTo(e, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	groups := e.Arches[0].Groups
	want := []string{
		"clone: SCMP_ACT_ALLOW if arg0 & 0xf0 == 0x0 and arg1 >= 0x0",
		"close: SCMP_ACT_ALLOW if arg0 < 0x3 or arg0 > 0x9",
		"personality: SCMP_ACT_ALLOW if arg0 == 0x8",
	}
	got := slices.Clone(groups[len(groups)-1].Rules)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("rules %q", got)
	}
	if e.Others != "kills the thread" {
		t.Errorf("others: %s", e.Others)
	}
	idle := strings.Join(e.Idle, "\n")
	for _, want := range []string{
		`/syscalls/0/names/3: unknown system call "nonsense"`, "/syscalls/9: does what the default does",
		"/syscalls/11/args/0: the bits 0xf of valueTwo", "/syscalls/11/args/1: matches everything",
	} {
		if !strings.Contains(idle, seccomp.Pointer+want) {
			t.Errorf("no %q in\n%s", want, idle)
		}
	}
}

// Every call of Docker's profile gets the answers that a plain reading gives for some
// arguments, and no other.
func TestExplainAgreesWithFilter(t *testing.T) {
	p := docker(t)
	f := mustCompile(t, p)
	e := explain(t, p)
	for _, arch := range e.Arches {
		tok, err := token(arch.Arch)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := seccomp.LookupArch(arch.Arch)
		for _, g := range arch.Groups {
			for _, name := range g.Calls {
				nr, ok := callNumber(name, tok)
				if !ok {
					continue
				}
				for _, v := range []uint64{0, 1, 8, 40, 1 << 17, 1<<32 - 1, 1<<64 - 1} {
					ret := mustRun(t, f, &data{nr: nr, arch: a.Audit, args: [6]uint64{v, v, v, v, v, v}})
					if allowed := ret == 0x7fff0000; allowed && !strings.Contains(g.Answer, "allowed") || !allowed && g.Answer == "allowed" {
						t.Errorf("%s of %s with %#x: %#x, but said: %s", name, arch.Arch, v, ret, g.Answer)
					}
				}
			}
		}
	}
	if len(e.Arches) != 3 {
		t.Errorf("%d architectures", len(e.Arches))
	}
}

func TestExplainIdle(t *testing.T) {
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86},
		ListenerPath: "/agent", Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv},
		Syscalls: []specs.LinuxSyscall{
			allow("socketcall", "swapcontext"),
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: args(arg(0, specs.OpLessThan, 0), arg(1, specs.OpMaskedEqual, 0), arg(2, specs.OpEqualTo, 1, 2))},
		},
	}
	idle := strings.Join(explain(t, p).Idle, "\n")
	for _, want := range []string{
		"/syscalls/0/names/1: no architecture of the profile has swapcontext", "/syscalls/1/args: socketcall(2)", "/syscalls/1/args/0: never matches",
		"/syscalls/1/args/1: a mask of 0", "/syscalls/1/args/2: SCMP_CMP_EQ has no second value",
		"/listenerPath: nothing is reported", "/flags/0: needs a rule",
	} {
		if !strings.Contains(idle, seccomp.Pointer+want) {
			t.Errorf("no %q in\n%s", want, idle)
		}
	}
}

// The names are those that profiles use, back and forth.
func TestCalls(t *testing.T) {
	for _, name := range seccomp.Arches() {
		calls, err := Calls(specs.Arch(name))
		if err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		if len(calls) < 250 || !slices.IsSortedFunc(calls, func(a, b seccomp.Call) int { return int(int64(a.Number) - int64(b.Number)) }) {
			t.Errorf("%s: %d calls", name, len(calls))
		}
		tok, _ := token(specs.Arch(name))
		for _, c := range calls {
			if nr, ok := callNumber(c.Name, tok); ok && nr != c.Number && c.Number < 0x0f0000 {
				t.Errorf("%s: %s is %d and %d", name, c.Name, c.Number, nr)
			}
		}
	}
	if _, err := Calls("SCMP_ARCH_Z80"); err == nil {
		t.Error("calls of a Z80")
	}
}
