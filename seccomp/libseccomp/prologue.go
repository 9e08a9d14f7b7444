package libseccomp

import (
	"encoding/binary"

	"github.com/opencontainers/runtime-spec/specs-go"
	scmp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/huskrun/husk/seccomp"
)

// In front of libseccomp's program goes a prologue of ours, for what libseccomp
// leaves to be done:
//
// New calls. A profile can only speak about the system calls its author knew. To
// a call that came later it answers with its default, mostly EPERM, and then
// libraries that would fall back on ENOSYS fail instead (faccessat2, clone3, …
// broke containers on every such occasion). So calls with a higher number than
// any the profile names return ENOSYS, unless the default permits them.
//
// Calls that libseccomp has no name for yet: see newer.
//
// Several rules for one call of which one tests several arguments: libseccomp
// (2.5.4 at least) merges such rules into one tree and answers wrongly for some
// arguments, even permits what no rule permits: TestIntricateRules has cases that
// TestGeneratedProfiles found. Here such rules are tried in their order.
//
// For each architecture the prologue is
//
//	ld arch; jne AUDIT_ARCH next
//	ld nr;   jlt LOWEST next       most calls leave here
//	jeq N    its rules; ret        for each call of the last two kinds
//	jge CEILING next               numbers above belong to something else
//	jgt NEWEST  ret ENOSYS
//
// For all other calls it looks at nothing but architecture and number, so the
// kernel's table of calls that are always allowed (Linux 5.11) stays as good.

// archStub is what the prologue does for one architecture.
type archStub struct {
	seccomp.Arch
	token  scmp.ScmpArch
	newest uint32 // largest number the profile names
	named  bool   // whether it names any
	own    []ownCall
	// multiplexes: has socketcall(2) or ipc(2), behind which other calls hide.
	multiplexes bool
}

// ownCall is a call whose rules the prologue tries.
type ownCall struct {
	nr    uint32
	rules []ownRule
	def   uint32 // what it returns if none matches
}

type ownRule struct {
	args []specs.LinuxSeccompArg
	ret  uint32
}

// lastOld is the last number before those shared by all architectures started
// at 403 (Linux 5.1).
const lastOld = 402

// name notes that the profile names a call of the number n, as libseccomp sees
// it. Calls that an architecture does not have are negative and tell nothing;
// those that it has behind socketcall or ipc are between -300 and -100, even if
// they got a number of their own later. As libseccomp does not say which, the
// profile is taken to know all old calls.
func (a *archStub) name(n int) {
	switch {
	case n >= 0:
		a.mention(uint32(n))
	case a.hides(n):
		a.mention(a.Base + lastOld)
	}
}

// hides reports whether n is a call behind socketcall or ipc.
func (a *archStub) hides(n int) bool { return a.multiplexes && n < 0 && n > -300 }

func (a *archStub) mention(nr uint32) {
	if a.Ceiling != 0 && nr >= a.Ceiling {
		return
	}
	a.newest, a.named = max(a.newest, nr), true
}

// enosys reports whether calls newer than the profile are to return ENOSYS.
func (c *compiler) enosys() bool {
	switch c.profile.DefaultAction {
	case specs.ActAllow, specs.ActLog:
		return false
	}
	return ret(c.def) != retENOSYS
}

const retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// prologue assembles the blocks of all architectures.
func prologue(arches []archStub, enosys bool) (prog []unix.SockFilter) {
	for i := range arches {
		prog = append(prog, arches[i].block(enosys)...)
	}
	return prog
}

// block is the part for one architecture, put together from its end, since every
// jump has to know what it skips.
func (a *archStub) block(enosys bool) []unix.SockFilter {
	var b []unix.SockFilter
	lowest := ^uint32(0)
	if enosys && a.named {
		lowest = a.newest + 1
		b = when(unix.BPF_JGT, a.newest, []unix.SockFilter{give(retENOSYS)})
		if a.Ceiling != 0 {
			b = unless(unix.BPF_JGE, a.Ceiling, b)
		}
	}
	for _, c := range a.own {
		lowest = min(lowest, c.nr)
		b = append(when(unix.BPF_JEQ, c.nr, c.code()), b...)
	}
	if len(b) == 0 {
		return nil
	}
	b = when(unix.BPF_JGE, lowest, b)
	b = append([]unix.SockFilter{load(offNr)}, b...)
	b = when(unix.BPF_JEQ, a.Audit, b)
	return append([]unix.SockFilter{load(offArch)}, b...)
}

