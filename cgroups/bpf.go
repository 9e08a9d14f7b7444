package cgroups

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// instruction is struct bpf_insn (linux/bpf.h).
type instruction struct {
	op   uint8
	regs uint8 // destination and source, in the order of the machine's bit fields
	off  int16
	imm  int32
}

// Opcodes: class | source | operation (Documentation/bpf/standardization).
const (
	opLoad32   = unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM
	opMovReg   = unix.BPF_ALU64 | unix.BPF_X | unix.BPF_MOV
	opMov      = unix.BPF_ALU64 | unix.BPF_K | unix.BPF_MOV
	opAnd      = unix.BPF_ALU64 | unix.BPF_K | unix.BPF_AND
	opShr      = unix.BPF_ALU64 | unix.BPF_K | unix.BPF_RSH
	opJump     = unix.BPF_JMP | unix.BPF_JA
	opJumpSet  = unix.BPF_JMP | unix.BPF_K | unix.BPF_JSET
	opJumpNe32 = unix.BPF_JMP32 | unix.BPF_K | unix.BPF_JNE
	opExit     = unix.BPF_JMP | unix.BPF_EXIT
)

// Registers. The context is struct bpf_cgroup_dev_ctx: access_type, major and
// minor, each 32 bits; access_type is the access shifted by 16 and the type.
const (
	regResult = 0
	regCtx    = 1
	regType   = 2
	regAccess = 3 // what no rule has decided yet
	regMajor  = 4
	regMinor  = 5
)

// From enum bpf_cgroup_dev_type and BPF_DEVCG_ACC_*.
const (
	devBlock, devChar           = 1, 2
	accMknod, accRead, accWrite = 1, 2, 4
)

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

func regs(dst, src uint8) uint8 {
	if bigEndian {
		return dst<<4 | src
	}
	return src<<4 | dst
}

// assemble walks the rules from the last to the first. Each settles those of
// the requested accesses that no later rule has settled: a denied one ends the
// program with 0, and when all are allowed it ends with 1.
func assemble(rules []rule) []instruction {
	code := []instruction{
		{opLoad32, regs(regType, regCtx), 0, 0},
		{opMovReg, regs(regAccess, regType), 0, 0},
		{opAnd, regs(regType, 0), 0, 0xffff},
		{opShr, regs(regAccess, 0), 0, 16},
		{opLoad32, regs(regMajor, regCtx), 4, 0},
		{opLoad32, regs(regMinor, regCtx), 8, 0},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		code = append(code, rules[i].assemble()...)
		if rules[i].total() {
			return code // what follows is unreachable, which the verifier refuses
		}
	}
	return append(code, verdict(0)...)
}

func verdict(v int32) []instruction {
	return []instruction{{opMov, regs(regResult, 0), 0, v}, {opExit, 0, 0, 0}}
}

// assemble of a rule falls through to the next where it decides nothing.
func (r rule) assemble() []instruction {
	body := r.body()
	tests := r.tests()
	for i := range tests {
		tests[i].off = int16(len(tests) - 1 - i + len(body))
	}
	return append(tests, body...)
}

// tests leave the rule if the device is not the one it names.
func (r rule) tests() (code []instruction) {
	switch r.kind {
	case 'b':
		code = append(code, instruction{opJumpNe32, regs(regType, 0), 0, devBlock})
	case 'c':
		code = append(code, instruction{opJumpNe32, regs(regType, 0), 0, devChar})
	}
	if r.major != anyNumber {
		code = append(code, instruction{opJumpNe32, regs(regMajor, 0), 0, int32(uint32(r.major))})
	}
	if r.minor != anyNumber {
		code = append(code, instruction{opJumpNe32, regs(regMinor, 0), 0, int32(uint32(r.minor))})
	}
	return code
}

