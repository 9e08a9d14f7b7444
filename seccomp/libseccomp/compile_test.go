package libseccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	scmp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/huskrun/husk/seccomp"
)

func num(v uint) *uint { return &v }

func errnoRule(errno uint, args []specs.LinuxSeccompArg, names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: specs.ActErrno, ErrnoRet: num(errno), Args: args}
}

func allow(names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: specs.ActAllow}
}

func arg(index uint, op specs.LinuxSeccompOperator, value uint64, two ...uint64) specs.LinuxSeccompArg {
	a := specs.LinuxSeccompArg{Index: index, Op: op, Value: value}
	if len(two) > 0 {
		a.ValueTwo = two[0]
	}
	return a
}

func args(a ...specs.LinuxSeccompArg) []specs.LinuxSeccompArg { return a }

func mustCompile(t testing.TB, p *specs.LinuxSeccomp) *seccomp.Filter {
	t.Helper()
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustRun(t testing.TB, f *seccomp.Filter, d *data) uint32 {
	t.Helper()
	ret, err := run(f.BPF, d)
	if err != nil {
		t.Fatalf("%+v: %v", d, err)
	}
	return ret
}

func docker(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	b, err := os.ReadFile("../testdata/docker.json")
	if err != nil {
		t.Fatal(err)
	}
	p := new(specs.LinuxSeccomp)
	if err := json.Unmarshal(b, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// plain reads a profile the way a person does, one call at a time. It knows
// nothing of libseccomp except names and numbers.
type plain struct {
	p      *specs.LinuxSeccomp
	native scmp.ScmpArch
	newest map[scmp.ScmpArch]uint32
	rules  map[key][]specs.LinuxSyscall
	info   map[scmp.ScmpArch]seccomp.Arch
}

type key struct {
	arch scmp.ScmpArch
	nr   uint32
}

func newPlain(p *specs.LinuxSeccomp) *plain {
	native, _ := scmp.GetNativeArch()
	pl := &plain{p: p, native: native, newest: map[scmp.ScmpArch]uint32{}, rules: map[key][]specs.LinuxSyscall{}, info: map[scmp.ScmpArch]seccomp.Arch{}}
	for _, arch := range pl.arches() {
		pl.info[arch], _ = seccomp.LookupArch(archName(arch))
	}
	for _, r := range p.Syscalls {
		for _, name := range r.Names {
			for _, arch := range pl.arches() {
				a := pl.info[arch]
				n, ok := callNumber(name, arch)
				if ok {
					pl.rules[key{arch, n}] = append(pl.rules[key{arch, n}], r)
				}
				if v, _ := number(name, arch); v < 0 && ok && v > -300 {
					n = max(n, lastOld) // see archStub.name
				}
				if ok && (a.Ceiling == 0 || n < a.Ceiling) {
					pl.newest[arch] = max(pl.newest[arch], n)
				}
			}
		}
	}
	return pl
}

func (pl *plain) arches() []scmp.ScmpArch {
	out := []scmp.ScmpArch{pl.native}
	for _, name := range pl.p.Architectures {
		if a, _ := token(name); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// callNumber finds a call's number, also of those that can be reached through
// socketcall or ipc too.
func callNumber(name string, arch scmp.ScmpArch) (uint32, bool) {
	if _, err := scmp.GetSyscallFromName(name); err != nil {
		n, ok := newerCall(name)
		a, _ := seccomp.LookupArch(archName(arch))
		return n + a.Base, ok
	}
	n, ok := number(name, arch)
	if ok || n < -300 {
		return uint32(n), ok
	}
	direct, ok := directNumbers(arch)[name]
	return direct, ok
}

var directCache = map[scmp.ScmpArch]map[string]uint32{}

func directNumbers(arch scmp.ScmpArch) map[string]uint32 {
	if directCache[arch] == nil {
		directCache[arch] = map[string]uint32{}
		a, _ := seccomp.LookupArch(archName(arch))
		for n := a.Base; n <= a.Base+lastOld; n++ {
			if name, err := scmp.ScmpSyscall(n).GetNameByArch(arch); err == nil {
				directCache[arch][name] = n
			}
		}
	}
	return directCache[arch]
}

func plainAction(a specs.LinuxSeccompAction, errnoRet *uint) uint32 {
	code := uint32(unix.EPERM)
	if errnoRet != nil {
		code = uint32(*errnoRet)
	}
	return map[specs.LinuxSeccompAction]uint32{
		specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 0x80000000, specs.ActTrap: 0x00030000,
		specs.ActErrno: 0x00050000 | code, specs.ActNotify: 0x7fc00000, specs.ActTrace: 0x7ff00000 | code,
		specs.ActLog: 0x7ffc0000, specs.ActAllow: 0x7fff0000,
	}[a]
}

func matches(a specs.LinuxSeccompArg, v uint64) bool {
	switch a.Op {
	case specs.OpEqualTo:
		return v == a.Value
	case specs.OpNotEqual:
		return v != a.Value
	case specs.OpLessThan:
		return v < a.Value
	case specs.OpLessEqual:
		return v <= a.Value
	case specs.OpGreaterThan:
		return v > a.Value
	case specs.OpGreaterEqual:
		return v >= a.Value
	case specs.OpMaskedEqual:
		return v&a.Value == a.ValueTwo&a.Value
	}
	panic(a.Op)
}

func ruleMatches(r specs.LinuxSyscall, d *data) bool {
	seen, repeats, any, all := map[uint]bool{}, false, false, true
	for _, a := range r.Args {
		m := matches(a, d.args[a.Index])
		any, all = any || m, all && m
		repeats = repeats || seen[a.Index]
		seen[a.Index] = true
	}
	if repeats {
		return any
	}
	return all
}

// answer is what the profile says to a call of arch.
func (pl *plain) answer(arch scmp.ScmpArch, d *data) uint32 {
	def := plainAction(pl.p.DefaultAction, pl.p.DefaultErrnoRet)
	var conditional *uint32
	for _, r := range pl.rules[key{arch, d.nr}] {
		act := plainAction(r.Action, r.ErrnoRet)
		if act == def {
			continue
		}
		if len(r.Args) == 0 {
			return act
		}
		if conditional == nil && ruleMatches(r, d) {
			conditional = &act
		}
	}
	a := pl.info[arch]
	newest, named := pl.newest[arch]
	switch {
	case conditional != nil:
		return *conditional
	case !named || d.nr <= newest || a.Ceiling != 0 && d.nr >= a.Ceiling:
		return def
	case pl.p.DefaultAction == specs.ActAllow || pl.p.DefaultAction == specs.ActLog:
		return def
	}
	return retENOSYS
}

// compare asks filter and profile the same questions: every number of every
// architecture up to some after the newest, with arguments around each value the
// profile compares with.
func compare(t *testing.T, p *specs.LinuxSeccomp, rnd *rand.Rand) {
	t.Helper()
	f := mustCompile(t, p)
	pl := newPlain(p)
	for _, arch := range pl.arches() {
		a := pl.info[arch]
		values := interesting(p, rnd, a.Name != specs.ArchX86_64)
		for n := range uint32(560) {
			if mixed(arch, n+a.Base) {
				continue
			}
			for range 4 {
				d := &data{nr: n + a.Base, arch: a.Audit}
				for i := range d.args {
					d.args[i] = values[rnd.IntN(len(values))]
				}
				if got, want := mustRun(t, f, d), pl.answer(arch, d); got != want {
					name, _ := scmp.ScmpSyscall(d.nr).GetNameByArch(arch)
					t.Fatalf("%s %d (%s) %x: filter says %#x, the profile %#x\n%s", a.Name, d.nr, name, d.args, got, want, about(p, name))
				}
			}
		}
	}
	for _, d := range []data{{nr: 1, arch: unix.AUDIT_ARCH_S390X}, {nr: 1, arch: 0}} {
		if got := mustRun(t, f, &d); got != unix.SECCOMP_RET_KILL_THREAD {
			t.Fatalf("architecture %#x, which the profile does not name: %#x", d.arch, got)
		}
	}
}

// about cuts a profile down to one call.
func about(p *specs.LinuxSeccomp, name string) []byte {
	short := *p
	short.Syscalls = nil
	for _, r := range p.Syscalls {
		if slices.Contains(r.Names, name) {
			r.Names = []string{name}
			short.Syscalls = append(short.Syscalls, r)
		}
	}
	text, _ := json.Marshal(short)
	return text
}

// mixed calls are several in one number: libseccomp filters their first argument
// in its own ways.
func mixed(arch scmp.ScmpArch, nr uint32) bool {
	return arch == scmp.ArchX86 && (nr == 102 || nr == 117)
}

// interesting arguments. 32-bit architectures pass 32 bits.
func interesting(p *specs.LinuxSeccomp, rnd *rand.Rand, narrow bool) []uint64 {
	out := []uint64{0, 1, ^uint64(0), rnd.Uint64(), 1 << 32}
	for _, r := range p.Syscalls {
		for _, a := range r.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				out = append(out, v-1, v, v+1, v^1<<32, v|1<<63, ^v)
			}
		}
	}
	if narrow {
		for i := range out {
			out[i] = uint64(uint32(out[i]))
		}
	}
	return out
}

func TestDockerProfileMeansWhatItSays(t *testing.T) {
	p := docker(t)
	names := 0
	for _, r := range p.Syscalls {
		names += len(r.Names)
	}
	if len(p.Architectures) != 3 || names < 400 || p.DefaultAction != specs.ActErrno {
		t.Fatalf("%d architectures, %d names, default %s", len(p.Architectures), names, p.DefaultAction)
	}
	compare(t, p, rand.New(rand.NewPCG(1, 2)))
	if f := mustCompile(t, p); len(f.Warnings) > 0 {
		t.Error(f.Warnings)
	}
}

// TestGeneratedProfiles is the differential test: random profiles, plain reading
// against program.
func TestGeneratedProfiles(t *testing.T) {
	n := 150
	if testing.Short() {
		n = 20
	}
	for seed := range n {
		rnd := rand.New(rand.NewPCG(uint64(seed), 7))
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compare(t, generate(rnd), rnd) })
	}
}

func FuzzProfiles(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Add(uint64(194), uint64(170)) // one that libseccomp's linear form gets wrong
	f.Fuzz(func(t *testing.T, a, b uint64) {
		rnd := rand.New(rand.NewPCG(a, b))
		compare(t, generate(rnd), rnd)
	})
}

// pool are names to pick from; those of socketcall and ipc are left out.
var pool = []string{
	"read", "write", "open", "close", "openat", "mmap", "mmap2", "clone", "clone3", "fork", "getpid", "personality", "prctl", "ioctl",
	"stat64", "chown32", "_llseek", "arch_prctl", "modify_ldt", "faccessat2", "openat2", "close_range", "futex_waitv", "futex_time64",
	"mseal", "statmount", "lsm_list_modules", "rt_sigaction", "kexec_load", "set_tls", "no_such_call", "uname", "exit_group",
}

func generate(rnd *rand.Rand) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{}
	defaults := []specs.LinuxSeccompAction{specs.ActErrno, specs.ActErrno, specs.ActAllow, specs.ActLog, specs.ActKillProcess, specs.ActTrap, specs.ActTrace, specs.ActKill}
	p.DefaultAction = defaults[rnd.IntN(len(defaults))]
	if p.DefaultAction == specs.ActErrno && rnd.IntN(2) == 0 {
		p.DefaultErrnoRet = num(uint(rnd.IntN(4096)))
	}
	for _, a := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} {
		if rnd.IntN(2) == 0 {
			p.Architectures = append(p.Architectures, a)
		}
	}
	names := slices.Clone(pool)
	rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for len(names) > 0 && rnd.IntN(8) > 0 {
		n := min(len(names), 1+rnd.IntN(6))
		p.Syscalls = append(p.Syscalls, generateRules(rnd, names[:n])...)
		names = names[n:]
	}
	return p
}

