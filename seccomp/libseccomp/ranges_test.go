package libseccomp

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func encoded(code []unix.SockFilter) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&code[0])), len(code)*unix.SizeofSockFilter)
}

// Whatever a program is, what becomes of it answers alike.
func TestRangesOfAnyProgram(t *testing.T) {
	changed, rnd := 0, rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		code := anyProgram(rnd, 2+rnd.IntN(20<<rnd.IntN(6)))
		got := inRanges(slices.Clone(code))
		if !slices.Equal(got, code) {
			changed++
		}
		for range 300 {
			d := &data{nr: rnd.Uint32N(64), arch: rnd.Uint32N(4), args: [6]uint64{rnd.Uint64N(64)}}
			want, err := run(encoded(code), d)
			if err != nil {
				t.Fatal(err)
			}
			if is, err := run(encoded(got), d); is != want || err != nil {
				t.Fatalf("%+v: %#x, %v, not %#x\n%v\nof\n%v", d, is, err, want, got, code)
			}
		}
	}
	if changed < 1000 {
		t.Errorf("only %d programs are any other", changed)
	}
}

// anyProgram begins like a filter, and goes on at random; its jumps lead anywhere.
func anyProgram(rnd *rand.Rand, n int) []unix.SockFilter {
	code := []unix.SockFilter{load(offArch)}
	for len(code) < n {
		left := n - len(code) // what a jump may skip
		reach := func() uint8 { return uint8(rnd.IntN(min(left, 256))) }
		switch rnd.IntN(30) {
		case 0:
			code = append(code, load(offArch))
		case 1, 2, 3, 4:
			code = append(code, load(offNr))
		case 5:
			code = append(code, load(offArgs))
		case 6, 7:
			code = append(code, give(rnd.Uint32N(5)))
		case 8:
			code = append(code, skip(rnd.IntN(left)))
		default:
			op := []uint16{unix.BPF_JEQ, unix.BPF_JGT, unix.BPF_JGE}[rnd.IntN(3)]
			if code[len(code)-1] == load(offArch) {
				op = unix.BPF_JEQ
			}
			code = append(code, test(op, rnd.Uint32N(64), reach(), reach()))
		}
	}
	return append(code, give(9))
}

// Where jumps have to go far: hundreds of ranges with as many answers.
func TestManyRanges(t *testing.T) {
	code := []unix.SockFilter{load(offNr)}
	for i := range uint32(1000) {
		code = append(code, when(unix.BPF_JEQ, 2*i, []unix.SockFilter{give(i % 400)})...)
	}
	code = append(code, give(1000))
	got := inRanges(code)
	for n := range uint32(2100) {
		d := &data{nr: n}
		want, _ := run(encoded(code), d)
		if is, err := run(encoded(got), d); is != want || err != nil {
			t.Fatalf("%d: %d, %v, not %d", n, is, err, want)
		}
	}
}

// What is not understood stays.
func TestRangesLeaveAlone(t *testing.T) {
	for name, code := range map[string][]unix.SockFilter{
		"bits of a number":        {load(offNr), test(unix.BPF_JSET, 1, 0, 1), give(1), give(2)},
		"a masked number":         {load(offNr), and(7), test(unix.BPF_JEQ, 1, 0, 1), give(1), give(2)},
		"ranges of architectures": {load(offArch), test(unix.BPF_JGT, 1, 0, 1), give(1), give(2)},
		"nothing loaded":          {test(unix.BPF_JEQ, 1, 0, 1), give(1), give(2)},
		"no end":                  {load(offNr), test(unix.BPF_JEQ, 1, 0, 1), give(1)},
		"no better":               {load(offArgs), test(unix.BPF_JEQ, 1, 0, 1), give(1), give(2)},
	} {
		if got := inRanges(slices.Clone(code)); !slices.Equal(got, code) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestRangesOfDocker: what it is all for.
func TestRangesOfDocker(t *testing.T) {
	if n := len(mustCompile(t, docker(t)).BPF) / unix.SizeofSockFilter; n > 320 {
		t.Errorf("%d instructions", n)
	}
}