// code tries the rules in their order. It always returns, so what follows it
// finds the call's number still loaded.
func (c *ownCall) code() []unix.SockFilter {
	var b []unix.SockFilter
	for _, r := range c.rules {
		rule := []unix.SockFilter{give(r.ret)}
		for _, a := range r.args {
			rule = append(condition(a, uint8(len(rule))), rule...)
		}
		b = append(b, rule...)
		if len(r.args) == 0 {
			return b
		}
	}
	return append(b, give(c.def))
}

// condition goes on if the argument matches and otherwise skips n instructions
// after its own. It compares all 64 bits; 32-bit programs arrive with zeros in
// the upper half.
func condition(a specs.LinuxSeccompArg, n uint8) []unix.SockFilter {
	hi, lo := uint32(a.Value>>32), uint32(a.Value)
	loadHi, loadLo := argument(a.Index)
	order := uint16(unix.BPF_JGT)
	if a.Op == specs.OpGreaterEqual || a.Op == specs.OpLessThan {
		order = unix.BPF_JGE
	}
	switch a.Op {
	case specs.OpEqualTo:
		return []unix.SockFilter{loadHi, test(unix.BPF_JEQ, hi, 0, n+2), loadLo, test(unix.BPF_JEQ, lo, 0, n)}
	case specs.OpNotEqual:
		return []unix.SockFilter{loadHi, test(unix.BPF_JEQ, hi, 0, 2), loadLo, test(unix.BPF_JEQ, lo, n, 0)}
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		return []unix.SockFilter{loadHi, test(unix.BPF_JGT, hi, 3, 0), test(unix.BPF_JEQ, hi, 0, n+2), loadLo, test(order, lo, 0, n)}
	case specs.OpLessEqual, specs.OpLessThan:
		return []unix.SockFilter{loadHi, test(unix.BPF_JGT, hi, n+3, 0), test(unix.BPF_JEQ, hi, 0, 2), loadLo, test(order, lo, n, 0)}
	}
	// SCMP_CMP_MASKED_EQ; Check knows no others.
	datum := a.ValueTwo & a.Value
	return []unix.SockFilter{
		loadHi, and(hi), test(unix.BPF_JEQ, uint32(datum>>32), 0, n+3),
		loadLo, and(lo), test(unix.BPF_JEQ, uint32(datum), 0, n),
	}
}

// Offsets in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// argument loads the halves of an argument.
func argument(index uint) (hi, lo unix.SockFilter) {
	first, second := load(offArgs+8*uint32(index)), load(offArgs+8*uint32(index)+4)
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return first, second // big-endian
	}
	return second, first
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func and(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
}

func give(ret uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: ret}
}

// test compares the loaded value with k and skips yes or no instructions.
func test(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

// when runs b only if the comparison holds, unless only if not. Conditional jumps
// reach 255 instructions, others any number.
func when(op uint16, k uint32, b []unix.SockFilter) []unix.SockFilter {
	if len(b) > 255 {
		return append([]unix.SockFilter{test(op, k, 1, 0), skip(len(b))}, b...)
	}
	return append([]unix.SockFilter{test(op, k, 0, uint8(len(b)))}, b...)
}

func unless(op uint16, k uint32, b []unix.SockFilter) []unix.SockFilter {
	if len(b) > 255 {
		return append([]unix.SockFilter{test(op, k, 0, 1), skip(len(b))}, b...)
	}
	return append([]unix.SockFilter{test(op, k, uint8(len(b)), 0)}, b...)
}

func skip(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}
