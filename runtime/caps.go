package runtime

import (
	"math/bits"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// capNames are the capabilities of linux/capability.h, indexed by their numbers.
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
	"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// capNumber returns the number of a capability, and false for an unknown name.
func capNumber(name string) (int, bool) {
	for i, n := range capNames {
		if n == name {
			return i, true
		}
	}
	return 0, false
}

// capMask makes a bit mask of names. Unknown ones, which the spec wants warned about
// and not failed on, are left out; validation has named them.
func capMask(names []string) (mask int64) {
	for _, name := range names {
		if n, ok := capNumber(name); ok {
			mask |= 1 << n
		}
	}
	return mask
}

func capList(mask int64) string {
	if mask == 0 {
		return "none"
	}
	var names []string
	for m := uint64(mask); m != 0; m &= m - 1 {
		if n := bits.TrailingZeros64(m); n < len(capNames) {
			names = append(names, strings.ToLower(strings.TrimPrefix(capNames[n], "CAP_")))
		}
	}
	return strings.Join(names, ",")
}

// permitted returns the calling thread's permitted set.
func permitted() (int64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, err
	}
	return int64(data[0].Permitted) | int64(data[1].Permitted)<<32, nil
}

// ungrantable warns of capabilities that the container asks for and that husk itself
// lacks, but for those that were told already: what exec prints becomes the answer of a
// probe. The spec wants that to be no failure. A new user namespace has them all.
func (p *Plan) ungrantable(told int64) []string {
	have, err := permitted()
	k := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Op == opCaps })
	if err != nil || k < 0 || p.isNew(unix.CLONE_NEWUSER) {
		return nil
	}
	if missing := p.Steps[k].Nums[1] &^ (have | told); missing != 0 {
		return []string{"/process/capabilities/permitted: husk itself lacks " + capList(missing) + ", which the process will not get"}
	}
	return nil
}

// setCaps sets the thread's capability sets. What the thread does not have cannot be
// granted and is left out: the spec asks for no failure then.
func setCaps(effective, permit, inheritable int64) error {
	have, err := permitted()
	if err != nil {
		return err
	}
	permit &= have
	effective &= permit
	inheritable &= have
	if err := capset(effective, permit, inheritable); err != nil {
		return err
	}
	// An init without a uid 0 in its user namespace came to its capabilities this way.
	return prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0)
}

func capset(effective, permit, inheritable int64) error {
	header, data := capData(effective, permit, inheritable)
	return unix.Capset(header, &data[0])
}

// capData is what capset(2) takes.
func capData(effective, permit, inheritable int64) (*unix.CapUserHeader, *[2]unix.CapUserData) {
	return &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &[2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permit), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permit >> 32), Inheritable: uint32(inheritable >> 32)},
	}
}

// dropBounding drops every capability that keep does not hold from the bounding set.
// The kernel may know more than capNames does: it answers EINVAL after its last one.
func dropBounding(keep int64) error {
	for n := range 64 {
		if keep&(1<<n) != 0 {
			continue
		}
		err := prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0)
		if err == unix.EINVAL {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// raiseAmbient raises each capability on its own: one that is not both permitted and
// inheritable is refused, which the spec wants warned about and not failed on.
func raiseAmbient(mask int64) {
	for m := uint64(mask); m != 0; m &= m - 1 {
		_ = prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(bits.TrailingZeros64(m)))
	}
}

// rlimits are the resource limits that config.json may name.
var rlimits = [...]struct {
	name     string
	resource int
}{
	{"RLIMIT_AS", unix.RLIMIT_AS},
	{"RLIMIT_CORE", unix.RLIMIT_CORE},
	{"RLIMIT_CPU", unix.RLIMIT_CPU},
	{"RLIMIT_DATA", unix.RLIMIT_DATA},
	{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE},
	{"RLIMIT_LOCKS", unix.RLIMIT_LOCKS},
	{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK},
	{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE},
	{"RLIMIT_NICE", unix.RLIMIT_NICE},
	{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE},
	{"RLIMIT_NPROC", unix.RLIMIT_NPROC},
	{"RLIMIT_RSS", unix.RLIMIT_RSS},
	{"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO},
	{"RLIMIT_RTTIME", unix.RLIMIT_RTTIME},
	{"RLIMIT_SIGPENDING", unix.RLIMIT_SIGPENDING},
	{"RLIMIT_STACK", unix.RLIMIT_STACK},
}

// rlimitResource returns the number of a resource limit, -1 for an unknown name.
func rlimitResource(name string) int {
	for _, r := range rlimits {
		if r.name == name {
			return r.resource
		}
	}
	return -1
}
