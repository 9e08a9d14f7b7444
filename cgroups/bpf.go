package cgroups

import (
	"encoding/binary"
	"errors"
	"slices"
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
	opLoad   = unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM
	opMov    = unix.BPF_ALU64 | unix.BPF_K | unix.BPF_MOV
	opAnd    = unix.BPF_ALU64 | unix.BPF_K | unix.BPF_AND
	opOrReg  = unix.BPF_ALU64 | unix.BPF_X | unix.BPF_OR
	opShl    = unix.BPF_ALU64 | unix.BPF_K | unix.BPF_LSH
	opShr    = unix.BPF_ALU64 | unix.BPF_K | unix.BPF_RSH
	opJump   = unix.BPF_JMP | unix.BPF_JA
	opIfBits = unix.BPF_JMP | unix.BPF_K | unix.BPF_JSET
	opIfEq   = unix.BPF_JMP32 | unix.BPF_K | unix.BPF_JEQ
	opIfNe   = unix.BPF_JMP32 | unix.BPF_K | unix.BPF_JNE
	opExit   = unix.BPF_JMP | unix.BPF_EXIT
)

// Registers.
const (
	r0 = iota // the verdict
	r1        // the context
	r2        // what is being compared
	r3        // the accesses that no rule has decided yet
	r4        // scratch
)

// Offsets in struct bpf_cgroup_dev_ctx; the first field holds the type in 16
// bits and the access above them.
const ctxAccess, ctxMajor, ctxMinor = 0, 4, 8

// From enum bpf_cgroup_dev_type and BPF_DEVCG_ACC_*.
const (
	devBlock, devChar           = 1, 2
	accMknod, accRead, accWrite = 1, 2, 4
)

// minorBits is the width of a minor number in the kernel's dev_t.
const minorBits = 20

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

func regs(dst, src uint8) uint8 {
	if bigEndian {
		return dst<<4 | src
	}
	return src<<4 | dst
}

// maxGroup keeps jumps over a group of rules within their 16 bits.
const maxGroup = 4096

// assemble walks the rules from the last to the first. Each settles those of
// the requested accesses that no later rule has settled: a denied one ends the
// program with 0, and when all are allowed it ends with 1. Neighbours that
// differ only in the device share their tests: the kernel's verifier takes 2 µs
// for each branch, most of what attaching costs.
func assemble(rules []rule) []instruction {
	code := []instruction{
		{opLoad, regs(r3, r1), ctxAccess, 0},
		{opShr, regs(r3, 0), 0, 16},
	}
	for end := len(rules); end > 0; {
		begin := end - 1
		for begin > 0 && end-begin < maxGroup && rules[begin-1].like(rules[begin]) {
			begin--
		}
		group := rules[begin:end]
		code = append(code, assembleGroup(group)...)
		if slices.ContainsFunc(group, rule.total) {
			return code // what follows is unreachable, which the verifier refuses
		}
		end = begin
	}
	return append(code, verdict(0)...)
}

// like says that two rules differ only in the device's numbers.
func (r rule) like(o rule) bool {
	return r.allow == o.allow && r.kind == o.kind && r.access == o.access
}

func verdict(v int32) []instruction {
	return []instruction{{opMov, regs(r0, 0), 0, v}, {opExit, 0, 0, 0}}
}

// assembleGroup falls through to the next group where it decides nothing. It
// keeps nothing in registers for that: otherwise the verifier would follow
// "major was 8" and "major was not 8" apart to the end of the program, and 3000
// rules would exceed the million steps it allows.
func assembleGroup(group []rule) []instruction {
	body := group[0].body()
	var code []instruction
	if !slices.ContainsFunc(group, func(r rule) bool { return r.major == anyNumber && r.minor == anyNumber }) {
		code = numberTests(group)
		toBody(code)
		code = append(code, instruction{opJump, 0, int16(len(body)), 0})
	}
	code = append(kindTest(group[0].kind, len(code)+len(body)), code...)
	return append(code, body...)
}

// kindTest skips what follows for devices of the other kind.
func kindTest(kind byte, skip int) []instruction {
	want := kindNumber(kind)
	if want == 0 {
		return nil
	}
	return []instruction{
		{opLoad, regs(r2, r1), ctxAccess, 0},
		{opAnd, regs(r2, 0), 0, 0xffff},
		{opIfNe, regs(r2, 0), int16(skip), want},
	}
}

func kindNumber(kind byte) int32 {
	switch kind {
	case 'b':
		return devBlock
	case 'c':
		return devChar
	}
	return 0
}

// toBody lets every test jump behind the code, over the jump that leaves the group.
func toBody(code []instruction) {
	for i := range code {
		if code[i].op == opIfEq {
			code[i].off = int16(len(code) - i)
		}
	}
}

// numberTests compares the whole device number, the major and the minor, with
// those rules that name both, the one or the other.
func numberTests(group []rule) (code []instruction) {
	test := func(load []instruction, use func(r rule) (int64, bool)) {
		first := true
		for _, r := range group {
			n, ok := use(r)
			if !ok {
				continue
			}
			if first {
				code = append(code, load...)
				first = false
			}
			code = append(code, instruction{opIfEq, regs(r2, 0), 0, int32(uint32(n))})
		}
	}
	test([]instruction{
		{opLoad, regs(r2, r1), ctxMajor, 0},
		{opShl, regs(r2, 0), 0, minorBits},
		{opLoad, regs(r4, r1), ctxMinor, 0},
		{opOrReg, regs(r2, r4), 0, 0},
	}, func(r rule) (int64, bool) {
		return r.major<<minorBits | r.minor, r.major != anyNumber && r.minor != anyNumber
	})
	test([]instruction{{opLoad, regs(r2, r1), ctxMajor, 0}}, func(r rule) (int64, bool) {
		return r.major, r.minor == anyNumber
	})
	test([]instruction{{opLoad, regs(r2, r1), ctxMinor, 0}}, func(r rule) (int64, bool) {
		return r.minor, r.major == anyNumber
	})
	return code
}

// body decides on the devices that the tests let through.
func (r rule) body() []instruction {
	switch {
	case r.access == accAll && r.allow:
		return verdict(1)
	case r.access == accAll:
		return verdict(0)
	case r.allow:
		return []instruction{
			{opAnd, regs(r3, 0), 0, int32(^r.access)},
			{opMov, regs(r0, 0), 0, 1},
			{opIfNe, regs(r3, 0), 1, 0},
			{opExit, 0, 0, 0},
		}
	}
	return []instruction{
		{opMov, regs(r0, 0), 0, 0},
		{opIfBits, regs(r3, 0), 1, int32(r.access)},
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
