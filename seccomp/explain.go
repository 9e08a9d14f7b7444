package seccomp

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Explanation says what a profile does: what its compiled filter answers to every system
// call that has a name, and what in it has no effect.
type Explanation struct {
	Arches []Answers
	// Others is the answer to calls of architectures that the profile does not name.
	Others string
	// Idle are the parts without effect, each with its JSON pointer.
	Idle []string
}

// Answers are those to the calls of one architecture, in groups by what is answered.
type Answers struct {
	Arch   specs.Arch
	Groups []Group
}

// Group are the calls that get one answer, or one of several, which depends on the
// arguments. If it does, Rules say so, for each call.
type Group struct {
	Answer string
	Calls  []string
	Rules  []string
}

// Explain compiles a profile and reads the filter.
func Explain(profile []byte, c Compiler) (*Explanation, error) {
	if c == nil {
		return nil, ErrNoCompiler
	}
	f, err := c.Compile(profile)
	if err != nil {
		return nil, err
	}
	p, err := Decode(profile)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Others: answerText(f.answers(unix.AUDIT_ARCH_ARCOMPACT, 0)), Idle: slices.Concat(f.Warnings, f.Notes)}
	here := map[string]bool{} // names that some architecture has
	for _, a := range filtered(p) {
		calls, err := names(c, a.Name)
		if err != nil {
			return nil, err
		}
		e.Arches = append(e.Arches, explainArch(f, p, a, calls, here))
	}
	e.Idle = append(e.Idle, idle(p, here)...)
	return e, nil
}

// filtered are the architectures that the profile is about: the machine's own always is.
func filtered(p *specs.LinuxSeccomp) (list []Arch) {
	if native, ok := nativeArch(); ok {
		list = append(list, native)
	}
	for _, name := range p.Architectures {
		if a, ok := LookupArch(name); ok && !contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

func explainArch(f *Filter, p *specs.LinuxSeccomp, a Arch, calls []Call, here map[string]bool) Answers {
	groups := map[string]*Group{}
	for _, call := range calls {
		here[call.Name] = true
		returns := f.answers(a.Audit, call.Number)
		text := answerText(returns)
		g := groups[text]
		if g == nil {
			g = &Group{Answer: text}
			groups[text] = g
		}
		g.Calls = append(g.Calls, call.Name)
		if len(returns) > 1 {
			g.Rules = append(g.Rules, ruleTexts(p, call.Name)...)
		}
	}
	out := Answers{Arch: a.Name}
	for _, g := range groups {
		slices.Sort(g.Calls)
		out.Groups = append(out.Groups, *g)
	}
	slices.SortFunc(out.Groups, func(a, b Group) int {
		depends := cmp.Compare(min(len(a.Rules), 1), min(len(b.Rules), 1)) // which comes last
		return cmp.Or(depends, strings.Compare(a.Answer, b.Answer))
	})
	return out
}

// answers are all values that the filter may return for a call, whatever its arguments.
func (f *Filter) answers(arch, number uint32) []uint32 {
	w := walk{f: f, arch: arch, number: number, been: map[place]bool{}, found: map[uint32]bool{}}
	w.from(place{})
	returns := make([]uint32, 0, len(w.found))
	for r := range w.found {
		returns = append(returns, r)
	}
	slices.SortFunc(returns, func(a, b uint32) int { // from allowed to killed
		return int(int64(int32(b)) - int64(int32(a)))
	})
	return returns
}

// walk follows both ways of a jump where it depends on an argument.
type walk struct {
	f            *Filter
	arch, number uint32
	been         map[place]bool
	found        map[uint32]bool
}

// place is an instruction with what the accumulator holds there, if that is known.
type place struct {
	pc    int
	known bool
	a     uint32
}

func (w *walk) from(p place) {
	for ; (p.pc+1)*instructionSize <= len(w.f.BPF) && !w.been[p]; p.pc++ {
		w.been[p] = true
		in := w.f.BPF[p.pc*instructionSize:]
		code, k := binary.NativeEndian.Uint16(in), binary.NativeEndian.Uint32(in[4:])
		yes, no := p.pc+int(in[2]), p.pc+int(in[3])
		switch code {
		case opLoad:
			p.known = k == 0 || k == 4
			if p.a = 0; p.known {
				p.a = [...]uint32{w.number, w.arch}[k/4]
			}
		case opAnd:
			p.a &= k
		case opJump:
			p.pc += int(k)
		case opReturn:
			w.found[k] = true
			return
		case opEqual, opAbove, opAtLeast, opBits:
			taken := map[uint16]bool{opEqual: p.a == k, opAbove: p.a > k, opAtLeast: p.a >= k, opBits: p.a&k != 0}[code]
			if !p.known || taken {
				w.from(place{yes + 1, p.known, p.a})
			}
			if p.known && taken {
				return
			}
			p.pc = no
		default:
			return
		}
	}
}

// answerText names what the filter returns, as profiles do.
func answerText(returns []uint32) string {
	var texts []string
	for _, r := range returns {
		data := r &^ retActionMask
		switch r & retActionMask {
		case retAllow:
			texts = append(texts, "allowed")
		case retLog:
			texts = append(texts, "allowed and logged")
		case retErrno:
			texts = append(texts, errnoText(data))
		case retTrace:
			texts = append(texts, fmt.Sprintf("traced (message %d)", data))
		case retTrap:
			texts = append(texts, "SIGSYS")
		case retNotify:
			texts = append(texts, "asked of the listener")
		case retKillThread:
			texts = append(texts, "kills the thread")
		case retKillProcess:
			texts = append(texts, "kills the process")
		default:
			texts = append(texts, fmt.Sprintf("%#x", r))
		}
	}
	return strings.Join(texts, " or ")
}

func errnoText(n uint32) string {
	if name := unix.ErrnoName(unix.Errno(n)); name != "" {
		return name
	}
	if n == 0 {
		return "does nothing (errno 0)"
	}
	return fmt.Sprintf("errno %d", n)
}

// ruleTexts are the profile's rules for a call that look at arguments.
func ruleTexts(p *specs.LinuxSeccomp, name string) (texts []string) {
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		if len(r.Args) == 0 || !contains(r.Names, name) {
			continue
		}
		var args []string
		for _, a := range r.Args {
			args = append(args, argText(a))
		}
		and := " and "
		if len(Alternatives(r.Args)) > 1 {
			and = " or "
		}
		texts = append(texts, fmt.Sprintf("%s: %s if %s", name, r.Action, strings.Join(args, and)))
	}
	return texts
}

func argText(a specs.LinuxSeccompArg) string {
	if a.Op == specs.OpMaskedEqual {
		return fmt.Sprintf("arg%d & %#x == %#x", a.Index, a.Value, a.ValueTwo&a.Value)
	}
	sign := map[specs.LinuxSeccompOperator]string{
		specs.OpEqualTo: "==", specs.OpNotEqual: "!=", specs.OpLessThan: "<", specs.OpLessEqual: "<=",
		specs.OpGreaterThan: ">", specs.OpGreaterEqual: ">=",
	}[a.Op]
	return fmt.Sprintf("arg%d %s %#x", a.Index, sign, a.Value)
}

// Alternatives are the lists of conditions that a rule's args stand for: one that has them
// all, or one for each if an index repeats.
func Alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			each := make([][]specs.LinuxSeccompArg, len(args))
			for i := range args {
				each[i] = args[i : i+1]
			}
			return each
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// idle finds what has no effect, beyond what the compiler tells.
func idle(p *specs.LinuxSeccomp, here map[string]bool) (list []string) {
	say := func(field, format string, args ...any) {
		list = append(list, Pointer+field+": "+fmt.Sprintf(format, args...))
	}
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		field := fmt.Sprintf("/syscalls/%d", i)
		if sameAction(r.Action, r.ErrnoRet, p.DefaultAction, p.DefaultErrnoRet) {
			say(field, "does what the default does")
		}
		for j, name := range r.Names {
			if !here[name] {
				say(fmt.Sprintf("%s/names/%d", field, j), "no architecture of the profile has %s", name)
			}
		}
		if door := hidingCall(p, r); door != "" && here[door] {
			say(field+"/args", "%s(2), which some architecture has and which is allowed, hides them", door)
		}
		for j, a := range r.Args {
			if what := argIdle(a); what != "" {
				say(fmt.Sprintf("%s/args/%d", field, j), "%s", what)
			}
		}
	}
	if !notifies(p) {
		if p.ListenerPath != "" {
			say("/listenerPath", "nothing is reported to it: no rule has SCMP_ACT_NOTIFY")
		}
		if i := slices.Index(p.Flags, specs.LinuxSeccompFlagWaitKillableRecv); i >= 0 {
			say(fmt.Sprintf("/flags/%d", i), "needs a rule with SCMP_ACT_NOTIFY")
		}
	}
	return list
}

