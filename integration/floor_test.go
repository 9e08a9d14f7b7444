package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The memory floor is the smallest limit, swap forbidden, under which a static
// program that does nothing runs, every time. What a runtime does in the container's
// cgroup before that program takes over counts against the limit. husk needs no more
// than crun.
func TestMemoryFloor(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "memory")
		b := newBundle(t, nil)
		runtimes := map[string][]string{"husk": {runtimePath()}}
		if crun := referenceCrun(); crun != "" {
			runtimes["crun"] = []string{crun}
		} else {
			t.Log("needs crun to compare with")
		}
		for _, how := range []string{"run", "create"} {
			floors := map[string]int64{}
			for name, command := range runtimes {
				floors[name] = memoryFloor(b, command, how)
				t.Logf("%s, %s true: %d KiB", name, how, floors[name]>>10)
			}
			if crun, ok := floors["crun"]; ok && floors["husk"] > crun {
				t.Errorf("%s true: husk needs %d KiB, crun %d KiB", how, floors["husk"]>>10, crun>>10)
			}
		}
		for name, command := range runtimes {
			anatomy(b, name, command)
		}
	})
}

func referenceCrun() string {
	if path := os.Getenv("CRUN"); path != "" {
		return path
	}
	path, _ := exec.LookPath("crun")
	return path
}

// anatomy logs what the kernel charges a container with while its init is parked, and
// when its process runs.
func anatomy(b *bundle, name string, runtime []string) {
	b.write(func(s *specs.Spec) {
		s.Process.Args = []string{"/probe", "hold"}
		s.Linux.CgroupsPath = "/floor"
		s.Linux.Resources = parseResources(b.t, `{"memory":{"limit":-1}}`)
	})
	defer quietly(b, runtime, "delete", "-f", "floor")
	for _, command := range []string{"create", "start"} {
		if !quietly(b, runtime, command, "floor") {
			b.t.Errorf("%s %s fails", name, command)
			return
		}
		g := &guest{bundle: b, id: "floor", group: "/floor"}
		text := fmt.Sprintf("%s, after %s: %d KiB, at most %d; of it", name, command, g.count("memory.current", "")>>10, g.count("memory.peak", "")>>10)
		for _, key := range []string{"anon", "file", "shmem", "kernel", "kernel_stack", "pagetables", "percpu", "slab", "sock"} {
			text += fmt.Sprintf(" %s %d", key, g.count("memory.stat", key)>>10)
		}
		b.t.Log(text)
	}
}

// memoryFloor bisects in steps of 16 KiB, up to the first power of two that does.
func memoryFloor(b *bundle, runtime []string, how string) int64 {
	const step, tries = 16 << 10, 3
	works := func(limit int64) bool {
		limitTo(b, limit)
		for range tries {
			if !runsTrue(b, runtime, how) {
				return false
			}
		}
		return true
	}
	low, high := int64(0), int64(256<<10)
	for ; high < 16<<20 && !works(high); high *= 2 {
		low = high
	}
	for high-low > step {
		if middle := (low + high) / 2 / step * step; works(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}

func limitTo(b *bundle, limit int64) {
	b.write(func(s *specs.Spec) {
		s.Process.Args = []string{"/bin/true"}
		s.Linux.CgroupsPath = "/floor"
		s.Linux.Resources = parseResources(b.t, fmt.Sprintf(`{"memory":{"limit":%d,"swap":%d}}`, limit, limit))
	})
}

// runsTrue says whether true ran and said so.
func runsTrue(b *bundle, runtime []string, how string) bool {
	defer quietly(b, runtime, "delete", "-f", "floor")
	if how == "run" {
		return quietly(b, runtime, "run", "floor")
	}
	if !quietly(b, runtime, "create", "floor") || !quietly(b, runtime, "start", "floor") {
		return false
	}
	g := &guest{bundle: b, id: "floor", group: "/floor"}
	g.ended()
	events, _ := os.ReadFile(g.file("memory.events"))
	return !strings.Contains(string(events), "oom_kill 1")
}

func quietly(b *bundle, runtime []string, args ...string) bool {
	cmd := exec.Command(runtime[0], append(runtime[1:len(runtime):len(runtime)], args...)...)
	cmd.Dir = b.dir
	return cmd.Run() == nil // output is discarded: it would keep a pipe open
}
