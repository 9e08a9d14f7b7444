package integration

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What the kernel refuses between start and execve is told by start and by run, with a
// shell's exit status for a command that cannot be executed.
func TestStartReportsRefusedCalls(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			probeArgs("hold")(s)
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"personality"}, Action: specs.ActErrno}}}
		})
		for _, c := range []struct {
			call  injection
			field string
		}{
			{injection{"seccomp", unix.SYS_SECCOMP, 1}, "/linux/seccomp"},
			{injection{"setresuid", unix.SYS_SETRESUID, 1}, "/process/user"},
			{injection{"capset", unix.SYS_CAPSET, 1}, "/process/capabilities"},
			{injection{"execve", unix.SYS_EXECVE, 1}, "/process/args/0"},
		} {
			r, injected := b.fail(b.prepare(child, "start"), child, c.call, unix.EINVAL, "start", "c1")
			want := "husk: error: start c1: " + c.field
			if !injected || r.code != 126 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "invalid argument") {
				t.Errorf("%s: injected %v, exit status %d: %s, want %s", c.call.name, injected, r.code, r.stderr, want)
			}
			b.must("delete", "-f", "c1")
		}
	})
}