// generateRules makes rules for calls that no others are about: where rules with
// different actions overlap, libseccomp's order is its own.
func generateRules(rnd *rand.Rand, names []string) []specs.LinuxSyscall {
	all := []specs.LinuxSeccompAction{specs.ActErrno, specs.ActAllow, specs.ActLog, specs.ActKillThread, specs.ActKillProcess, specs.ActTrap, specs.ActTrace}
	r := specs.LinuxSyscall{Names: names, Action: all[rnd.IntN(len(all))]}
	switch r.Action {
	case specs.ActErrno, specs.ActTrace:
		r.ErrnoRet = num(uint(rnd.IntN(4096)))
	}
	if rnd.IntN(2) == 0 {
		return []specs.LinuxSyscall{r}
	}
	var rules []specs.LinuxSyscall
	for range 1 + rnd.IntN(3) {
		r.Args = generateArgs(rnd)
		rules = append(rules, r)
	}
	return rules
}

func generateArgs(rnd *rand.Rand) (out []specs.LinuxSeccompArg) {
	ops := []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual,
	}
	values := []uint64{0, 1, 2, 0x7e020000, 0xffffffff, 0x80000000, 0x20008}
	for range 1 + rnd.IntN(3) {
		out = append(out, arg(uint(rnd.IntN(6)), ops[rnd.IntN(len(ops))], values[rnd.IntN(len(values))], values[rnd.IntN(len(values))]))
	}
	return out
}

