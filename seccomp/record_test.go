package seccomp

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A recording's filter reports everything, save the two calls with the key.
func TestRecordProgram(t *testing.T) {
	const key = 0x1234567800000001
	f := &Filter{BPF: recordProgram(auditArch(), key)}
	for _, number := range []int{0, 1, 2, 59, 231, 600, x32Bit + 1} {
		for _, fourth := range []uint64{0, 1, key, key ^ 1, key ^ 1<<40, key >> 32} {
			hand := (number == unix.SYS_READ || number == unix.SYS_WRITE) && fourth == key
			if f.Allows(number, 0, 0, 0, fourth) != hand || f.Notifies(number, 0, 0, 0, fourth) == hand {
				t.Errorf("call %d with %#x: allowed %v", number, fourth, f.Allows(number, 0, 0, 0, fourth))
			}
		}
	}
	if f.judge(auditArch()^1, unix.SYS_WRITE, []uint64{0, 0, 0, key}) != retNotify {
		t.Error("a call of another architecture passed")
	}
}

// namer compiles any profile to a filter that allows read and knows a few names.
type namer struct{ filter *Filter }

func (namer) ID() string                        { return "namer" }
func (n namer) Compile([]byte) (*Filter, error) { return n.filter, nil }
func (namer) Calls(a specs.Arch) ([]Call, error) {
	if a == specs.ArchX86 {
		return []Call{{3, "read"}, {4, "write"}, {13, "time"}, {119, "sigreturn"}}, nil
	}
	return []Call{{0, "read"}, {1, "write"}, {39, "getpid"}, {60, "exit"}, {83, "mkdir"}}, nil
}

func record(t *testing.T, base string, calls ...numbered) (*specs.LinuxSeccomp, []string) {
	t.Helper()
	r, err := NewRecording([]byte(base), namer{&Filter{BPF: only(unix.SYS_READ, retAllow)}})
	if err != nil {
		t.Fatal(err)
	}
	if base != "" {
		r.filter.BPF = program( // allows call 0, read
			[4]uint32{opLoad, 0, 0, 0}, [4]uint32{opEqual, 0, 1, 0},
			[4]uint32{opReturn, 0, 0, retAllow}, [4]uint32{opReturn, 0, 0, retErrno | 1})
	}
	for _, c := range calls {
		r.note(&notification{nr: int32(c.number), arch: c.audit})
	}
	p, warnings, err := r.Profile()
	if err != nil {
		t.Fatal(err)
	}
	return p, warnings
}

func TestRecordedProfile(t *testing.T) {
	if auditArch() != unix.AUDIT_ARCH_X86_64 {
		t.Skip("the names are those of x86_64")
	}
	const native, other = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
	one := uint(1)
	p, warnings := record(t, "", numbered{native, 83}, numbered{native, 0}, numbered{native, 83}, numbered{other, 4}, numbered{native, 999})
	want := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &one, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"exit", "mkdir", "read", "sigreturn", "time", "write"}, Action: specs.ActAllow}},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("%+v", p)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "system call 999 of SCMP_ARCH_X86_64 has no name") {
		t.Errorf("%q", warnings)
	}

	// What the base allows is not added, what it refuses by name stays refused.
	base := `{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["read","exit"],"action":"SCMP_ACT_ALLOW"},{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`
	p, warnings = record(t, base, numbered{native, 0}, numbered{native, 39}, numbered{native, 83})
	if len(p.Syscalls) != 3 || !slices.Equal(p.Syscalls[2].Names, []string{"getpid"}) || p.DefaultAction != specs.ActErrno || len(p.Flags) != 1 {
		t.Errorf("%+v", p)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "called mkdir") {
		t.Errorf("%q", warnings)
	}
	if _, err := NewRecording(nil, nil); err != ErrNoCompiler {
		t.Error(err)
	}
}

func TestReadCalls(t *testing.T) {
	var b strings.Builder
	want := []Call{{0, "read"}, {1 << 31, "x"}}
	if err := WriteCalls(&b, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readCalls(b.String()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"x y\n", "1\n", "1 \n", "4294967296 a\n", "\n"} {
		if _, err := readCalls(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := names(&counter{}, specs.ArchX86); err == nil {
		t.Error(fmt.Errorf("a compiler without names has some"))
	}
}
