package seccomp

import "testing"

func TestAllows(t *testing.T) {
	const allow, log, deny = 0x7fff0000, 0x7ffc0000, 0x00050001
	f := &Filter{BPF: program(
		[4]uint32{opLoad, 0, 0, 4},
		[4]uint32{opEqual, 1, 0, auditArch()},
		[4]uint32{opReturn, 0, 0, deny},
		[4]uint32{opLoad, 0, 0, 0},
		[4]uint32{opEqual, 0, 2, 10}, // call 10: unless bit 2 of its first argument is set
		[4]uint32{opLoad, 0, 0, 16},
		[4]uint32{opBits, 3, 2, 4},
		[4]uint32{opAbove, 2, 0, 100},   // calls above 100: no
		[4]uint32{opAtLeast, 2, 0, 100}, // 100: logged
		[4]uint32{opReturn, 0, 0, allow},
		[4]uint32{opReturn, 0, 0, deny},
		[4]uint32{opReturn, 0, 0, log},
	)}
	for _, test := range []struct {
		number int
		arg    uint64
		want   bool
	}{
		{1, 0, true},
		{1, 4, true},
		{10, 0, true},
		{10, 3, true},
		{10, 4, false},
		{10, 7, false},
		{10, 4 << 32, true},
		{99, 0, true},
		{100, 0, true},
		{101, 0, false},
	} {
		if got := f.Allows(test.number, test.arg); got != test.want {
			t.Errorf("call %d with %#x: %v", test.number, test.arg, got)
		}
	}
}

// What cannot be made out is not allowed.
func TestAllowsNothingUnknown(t *testing.T) {
	for name, code := range map[string][]byte{
		"empty":               nil,
		"no end":              program([4]uint32{opLoad, 0, 0, 0}),
		"half an instruction": {6, 0, 0},
		"jump out":            program([4]uint32{opJump, 0, 0, 0xffffffff}),
		"pointer":             program([4]uint32{opLoad, 0, 0, 8}, [4]uint32{opReturn, 0, 0, 0x7fff0000}),
		"load beyond":         program([4]uint32{opLoad, 0, 0, 64}, [4]uint32{opReturn, 0, 0, 0x7fff0000}),
		"odd load":            program([4]uint32{opLoad, 0, 0, 2}, [4]uint32{opReturn, 0, 0, 0x7fff0000}),
		"division":            program([4]uint32{0x34, 0, 0, 1}, [4]uint32{opReturn, 0, 0, 0x7fff0000}),
	} {
		if f := (&Filter{BPF: code}); f.Allows(1) {
			t.Errorf("%s: allowed", name)
		}
	}
}