// TestOverlap: of one-argument rules with different actions any that matches may
// decide, and one of them must.
func TestOverlap(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
		for i := range uint(2 + rnd.IntN(3)) {
			p.Syscalls = append(p.Syscalls, errnoRule(100+i, generateArgs(rnd)[:1], "write"))
		}
		f, err := Compile(p)
		if err != nil && strings.Contains(err.Error(), "same arguments") {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		values := interesting(p, rnd, false)
		for range 300 {
			d := &data{nr: 1, arch: unix.AUDIT_ARCH_X86_64}
			for i := range d.args {
				d.args[i] = values[rnd.IntN(len(values))]
			}
			var allowed []uint32
			for _, r := range p.Syscalls {
				if ruleMatches(r, d) {
					allowed = append(allowed, plainAction(r.Action, r.ErrnoRet))
				}
			}
			if allowed == nil {
				allowed = []uint32{0x50001}
			}
			if got := mustRun(t, f, d); !slices.Contains(allowed, got) {
				t.Fatalf("seed %d, %x: got %#x, want one of %#x\n%s", seed, d.args, got, allowed, about(p, "write"))
			}
		}
	}
}

// TestIntricateRules are cases that libseccomp 2.5.4 compiles wrongly.
func TestIntricateRules(t *testing.T) {
	tests := []struct {
		rules [][]specs.LinuxSeccompArg
		args  [6]uint64
	}{
		{[][]specs.LinuxSeccompArg{
			args(arg(2, specs.OpNotEqual, 0xffffffff), arg(5, specs.OpGreaterEqual, 0x7e020000)),
			args(arg(2, specs.OpEqualTo, 0)),
		}, [6]uint64{0x20008, 0x7e020000, 0x80000000, 0x100020008, 0x8000000000000000, 0}},
		{[][]specs.LinuxSeccompArg{
			args(arg(0, specs.OpGreaterThan, 1), arg(2, specs.OpGreaterEqual, 1), arg(1, specs.OpNotEqual, 0)),
			args(arg(0, specs.OpGreaterEqual, 1), arg(2, specs.OpMaskedEqual, 0x7e020000, 0x20008), arg(1, specs.OpEqualTo, 2)),
		}, [6]uint64{1, 0xfffffffe, 0xffffffff, 0x80000001, 0x1ffffffff, 2}},
	}
	for _, tt := range tests {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
		for _, a := range tt.rules {
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"open"}, Action: specs.ActAllow, Args: a})
		}
		d := &data{nr: 2, arch: unix.AUDIT_ARCH_X86_64, args: tt.args}
		if got := mustRun(t, mustCompile(t, p), d); got != 0x50001 {
			t.Errorf("%s %x: got %#x although no rule matches", about(p, "open"), d.args, got)
		}
	}
}