// hidden are the calls that 32-bit architectures also have behind another one, which takes
// their arguments from memory, where no filter sees them.
var hidden = map[string][]string{
	"socketcall": {
		"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom",
		"recvmsg", "recvmmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket", "socketpair",
	},
	"ipc": {"msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget"},
}

// hidingCall is an allowed call behind which that of a rule, whose arguments matter, can
// be reached too.
func hidingCall(p *specs.LinuxSeccomp, r *specs.LinuxSyscall) string {
	for door, calls := range hidden {
		if len(r.Args) > 0 && plainly(p, door) == specs.ActAllow && slices.ContainsFunc(r.Names, func(n string) bool { return contains(calls, n) }) {
			return door
		}
	}
	return ""
}

func sameAction(a specs.LinuxSeccompAction, aRet *uint, b specs.LinuxSeccompAction, bRet *uint) bool {
	value := func(ret *uint) uint {
		if ret == nil {
			return uint(unix.EPERM)
		}
		return *ret
	}
	return a == b && (errnoLimit(a) < 0 || value(aRet) == value(bRet))
}

// argIdle says what a comparison cannot tell apart.
func argIdle(a specs.LinuxSeccompArg) string {
	const most = ^uint64(0)
	switch {
	case a.Op == specs.OpMaskedEqual && a.Value == 0:
		return "a mask of 0 matches everything"
	case a.Op == specs.OpMaskedEqual && a.ValueTwo&^a.Value != 0:
		return fmt.Sprintf("the bits %#x of valueTwo are outside of the mask", a.ValueTwo&^a.Value)
	case a.Op == specs.OpLessThan && a.Value == 0, a.Op == specs.OpGreaterThan && a.Value == most:
		return "never matches"
	case a.Op == specs.OpGreaterEqual && a.Value == 0, a.Op == specs.OpLessEqual && a.Value == most:
		return "matches everything"
	case a.Op != specs.OpMaskedEqual && a.ValueTwo != 0:
		return fmt.Sprintf("%s has no second value", a.Op)
	}
	return ""
}
