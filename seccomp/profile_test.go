package seccomp

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func num(v uint) *uint { return &v }

func rules(r ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: r}
}

func TestCheck(t *testing.T) {
	read := []string{"read"}
	tests := []struct {
		name string
		p    *specs.LinuxSeccomp
		want []string // each mistake: pointer without /linux/seccomp, and part of the text
	}{
		{"smallest", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, nil},
		{"empty", &specs.LinuxSeccomp{}, []string{"/defaultAction: is missing"}},
		{"unknown default", &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_BAN"}, []string{`/defaultAction: unknown action "SCMP_ACT_BAN"`}},
		{"notify by default", &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, []string{"/defaultAction: SCMP_ACT_NOTIFY cannot be the default"}},
		{"default errno", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: num(0)}, nil},
		{"default errno of kill", &specs.LinuxSeccomp{DefaultAction: specs.ActKill, DefaultErrnoRet: num(1)}, []string{"/defaultErrnoRet: SCMP_ACT_KILL returns no errno"}},
		{"largest errno", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: num(4094)}, nil},
		{"errno too large", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: num(4095)}, []string{"/defaultErrnoRet: 4095 is above 4094"}},
		{"largest message", &specs.LinuxSeccomp{DefaultAction: specs.ActTrace, DefaultErrnoRet: num(65535)}, nil},
		{"message too large", &specs.LinuxSeccomp{DefaultAction: specs.ActTrace, DefaultErrnoRet: num(65536)}, []string{"/defaultErrnoRet: 65536 is above 65535"}},
		{
			"architectures and flags", &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow,
				Architectures: []specs.Arch{specs.ArchX86, "SCMP_ARCH_Z80", ""},
				Flags:         []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "SECCOMP_FILTER_FLAG_NEW_LISTENER", "x"},
			},
			[]string{`/architectures/1: unknown architecture "SCMP_ARCH_Z80"`, `/architectures/2: unknown`, `/flags/1: unknown flag`, `/flags/2: unknown flag "x"`},
		},
		{"no names", rules(specs.LinuxSyscall{Action: specs.ActAllow}), []string{"/syscalls/0/names: needs at least one"}},
		{
			"bad names", rules(specs.LinuxSyscall{Names: []string{"read", "", "a b", "a\nb", "ü"}, Action: specs.ActErrno}),
			[]string{"/syscalls/0/names/1: is empty", "/syscalls/0/names/2:", `/syscalls/0/names/3: "a\nb" is not`, "/syscalls/0/names/4:"},
		},
		{
			"actions", rules(specs.LinuxSyscall{Names: read}, specs.LinuxSyscall{Names: read, Action: "x", ErrnoRet: num(1)}),
			[]string{"/syscalls/0/action: is missing", `/syscalls/1/action: unknown action "x"`},
		},
		{
			"errnoRet", rules(
				specs.LinuxSyscall{Names: read, Action: specs.ActAllow, ErrnoRet: num(0)},
				specs.LinuxSyscall{Names: read, Action: specs.ActLog, ErrnoRet: num(1)},
				specs.LinuxSyscall{Names: read, Action: specs.ActTrap, ErrnoRet: num(1)},
				specs.LinuxSyscall{Names: read, Action: specs.ActErrno, ErrnoRet: num(1)},
				specs.LinuxSyscall{Names: read, Action: specs.ActTrace, ErrnoRet: num(1)},
			),
			[]string{"/syscalls/0/errnoRet: SCMP_ACT_ALLOW returns no errno", "/syscalls/1/errnoRet:", "/syscalls/2/errnoRet:"},
		},
		{
			"args", rules(specs.LinuxSyscall{Names: read, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{
				{Index: 5, Op: specs.OpEqualTo}, {Index: 6, Op: specs.OpEqualTo}, {Op: "SCMP_CMP_XOR"}, {},
			}}),
			[]string{"/syscalls/0/args/1/index: is 6", `/syscalls/0/args/2/op: unknown comparison "SCMP_CMP_XOR"`, `/syscalls/0/args/3/op: unknown`},
		},
		{
			"notify", &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, ListenerPath: "/run/agent", ListenerMetadata: "x",
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}},
			}, nil,
		},
		{"notify on write", &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: "/run/agent",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write"}, Action: specs.ActNotify}},
		}, []string{"/syscalls/0/names/1: write cannot be SCMP_ACT_NOTIFY"}},
		{"notify nobody", rules(specs.LinuxSyscall{Names: read, Action: specs.ActNotify}), []string{"/listenerPath: SCMP_ACT_NOTIFY needs somebody"}},
		{"metadata alone", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "x"}, []string{"/listenerMetadata: has no meaning without"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := problems(Check(tt.p))
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], Pointer+tt.want[i]) {
					t.Errorf("got %q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}

func problems(err error) (out []string) {
	if err == nil {
		return nil
	}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var fe *FieldError
		if !errors.As(e, &fe) {
			return []string{"not a FieldError: " + e.Error()}
		}
		out = append(out, fe.Error())
	}
	return out
}

// TestEveryValue: everything that features lists is accepted.
func TestEveryValue(t *testing.T) {
	if len(Arches()) != 23 || len(Actions()) != 9 || len(Operators()) != 7 || len(Flags()) != 4 {
		t.Errorf("%d architectures, %d actions, %d operators, %d flags", len(Arches()), len(Actions()), len(Operators()), len(Flags()))
	}
	for _, list := range [][]string{Arches(), Actions(), Operators(), Flags()} {
		if !slices.IsSorted(list) {
			t.Errorf("%q is not sorted", list)
		}
	}
	p := rules()
	p.ListenerPath = "/run/agent"
	for _, a := range Arches() {
		p.Architectures = append(p.Architectures, specs.Arch(a))
	}
	for _, f := range Flags() {
		p.Flags = append(p.Flags, specs.LinuxSeccompFlag(f))
	}
	for _, a := range Actions() {
		r := specs.LinuxSyscall{Names: []string{"read"}, Action: specs.LinuxSeccompAction(a)}
		for i, op := range Operators()[:6] {
			r.Args = append(r.Args, specs.LinuxSeccompArg{Index: uint(i), Op: specs.LinuxSeccompOperator(op)})
		}
		p.Syscalls = append(p.Syscalls, r)
	}
	if err := Check(p); err != nil {
		t.Error(err)
	}
}

func TestFilterEncoding(t *testing.T) {
	for _, f := range []*Filter{
		{BPF: program(errnoOf(1))},
		testFilter("p"),
		{BPF: make([]byte, maxInstructions*instructionSize), Flags: ^uint32(0), Warnings: []string{"w"}, Notes: []string{"n", "m"}},
	} {
		b, err := f.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got := new(Filter)
		if err := got.UnmarshalBinary(b); err != nil || got.Flags != f.Flags || !slices.Equal(got.Warnings, f.Warnings) || !slices.Equal(got.Notes, f.Notes) ||
			string(got.BPF) != string(f.BPF) || got.ListenerPath != f.ListenerPath || got.ListenerMetadata != f.ListenerMetadata {
			t.Errorf("got %v, %v", got, err)
		}
		whole := len(b)
		for _, w := range slices.Concat(f.Warnings, f.Notes) { // without the last of them it is whole too
			whole -= 5 + len(w)
		}
		for n := range min(whole, 200) {
			if err := new(Filter).UnmarshalBinary(b[:n]); err == nil {
				t.Errorf("%d of %d bytes are accepted", n, len(b))
			}
		}
	}
	for _, bpf := range [][]byte{nil, make([]byte, 7), make([]byte, (maxInstructions+1)*instructionSize)} {
		b, _ := (&Filter{BPF: bpf}).MarshalBinary()
		if err := new(Filter).UnmarshalBinary(b); err == nil {
			t.Errorf("a program of %d bytes is accepted", len(bpf))
		}
	}
	if (&Filter{}).Listener() || !(&Filter{Flags: flagNewListener}).Listener() {
		t.Error("Listener")
	}
}

func FuzzFilter(f *testing.F) {
	b, _ := testFilter("p").MarshalBinary()
	f.Add(b)
	f.Add([]byte(filterMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := new(Filter)
		if got.UnmarshalBinary(b) != nil {
			return
		}
		if again, _ := got.MarshalBinary(); string(again) != string(b) {
			t.Errorf("%q decodes and encodes to %q", b, again)
		}
	})
}