// TestLongPrologue: more than a conditional jump can skip.
func TestLongPrologue(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	for i := range uint64(30) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"open", "mseal", "read"}, Action: specs.ActAllow,
			Args: args(arg(0, specs.OpEqualTo, i<<3), arg(3, specs.OpMaskedEqual, 0xf00, i<<8)),
		})
	}
	compare(t, p, rand.New(rand.NewPCG(3, 4)))
}

func TestRules(t *testing.T) {
	const write = 1
	tests := []struct {
		name  string
		rules []specs.LinuxSyscall
		first uint64 // argument
		want  uint32
	}{
		{"default", nil, 0, 0x50001},
		{"errno", []specs.LinuxSyscall{errnoRule(28, nil, "write")}, 0, 0x5001c},
		{"errno 0", []specs.LinuxSyscall{errnoRule(0, nil, "write")}, 0, 0x50000},
		{"same as default", []specs.LinuxSyscall{errnoRule(1, nil, "write")}, 0, 0x50001},
		{"same as default does not hide others", []specs.LinuxSyscall{errnoRule(1, nil, "write"), errnoRule(2, args(arg(0, specs.OpEqualTo, 3)), "write")}, 3, 0x50002},
		{"repeated index: first matches", []specs.LinuxSyscall{errnoRule(2, args(arg(0, specs.OpEqualTo, 3), arg(0, specs.OpEqualTo, 4)), "write")}, 3, 0x50002},
		{"repeated index: second matches", []specs.LinuxSyscall{errnoRule(2, args(arg(0, specs.OpEqualTo, 3), arg(0, specs.OpEqualTo, 4)), "write")}, 4, 0x50002},
		{"two indexes: both must match", []specs.LinuxSyscall{errnoRule(2, args(arg(0, specs.OpEqualTo, 3), arg(1, specs.OpEqualTo, 9)), "write")}, 3, 0x50001},
		{"mask", []specs.LinuxSyscall{errnoRule(2, args(arg(0, specs.OpMaskedEqual, 0xff, 3)), "write")}, 0xab03, 0x50002},
		{"unknown call", []specs.LinuxSyscall{errnoRule(2, nil, "no_such_call", "write")}, 3, 0x50002},
		{"first unconditional rule wins", []specs.LinuxSyscall{errnoRule(2, args(arg(0, specs.OpEqualTo, 3)), "write"), errnoRule(4, nil, "write"), errnoRule(5, nil, "write")}, 3, 0x50004},
		{"the same rule twice", []specs.LinuxSyscall{errnoRule(2, nil, "write"), errnoRule(2, nil, "write", "write")}, 3, 0x50002},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules := append([]specs.LinuxSyscall{allow("openat2")}, tt.rules...)
			f := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules})
			d := data{nr: write, arch: unix.AUDIT_ARCH_X86_64, args: [6]uint64{tt.first}}
			if got := mustRun(t, f, &d); got != tt.want {
				t.Errorf("got %#x, want %#x", got, tt.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	one := args(arg(0, specs.OpEqualTo, 1))
	f := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		allow("read", "no_such_call"),
		errnoRule(2, one, "read"),
		errnoRule(1, one, "read"), // the default, but not what happens
	}})
	// Leaving out what only would have allowed something is no reason to warn.
	if want := []string{`/linux/seccomp/syscalls/0/names/1: unknown system call "no_such_call" is ignored`}; !reflect.DeepEqual(f.Notes, want) {
		t.Errorf("notes %q", f.Notes)
	}
	want := []string{
		`/linux/seccomp/syscalls/1/names/0: read: this has no effect, another rule without args decides`,
		`/linux/seccomp/syscalls/2/names/0: read: this has no effect, another rule without args decides`,
	}
	if !reflect.DeepEqual(f.Warnings, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(f.Warnings, "\n"), strings.Join(want, "\n"))
	}
}