func (r rule) body() []instruction {
	switch {
	case r.access == accAll && r.allow:
		return verdict(1)
	case r.access == accAll:
		return verdict(0)
	case r.allow:
		return []instruction{
			{opAnd, regs(regAccess, 0), 0, int32(^r.access)},
			{opMov, regs(regResult, 0), 0, 1},
			{opJumpNe32, regs(regAccess, 0), 1, 0},
			{opExit, 0, 0, 0},
		}
	}
	return []instruction{
		{opMov, regs(regResult, 0), 0, 0},
		{opJumpSet, regs(regAccess, 0), 1, int32(r.access)},
		{opJump, 0, 1, 0},
		{opExit, 0, 0, 0},
	}
}

// The attributes of bpf(2) as structures of exactly the fields we set, each in
// full-size zeroed memory: kernels 6.17 and newer write the fields of
// BPF_PROG_QUERY that they know of, whatever size they were told. Pointers are
// typed so that the garbage collector knows them, which makes the layout that
// of 64-bit machines; others do not compile.
const attrSize = 256

const _ = uint(unsafe.Sizeof(uintptr(0)) - 8)

type loadAttr struct {
	progType, insnCnt       uint32
	insns                   *instruction
	license                 *byte
	logLevel, logSize       uint32
	logBuf                  *byte
	kernVersion, flags      uint32
	name                    [16]byte
	ifindex, expectedAttach uint32
	_                       [attrSize - 72]byte
}

type attachAttr struct {
	target, prog, attachType, flags, replace uint32
	_                                        [attrSize - 20]byte
}

type queryAttr struct {
	target, attachType, queryFlags, attachFlags uint32
	ids                                         *uint32
	count                                       uint32
	_                                           [attrSize - 28]byte
}

type idAttr struct {
	id uint32
	_  [attrSize - 4]byte
}

func bpf(cmd uintptr, attr unsafe.Pointer) (int, error) {
	for try := 0; ; try++ {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), attrSize)
		switch {
		case errno == 0:
			return int(r), nil
		case errno == unix.EINTR, errno == unix.EAGAIN && try < 100:
			// The verifier gives up when a signal is pending, such as Go's preemption.
			continue
		}
		return -1, errno
	}
}

func loadProgram(code []instruction) (fd int, err error) {
	if len(code) == 0 {
		return -1, errors.New("the program is empty: it does not come from CompileDevices")
	}
	license := []byte("Apache-2.0\x00")
	attr := loadAttr{
		progType:       unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		insnCnt:        uint32(len(code)),
		insns:          &code[0],
		license:        &license[0],
		expectedAttach: unix.BPF_CGROUP_DEVICE,
	}
	copy(attr.name[:], "husk_devices")
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr))
}

// attachProgram adds prog to group, or puts it in the place of replace.
// ALLOW_MULTI lets the programs of groups above and below apply as well.
func attachProgram(group, prog, replace int) error {
	attr := attachAttr{
		target:     uint32(group),
		prog:       uint32(prog),
		attachType: unix.BPF_CGROUP_DEVICE,
		flags:      unix.BPF_F_ALLOW_MULTI,
	}
	if replace >= 0 {
		attr.flags |= unix.BPF_F_REPLACE
		attr.replace = uint32(replace)
	}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr))
	return err
}

func detachProgram(group, prog int) error {
	attr := attachAttr{target: uint32(group), prog: uint32(prog), attachType: unix.BPF_CGROUP_DEVICE}
	_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr))
	return err
}

// queryPrograms lists the device programs attached to group itself. The kernel
// allows 64 (BPF_CGROUP_MAX_PROGS).
func queryPrograms(group int) ([]uint32, error) {
	ids := make([]uint32, 64)
	attr := queryAttr{
		target:     uint32(group),
		attachType: unix.BPF_CGROUP_DEVICE,
		ids:        &ids[0],
		count:      uint32(len(ids)),
	}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr))
	if err != nil {
		return nil, err
	}
	return ids[:min(int(attr.count), len(ids))], nil
}

func programByID(id uint32) (fd int, err error) {
	attr := idAttr{id: id}
	return bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr))
}
