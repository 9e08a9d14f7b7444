package seccomp

import (
	"encoding/binary"
	"runtime"
)

// Allows says whether the filter would let a system call with these arguments pass. It
// errs on the side of no: about what it cannot make out, and where the answer depends on
// where in memory the call is made from.
func (f *Filter) Allows(number int, args ...uint64) bool {
	action := f.decide(number, args)
	return action == retAllow || action == retLog
}

// Notifies says whether the filter would ask its listener about such a call.
func (f *Filter) Notifies(number int, args ...uint64) bool {
	return f.decide(number, args) == retNotify
}

// The actions of a filter, without their data.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retActionMask  = 0xffff0000
)

// decide runs the filter on a call of this machine's architecture; what it cannot make
// out is killed.
func (f *Filter) decide(number int, args []uint64) (action uint32) {
	return f.judge(auditArch(), uint32(number), args)
}

func (f *Filter) judge(arch, number uint32, args []uint64) (action uint32) {
	return f.verdict(arch, number, args) & retActionMask
}

// verdict is the action with its data.
func (f *Filter) verdict(arch, number uint32, args []uint64) uint32 {
	var data [64]byte // struct seccomp_data: nr, arch, instruction pointer, six arguments
	order := binary.NativeEndian
	order.PutUint32(data[:], number)
	order.PutUint32(data[4:], arch)
	for i, arg := range args {
		order.PutUint64(data[16+8*i:], arg)
	}
	action, ok := f.run(data[:])
	if !ok {
		return retKillProcess
	}
	return action
}

// auditArch is AUDIT_ARCH_* of the machine, 0 if it is none that we know.
func auditArch() uint32 {
	switch runtime.GOARCH {
	case "amd64":
		return 0xc000003e
	case "arm64":
		return 0xc00000b7
	case "riscv64":
		return 0xc00000f3
	case "loong64":
		return 0xc0000102
	case "ppc64le":
		return 0xc0000015
	case "s390x":
		return 0x80000016
	}
	return 0
}

// The instructions of classic BPF that compilers of seccomp filters use.
const (
	opLoad    = 0x20 // BPF_LD|BPF_W|BPF_ABS
	opAnd     = 0x54 // BPF_ALU|BPF_AND|BPF_K
	opJump    = 0x05 // BPF_JMP|BPF_JA
	opEqual   = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	opAbove   = 0x25 // BPF_JMP|BPF_JGT|BPF_K
	opAtLeast = 0x35 // BPF_JMP|BPF_JGE|BPF_K
	opBits    = 0x45 // BPF_JMP|BPF_JSET|BPF_K
	opReturn  = 0x06 // BPF_RET|BPF_K
)

// run interprets the program over the data of a call. Jumps only lead forward, so it ends.
func (f *Filter) run(data []byte) (action uint32, ok bool) {
	var a uint32
	order := binary.NativeEndian
	for pc := 0; pc >= 0 && (pc+1)*instructionSize <= len(f.BPF); pc++ {
		in := f.BPF[pc*instructionSize:]
		code, yes, no, k := order.Uint16(in), int(in[2]), int(in[3]), order.Uint32(in[4:])
		var taken bool
		switch code {
		case opLoad:
			if k%4 != 0 || int(k)+4 > len(data) || k == 8 || k == 12 {
				return 0, false
			}
			a = order.Uint32(data[k:])
			continue
		case opAnd:
			a &= k
			continue
		case opJump:
			pc += int(k)
			continue
		case opReturn:
			return k, true
		case opEqual:
			taken = a == k
		case opAbove:
			taken = a > k
		case opAtLeast:
			taken = a >= k
		case opBits:
			taken = a&k != 0
		default:
			return 0, false
		}
		if taken {
			pc += yes
		} else {
			pc += no
		}
	}
	return 0, false
}