// TestWarnsOfWhatLoosens: a profile with a call of the future warns where it is stricter
// than its default.
func TestWarnsOfWhatLoosens(t *testing.T) {
	for _, row := range []struct {
		def, rule specs.LinuxSeccompAction
		warns     bool
	}{
		{specs.ActErrno, specs.ActAllow, false},
		{specs.ActErrno, specs.ActLog, false},
		{specs.ActErrno, specs.ActErrno, false},
		{specs.ActErrno, specs.ActKillThread, true},
		{specs.ActKillThread, specs.ActKillProcess, true},
		{specs.ActKillProcess, specs.ActTrap, false},
		{specs.ActAllow, specs.ActErrno, true},
		{specs.ActAllow, specs.ActLog, true},
		{specs.ActLog, specs.ActTrace, true},
	} {
		f := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: row.def, Syscalls: []specs.LinuxSyscall{{Names: []string{"no_such_call"}, Action: row.rule}}})
		if (len(f.Warnings) == 1) != row.warns || (len(f.Notes) == 1) == row.warns {
			t.Errorf("%s under %s: warnings %q, notes %q", row.rule, row.def, f.Warnings, f.Notes)
		}
	}
}

func TestNewerCallsReturnENOSYS(t *testing.T) {
	tests := []struct {
		name string
		p    *specs.LinuxSeccomp
		arch uint32
		nr   uint32
		want uint32
	}{
		{"newest named", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 437, 0x7fff0000},
		{"older, unnamed", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 436, 0x50001},
		{"newer", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 438, retENOSYS},
		{"newer, default kill", &specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 438, retENOSYS},
		{"newer, default allow", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{errnoRule(3, nil, "openat2")}}, unix.AUDIT_ARCH_X86_64, 438, 0x7fff0000},
		{"newer, default log", &specs.LinuxSeccomp{DefaultAction: specs.ActLog, Syscalls: []specs.LinuxSyscall{errnoRule(3, nil, "openat2")}}, unix.AUDIT_ARCH_X86_64, 438, 0x7ffc0000},
		{"denied counts as known", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("read"), errnoRule(1, nil, "openat2")}}, unix.AUDIT_ARCH_X86_64, 437, 0x50001},
		{"no rule at all", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, unix.AUDIT_ARCH_X86_64, 438, 0x50001},
		{"other architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86}, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_I386, 438, retENOSYS},
		{"x32 when not wanted", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 0x40000000 + 438, 0},
		{"x32", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX32}, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 0x40000000 + 438, retENOSYS},
		{"x32's own old calls", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX32}, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 0x40000000 + 520, 0x50001},
		{"newer than libseccomp, allowed", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("listns", "read")}}, unix.AUDIT_ARCH_X86_64, 470, 0x7fff0000},
		{"newer than libseccomp, forbidden", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{errnoRule(3, nil, "listns")}}, unix.AUDIT_ARCH_X86_64, 470, 0x50003},
		{"skip by tracer", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allow("openat2")}}, unix.AUDIT_ARCH_X86_64, 0xffffffff, 0x50001},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := mustRun(t, mustCompile(t, tt.p), &data{nr: tt.nr, arch: tt.arch}); got != tt.want {
				t.Errorf("got %#x, want %#x", got, tt.want)
			}
		})
	}
}

