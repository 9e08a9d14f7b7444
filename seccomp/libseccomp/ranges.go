package libseccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// What installing a filter costs grows with its instructions: the kernel checks,
// translates and compiles each. libseccomp compares with every number that a profile
// names, once for each architecture: 1376 instructions for Docker's profile, though whole
// ranges of numbers are answered alike. So the part of a program that looks at nothing
// but architecture and number gives way to a tree over such ranges: of 283 instructions
// there, in less than a third of the time.
//
// The tree is not made from the profile but from the program, by asking that about every
// range between two numbers that it compares with. From the first instruction that looks
// at an argument on it stays as it is.

// answer is what a program does with a call, as far as architecture and number tell.
type answer struct {
	ret  uint32
	rest int // the instruction that loads more, -1: none, ret is returned
}

// span are the numbers from first up to the next span's.
type span struct {
	first uint32
	answer
}

// program is one of classic BPF, with what it compares architecture and number with.
type program struct {
	code            []unix.SockFilter
	arches, numbers []uint32
}

// The instructions that matter here.
const (
	opLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opReturn = unix.BPF_RET | unix.BPF_K
	opSkip   = unix.BPF_JMP | unix.BPF_JA
	opEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opAbove  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opFrom   = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
)

// inRanges returns a program that answers like code and is no longer. One that treats
// architectures or numbers otherwise than by comparison stays what it is.
func inRanges(code []unix.SockFilter) []unix.SockFilter {
	p := &program{code: code}
	if !p.scan() {
		return code
	}
	spans := make([][]span, len(p.arches)+1)
	rests := make([]bool, len(code))
	for i := range spans {
		spans[i] = p.spans(p.arch(i))
		for _, s := range spans[i] {
			if s.rest >= 0 {
				rests[s.rest] = true
			}
		}
	}
	a := assembler{rets: map[uint32]int{}}
	a.keep(code, rests)
	next := a.tree(spans[len(p.arches)])
	for i, arch := range slices.Backward(p.arches) {
		next = a.branch(opEqual, arch, a.tree(spans[i]), next)
	}
	a.goOn(next)
	a.add(load(offArch))
	if slices.Reverse(a.code); len(a.code) > len(code) {
		return code
	}
	return a.code
}

// scan walks every path up to where it looks at more than architecture and number.
func (p *program) scan() bool {
	type place struct {
		pc   int
		held uint32 // the offset of what is loaded
	}
	const nothing = ^uint32(0)
	seen := map[place]bool{}
	for todo := []place{{0, nothing}}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[at] {
			continue
		}
		if seen[at] = true; at.pc >= len(p.code) {
			return false
		}
		in := p.code[at.pc]
		yes, no := at.pc+1+int(in.Jt), at.pc+1+int(in.Jf)
		switch {
		case in.Code == opReturn:
		case in.Code == opLoad && in.K > offArch:
		case in.Code == opLoad:
			todo = append(todo, place{at.pc + 1, in.K})
		case in.Code == opSkip:
			todo = append(todo, place{at.pc + 1 + int(in.K), at.held})
		case in.Code == opEqual && at.held == offArch:
			p.arches = append(p.arches, in.K)
			todo = append(todo, place{yes, at.held}, place{no, at.held})
		case (in.Code == opEqual || in.Code == opAbove || in.Code == opFrom) && at.held == offNr:
			p.numbers = append(p.numbers, in.K, in.K+1)
			todo = append(todo, place{yes, at.held}, place{no, at.held})
		default:
			return false
		}
	}
	p.numbers = sorted(append(p.numbers, 0))
	p.arches = sorted(p.arches)
	return true
}

func sorted(list []uint32) []uint32 {
	slices.Sort(list)
	return slices.Compact(list)
}

// arch is the i-th architecture, or one that the program does not know.
func (p *program) arch(i int) uint32 {
	if i < len(p.arches) {
		return p.arches[i]
	}
	other := uint32(0)
	for slices.Contains(p.arches, other) {
		other++
	}
	return other
}

