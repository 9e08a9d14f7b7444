package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A plan travels in batches. Any number of steps arrives, with descriptors or
// without, and hooks in the middle of it find parent and child in step.
func TestPlanSizes(t *testing.T) {
	box(t, func(t *testing.T) {
		step := 1
		if testing.Short() {
			step = 3
		}
		b := newBundle(t, nil)
		for n := 0; n <= 40; n += step {
			for _, kind := range []string{"bind", "tmpfs"} {
				for _, hooks := range []bool{false, true} {
					b.write(func(s *specs.Spec) { planOf(s, n, kind, hooks) })
					if r := b.husk("run", "c1"); r.code != 0 || strings.TrimSpace(r.stdout) != itoa(n) {
						t.Errorf("%d %s mounts, hooks %v: exit %d: %s%s", n, kind, hooks, r.code, r.stdout, r.stderr)
					}
				}
			}
		}
	})
}

func planOf(s *specs.Spec, n int, kind string, hooks bool) {
	for i := range n {
		m := specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/m/" + itoa(i)}
		if kind == "bind" {
			m = specs.Mount{Type: "bind", Source: "/etc", Destination: "/m/" + itoa(i), Options: []string{"bind"}}
		}
		s.Mounts = append(s.Mounts, m)
	}
	s.Process.Args = []string{"/bin/sh", "-c", "grep -c ' /m/' /proc/self/mountinfo || true"}
	if hooks {
		h := []specs.Hook{{Path: "/bin/true", Args: []string{"true"}}}
		//lint:ignore SA1019 deprecated hooks have to run
		s.Hooks = &specs.Hooks{Prestart: h, CreateRuntime: h, CreateContainer: h}
	}
}

// Creating goes on where it was in the plan when the parent is slow: a hook that
// takes its time does not run into a deadline of the child.
func TestPlanSlowHook(t *testing.T) {
	box(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes twelve seconds")
		}
		b := newBundle(t, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "12"}}}}
			s.Process.Args = []string{"/bin/true"}
		})
		b.must("run", "c1")
		if _, err := os.Stat("/run/husk/c1"); err == nil {
			t.Error("state is left")
		}
	})
}