// TestEveryArchitecture: all that share this machine's byte order compile, the
// prologue's jumps included; the others are refused by name.
func TestEveryArchitecture(t *testing.T) {
	for _, name := range seccomp.Arches() {
		p := docker(t)
		p.Architectures = []specs.Arch{specs.Arch(name)}
		f, err := Compile(p)
		if err != nil {
			var fe *seccomp.FieldError
			if !errors.As(err, &fe) || fe.Field != "/linux/seccomp/architectures/0" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		a, _ := seccomp.LookupArch(specs.Arch(name))
		want := map[string]uint32{"read": 0x7fff0000, "keyctl": 0x50001, "mseal": 0x7fff0000}
		for call, ret := range want {
			token, _ := token(a.Name)
			n, ok := callNumber(call, token)
			if got := mustRun(t, f, &data{nr: n, arch: a.Audit}); !ok || got != ret {
				t.Errorf("%s: %s (%d) gives %#x, want %#x", name, call, n, got, ret)
			}
		}
		if got := mustRun(t, f, &data{nr: a.Base + 480, arch: a.Audit}); got != retENOSYS {
			t.Errorf("%s: a call of the future gives %#x", name, got)
		}
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct {
		name, field string
		p           *specs.LinuxSeccomp
	}{
		{"contradiction", "/linux/seccomp/syscalls/1/names/0", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			errnoRule(2, args(arg(0, specs.OpEqualTo, 1)), "write"), errnoRule(3, args(arg(0, specs.OpEqualTo, 1)), "write"),
		}}},
		{"byte order", "/linux/seccomp/architectures/1", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchS390X}}},
		{"wrong case", "/linux/seccomp/syscalls/0/names/1", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			errnoRule(2, nil, "write", "Read", "No_Such_Call"),
		}}},
		{"check", "/linux/seccomp/defaultAction", &specs.LinuxSeccomp{}},
		{"too long", "/linux/seccomp/syscalls", tooLong(1500)},
		{"far too long", "/linux/seccomp/syscalls", tooLong(100_000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(tt.p)
			var fe *seccomp.FieldError
			if !errors.As(err, &fe) || fe.Field != tt.field {
				t.Errorf("got %v, want something about %s", err, tt.field)
			}
			t.Log(err)
		})
	}
}

