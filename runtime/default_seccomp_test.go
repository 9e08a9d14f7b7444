package runtime

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/huskrun/husk/seccomp"
)

func TestDefaultSeccomp(t *testing.T) {
	p := defaultSeccomp(defaultCapabilities())
	if err := seccomp.Check(p); err != nil {
		t.Error(err)
	}
	if !slices.IsSorted(allowedCalls) || len(slices.Compact(slices.Clone(allowedCalls))) != len(allowedCalls) {
		t.Error("the list is not sorted, or has something twice")
	}
	// What gives away the container, or is filtered by its arguments below.
	for _, name := range []string{
		"mount", "umount2", "pivot_root", "move_mount", "fsopen", "open_tree", "setns", "unshare", "bpf", "perf_event_open",
		"userfaultfd", "io_uring_setup", "keyctl", "open_by_handle_at", "init_module", "finit_module", "kexec_load", "reboot",
		"swapon", "settimeofday", "clock_settime", "syslog", "quotactl", "acct", "ioperm", "iopl", "clone", "clone3",
		"personality", "socket",
	} {
		if _, found := slices.BinarySearch(allowedCalls, name); found {
			t.Errorf("%s is allowed without condition", name)
		}
	}
	for _, r := range p.Syscalls[1:] {
		if r.Action == specs.ActAllow && len(r.Args) != 1 && !slices.Equal(r.Names, []string{"chroot"}) {
			t.Errorf("%q is allowed without condition", r.Names)
		}
	}
	if p.DefaultAction != specs.ActErrno {
		t.Errorf("default %s", p.DefaultAction)
	}
}

// A capability brings the calls that it is for, and nothing else.
func TestDefaultSeccompFollowsCapabilities(t *testing.T) {
	bare := defaultSeccomp(nil)
	for i, c := range capabilityCalls {
		if _, known := capNumber(c.name); !known || i > 0 && c.name <= capabilityCalls[i-1].name || !slices.IsSorted(c.calls) {
			t.Errorf("%s is unknown, or not in its place", c.name)
		}
		p := defaultSeccomp([]string{c.name})
		if !slices.Equal(p.Syscalls[1].Names, c.calls) || p.Syscalls[1].Args != nil {
			t.Errorf("%s: %v", c.name, p.Syscalls[1])
		}
		for _, name := range c.calls {
			if slices.ContainsFunc(bare.Syscalls, func(r specs.LinuxSyscall) bool {
				return r.Action == specs.ActAllow && r.Args == nil && slices.Contains(r.Names, name)
			}) {
				t.Errorf("%s is allowed without %s", name, c.name)
			}
		}
		if err := seccomp.Check(p); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDefaultSeccompIsNotShared(t *testing.T) {
	a := defaultSeccomp(defaultCapabilities())
	*a.DefaultErrnoRet = 99
	a.Architectures = append(a.Architectures, "x")
	if b := defaultSeccomp(defaultCapabilities()); *b.DefaultErrnoRet == 99 {
		t.Error("two profiles share a value")
	}
}

func TestSeccompArches(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64", "s390x", "riscv64", "ppc64le"} {
		for _, a := range seccompArches(goarch) {
			if _, ok := seccomp.LookupArch(a); !ok {
				t.Errorf("%s: %s", goarch, a)
			}
		}
	}
}