// spans are the ranges of numbers that an architecture's calls are answered by.
func (p *program) spans(arch uint32) (list []span) {
	for _, n := range p.numbers {
		s := span{n, p.run(arch, n)}
		if len(list) == 0 || list[len(list)-1].answer != s.answer {
			list = append(list, s)
		}
	}
	return list
}

func (p *program) run(arch, number uint32) answer {
	var loaded uint32
	for pc := 0; ; pc++ {
		in := p.code[pc]
		var yes bool
		switch in.Code {
		case opReturn:
			return answer{in.K, -1}
		case opSkip:
			pc += int(in.K)
			continue
		case opLoad:
			switch in.K {
			case offArch:
				loaded = arch
			case offNr:
				loaded = number
			default:
				return answer{rest: pc}
			}
			continue
		case opEqual:
			yes = loaded == in.K
		case opAbove:
			yes = loaded > in.K
		case opFrom:
			yes = loaded >= in.K
		}
		if yes {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
}

// assembler puts a program together from its end, since every jump has to know what it
// skips. Places count from the end, too.
type assembler struct {
	code []unix.SockFilter
	rets map[uint32]int // the nearest return of each value
	kept []int          // where the instructions of the old program are
}

func (a *assembler) add(in unix.SockFilter) int {
	if a.code = append(a.code, in); in.Code == opReturn {
		a.rets[in.K] = len(a.code) - 1
	}
	return len(a.code) - 1
}

// keep takes over what can be reached from the instructions in from. Jumps get no longer
// by what is left out.
func (a *assembler) keep(code []unix.SockFilter, from []bool) {
	for pc, in := range code {
		if !from[pc] {
			continue
		}
		switch {
		case in.Code == opSkip:
			from[pc+1+int(in.K)] = true
		case in.Code&0x07 == unix.BPF_JMP:
			from[pc+1+int(in.Jt)], from[pc+1+int(in.Jf)] = true, true
		case in.Code != opReturn:
			from[pc+1] = true
		}
	}
	a.kept = make([]int, len(code))
	for pc, in := range slices.Backward(code) {
		if !from[pc] {
			continue
		}
		if in.Code == opSkip {
			in.K = uint32(len(a.code) - 1 - a.kept[pc+1+int(in.K)])
		} else if in.Code&0x07 == unix.BPF_JMP {
			in.Jt = uint8(len(a.code) - 1 - a.kept[pc+1+int(in.Jt)])
			in.Jf = uint8(len(a.code) - 1 - a.kept[pc+1+int(in.Jf)])
		}
		a.kept[pc] = a.add(in)
	}
}

// tree loads the number and finds its span.
func (a *assembler) tree(spans []span) int {
	root := a.find(spans)
	if len(spans) == 1 {
		return root
	}
	a.goOn(root)
	return a.add(load(offNr))
}

// goOn makes sure that what is added next is followed by what is at a place.
func (a *assembler) goOn(at int) {
	if at != len(a.code)-1 {
		a.add(skip(len(a.code) - 1 - at))
	}
}

func (a *assembler) find(spans []span) int {
	half := len(spans) / 2
	switch s := spans[0]; {
	case half > 0:
		above := a.find(spans[half:])
		return a.branch(opFrom, spans[half].first, above, a.find(spans[:half]))
	case s.rest >= 0:
		return a.kept[s.rest]
	default:
		if at, ok := a.rets[s.ret]; ok {
			return at
		}
		return a.add(give(s.ret))
	}
}

// branch compares what is loaded, and goes on at one of two places.
func (a *assembler) branch(op uint16, k uint32, yes, no int) int {
	yes, no = a.near(yes), a.near(no)
	n := len(a.code) - 1
	return a.add(unix.SockFilter{Code: op, K: k, Jt: uint8(n - yes), Jf: uint8(n - no)})
}

// near returns a place that the next two instructions can skip to, and that leads to at.
func (a *assembler) near(at int) int {
	const most = 255 - 1
	in := a.code[at]
	if in.Code == opReturn {
		at = a.rets[in.K]
	}
	switch {
	case len(a.code)-1-at < most:
		return at
	case in.Code == opReturn:
		return a.add(in)
	}
	return a.add(skip(len(a.code) - 1 - at))
}