func tooLong(n int) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for i := range n {
		p.Syscalls = append(p.Syscalls, errnoRule(2, args(arg(1, specs.OpEqualTo, uint64(i)<<33|uint64(i))), "write"))
	}
	return p
}

// TestManyRules: a hundred thousand of them compile as if they were few, if they are.
func TestManyRules(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for i := range 100_000 {
		p.Syscalls = append(p.Syscalls, errnoRule(2, args(arg(0, specs.OpEqualTo, uint64(i%50))), "write"))
	}
	start := time.Now()
	f := mustCompile(t, p)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	for v, want := range map[uint64]uint32{49: 0x50002, 50: 0x7fff0000} {
		if got := mustRun(t, f, &data{nr: unix.SYS_WRITE, arch: unix.AUDIT_ARCH_X86_64, args: [6]uint64{v}}); got != want {
			t.Errorf("write(%d): %#x", v, got)
		}
	}
}

// A second value where the operator takes one is not looked at.
func TestSecondValue(t *testing.T) {
	f := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{errnoRule(2, args(arg(0, specs.OpEqualTo, 3, 4)), "write")}})
	for v, want := range map[uint64]uint32{3: 0x50002, 4: 0x7fff0000} {
		if got := mustRun(t, f, &data{nr: unix.SYS_WRITE, arch: unix.AUDIT_ARCH_X86_64, args: [6]uint64{v}}); got != want {
			t.Errorf("write(%d): %#x", v, got)
		}
	}
}

func TestInProcessCompiler(t *testing.T) {
	c := Compiler()
	if !strings.HasPrefix(c.ID(), "libseccomp 2.") {
		t.Errorf("ID %q", c.ID())
	}
	tests := []struct{ profile, want string }{
		{`{"defaultAction":"SCMP_ACT_ALLOW"}`, ""},
		{`{"defaultAction":"SCMP_ACT_ALLOW","future":{}}`, ""},
		{`{"defaultAction":3}`, "/linux/seccomp/defaultAction: is of the wrong type"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"args":[{"index":-1}]}]}`, "/linux/seccomp/syscalls/0/args/0/index: "},
		{`{"defaultAction":"SCMP_ACT_ALLOW","defaultAction":"SCMP_ACT_KILL"}`, "/linux/seccomp/defaultAction: duplicate"},
		{`{"defaultAction":`, "/linux/seccomp"},
		{`[]`, "/linux/seccomp: is of the wrong type"},
	}
	for _, tt := range tests {
		_, err := c.Compile([]byte(tt.profile))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.profile, err, tt.want)
		}
	}
}

func TestNewerIsSorted(t *testing.T) {
	for i := 1; i < len(newer); i++ {
		if newer[i].nr != newer[i-1].nr+1 {
			t.Errorf("%s is not the call after %s", newer[i].name, newer[i-1].name)
		}
	}
	for _, c := range newer {
		if n, err := scmp.GetSyscallFromName(c.name); err == nil && n != scmp.ScmpSyscall(c.nr) {
			t.Errorf("%s: libseccomp says %d", c.name, n)
		}
	}
}

func BenchmarkDocker(b *testing.B) {
	p := docker(b)
	for b.Loop() {
		mustCompile(b, p)
	}
}

// BenchmarkLibseccomp is what libseccomp needs to make a tree of its own.
func BenchmarkLibseccomp(b *testing.B) {
	p := docker(b)
	for b.Loop() {
		f, err := scmp.NewFilter(action(p.DefaultAction, p.DefaultErrnoRet))
		if err != nil {
			b.Fatal(err)
		}
		_ = f.SetOptimize(2)
		for _, name := range p.Architectures {
			t, _ := token(name)
			_ = f.AddArch(t)
		}
		for _, r := range p.Syscalls {
			for _, name := range r.Names {
				if n, err := scmp.GetSyscallFromName(name); err == nil && r.Action != p.DefaultAction {
					_ = f.AddRuleConditional(n, action(r.Action, r.ErrnoRet), conditions(r.Args))
				}
			}
		}
		if _, err := (&compiler{filter: f}).export(); err != nil {
			b.Fatal(err)
		}
		f.Release()
	}
}
