package libseccomp

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// data is a struct seccomp_data.
type data struct {
	nr, arch uint32
	args     [6]uint64
}

func (d *data) word(offset uint32) (uint32, error) {
	switch {
	case offset%4 != 0 || offset >= 64:
		return 0, fmt.Errorf("load from offset %d", offset)
	case offset == offNr:
		return d.nr, nil
	case offset == offArch:
		return d.arch, nil
	case offset < 16:
		return 0, nil // instruction pointer
	}
	arg := d.args[(offset-16)/8]
	if offset%8 == 4 {
		return uint32(arg >> 32), nil
	}
	return uint32(arg), nil
}

// run interprets the part of classic BPF that seccomp filters are made of, as
// net/core/filter.c and kernel/seccomp.c define it.
func run(prog []byte, d *data) (uint32, error) {
	var a uint32
	for pc, n := 0, len(prog)/8; pc < n; pc++ {
		in := prog[pc*8:]
		code, jt, jf, k := binary.NativeEndian.Uint16(in), int(in[2]), int(in[3]), binary.NativeEndian.Uint32(in[4:])
		var yes bool
		switch code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			var err error
			if a, err = d.word(k); err != nil {
				return 0, err
			}
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= k
			continue
		case unix.BPF_RET | unix.BPF_K:
			return k, nil
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == k
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			yes = a > k
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= k
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			yes = a&k != 0
		default:
			return 0, fmt.Errorf("instruction %d has code %#x", pc, code)
		}
		if yes {
			pc += jt
		} else {
			pc += jf
		}
	}
	return 0, fmt.Errorf("fell off the end")
}
