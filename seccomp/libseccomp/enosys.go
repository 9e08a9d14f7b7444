package libseccomp

import (
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	scmp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/huskrun/husk/seccomp"
)

// A profile can only speak about the system calls its author knew. To a call
// that came later it answers with its default, mostly EPERM, and then libraries
// that would fall back on ENOSYS fail instead (faccessat2, clone3, … broke
// containers on every such occasion). So a prologue in front of libseccomp's
// program answers calls with a higher number than any the profile names, or that
// no profile can know: it tests the architecture, then the number, and either
// returns or falls through. For each architecture:
//
//	ld arch; jne AUDIT_ARCH next
//	ld nr;   jlt LOWEST next    old calls leave here
//	jge CEILING next            numbers above belong to something else
//	jeq N   ret ACTION          for each rule about a call newer than libseccomp
//	jgt NEWEST  ret ENOSYS
//
// The last line is left out where it would change nothing or forbid what the
// default permits. The prologue looks at nothing but architecture and number, so
// the kernel's table of calls that are always allowed (Linux 5.11) stays as good.

// archStub is what the prologue does for one architecture.
type archStub struct {
	seccomp.Arch
	token  scmp.ScmpArch
	newest uint32 // largest number the profile names
	named  bool   // whether it names any
	newer  []newerRule
}

type newerRule struct{ nr, ret uint32 }

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

// Offsets in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
)

// prologue assembles the blocks of all architectures.
func prologue(arches []archStub, enosys bool) []byte {
	var prog []unix.SockFilter
	for i := range arches {
		prog = append(prog, arches[i].block(enosys)...)
	}
	if len(prog) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), len(prog)*8)
}

// block is the part for one architecture.
func (a *archStub) block(enosys bool) []unix.SockFilter {
	var body []unix.SockFilter
	lowest := a.newest + 1
	for _, r := range a.newer {
		lowest = min(lowest, r.nr)
		body = append(body, test(unix.BPF_JEQ, r.nr, 0, 1), give(r.ret))
	}
	if enosys {
		body = append(body, test(unix.BPF_JGT, a.newest, 0, 1), give(retENOSYS))
	}
	if len(body) == 0 || !a.named {
		return nil
	}
	if a.Ceiling != 0 {
		body = append([]unix.SockFilter{test(unix.BPF_JGE, a.Ceiling, uint8(len(body)), 0)}, body...)
	}
	end := uint8(len(body))
	return append([]unix.SockFilter{
		load(offArch), test(unix.BPF_JEQ, a.Audit, 0, end+2),
		load(offNr), test(unix.BPF_JGE, lowest, 0, end),
	}, body...)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// test compares the loaded value with k and skips yes or no instructions.
func test(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func give(ret uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: ret}
}
