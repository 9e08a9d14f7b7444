package sandbox

import (
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Files of the workspace belong to its owner, root perhaps. A program there that is
// set-user-ID makes whoever executes it on the host that owner: no mount option of the
// job's prevents that, since it is the host that sees the bit. Who wants such programs, as
// in an image, gives the job CAP_FSETID.

// setIDCalls are the system calls that give a file its mode, with the arguments that are the
// mode and, if there are any, the flags that say whether there is one.
var setIDCalls = map[string]struct{ mode, flags uint }{
	"chmod": {mode: 1}, "fchmod": {mode: 1}, "fchmodat": {mode: 2}, "fchmodat2": {mode: 2},
	"creat": {mode: 1}, "open": {mode: 2, flags: 1}, "openat": {mode: 3, flags: 2},
	"mknod": {mode: 1}, "mknodat": {mode: 2},
}

// makes are the flags of open(2) that make a file.
const makes = unix.O_CREAT | unix.O_TMPFILE&^unix.O_DIRECTORY

// forbidSetID takes calls that would set one of these bits out of a profile that allows
// them. The mode that openat2(2) gives is in memory, where no filter sees it: programs are
// to fall back on openat.
func forbidSetID(p *specs.LinuxSeccomp, bits uint64) {
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(name string) bool {
			_, ok := setIDCalls[name]
			return ok || name == "openat2"
		})
	}
	allow := func(name string, arg uint, mask uint64) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{name}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: arg, Value: mask, Op: specs.OpMaskedEqual}},
		})
	}
	for _, name := range slices.Sorted(maps.Keys(setIDCalls)) {
		c := setIDCalls[name]
		allow(name, c.mode, bits)
		if c.flags != 0 {
			allow(name, c.flags, makes)
		}
	}
	missing := uint(unix.ENOSYS)
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"openat2"}, Action: specs.ActErrno, ErrnoRet: &missing})
}
