package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const mib = 1 << 20

func needSwap(t *testing.T) {
	t.Helper()
	if strings.Count(readString(t, "/proc/swaps"), "\n") == 0 {
		t.Skip("needs swap")
	}
}

// The limit on memory, alone and with swap: below it all is well, above it the
// kernel kills, and counts that it did.
func TestLimitMemory(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "memory")
		r := newRoom(t)
		below := r.guest("below", `{"memory":{"limit":33554432,"swap":33554432}}`, "memory", itoa(24*mib))
		below.reads("memory.max", "33554432", "memory.swap.max", "0")
		below.said("ready")
		if below.count("memory.events", "oom_kill") != 0 || below.count("memory.current", "") < 24*mib {
			t.Error("not what it took:", readString(t, below.file("memory.events")), readString(t, below.file("memory.current")))
		}
		above := r.guest("above", `{"memory":{"limit":33554432,"swap":33554432}}`, "memory", itoa(48*mib))
		above.ended()
		within(t, "MiB touched below a limit of 32", float64(above.lastNumber("touched")), 24, 32)
		if above.remains() && (above.count("memory.events", "oom_kill") == 0 || above.count("memory.events", "max") == 0) {
			t.Error("not counted:", readString(t, above.file("memory.events")))
		}
		// In the foreground husk says what the limit was, unless systemd was faster to
		// remove the group that tells, which it is not always.
		killed := r.prepare("/killed", `{"memory":{"limit":33554432,"swap":33554432}}`, nil, "memory", itoa(48*mib))
		const want = "memory limit of 33554432 bytes has killed 1 process of the container; its peak was 3"
		got := killed.husk("run", "killed")
		for try := 1; systemdDriver && try < 20 && !strings.Contains(got.stderr, want); try++ {
			got = killed.husk("run", "killed")
		}
		if got.code != 137 || !strings.Contains(got.stderr, want) {
			t.Errorf("exit %d: no %q in %s", got.code, want, got.stderr)
		}
		// Only a child dies; the container goes on.
		child := r.guest("child", `{"memory":{"limit":33554432,"swap":33554432}}`, "child", itoa(48*mib))
		if out := child.said("ready"); !strings.Contains(out, "child 137") {
			t.Errorf("it said %q", out)
		}
		// Unless all are to die together.
		group := r.guest("group", `{"memory":{"limit":33554432,"swap":33554432},"unified":{"memory.oom.group":"1"}}`, "child", itoa(48*mib))
		group.ended()
		if group.remains() {
			group.reads("memory.oom.group", "1")
			if group.count("memory.events", "oom_group_kill") == 0 {
				t.Error("not counted:", readString(t, group.file("memory.events")))
			}
		}
	})
}

// Memory and swap together: what does not fit into memory is swapped out, up to that limit.
func TestLimitSwap(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "memory")
		needSwap(t)
		r := newRoom(t)
		below := r.guest("below", `{"memory":{"limit":16777216,"swap":50331648}}`, "memory", itoa(32*mib))
		below.reads("memory.max", "16777216", "memory.swap.max", "33554432")
		below.said("ready")
		if below.empty() {
			t.Error("it was killed: ", readString(t, below.file("memory.events")))
		}
		within(t, "MiB in swap of 32 taken, 16 in memory", float64(below.count("memory.swap.current", ""))/mib, 14, 32)
		above := r.guest("above", `{"memory":{"limit":16777216,"swap":50331648}}`, "memory", itoa(64*mib))
		above.ended()
		within(t, "MiB touched below a limit of 48", float64(above.lastNumber("touched")), 36, 48)
		if above.remains() && above.count("memory.events", "oom_kill") == 0 {
			t.Error("not counted:", readString(t, above.file("memory.events")))
		}
		free := r.guest("free", `{"memory":{"limit":16777216,"swap":-1}}`, "memory", itoa(64*mib))
		free.reads("memory.swap.max", "max")
		free.said("ready")
		if free.empty() {
			t.Error("killed with all the swap there is")
		}
	})
}

// Two containers of a group that is too small for both: the one with a reservation
// keeps its memory, the other pays. Without a reservation the first one pays too.
func TestLimitMemoryLow(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "memory")
		needSwap(t)
		r := newRoom(t)
		pod(t, map[string]string{"memory.max": "67108864"})
		for _, c := range []struct {
			resources string
			low       string
			least     float64
			most      float64
		}{
			{`{"memory":{"reservation":37748736}}`, "37748736", 30, 40},
			{`{}`, "0", 0, 28},
		} {
			first := r.guestAs("/pod/first", c.resources, nil, "memory", itoa(32*mib))
			first.reads("memory.low", c.low)
			first.said("ready")
			second := r.guestAs("/pod/second", `{}`, nil, "churn", itoa(64*mib))
			second.said("ready")
			time.Sleep(time.Second)
			within(t, "MiB that the first keeps of 32 with reservation "+c.low, float64(first.count("memory.current", ""))/mib, c.least, c.most)
			within(t, "MiB of the second in swap", float64(second.count("memory.swap.current", ""))/mib, 1, 66)
			first.gone()
			second.gone()
		}
	})
}

// pod makes a group that containers are put into, with these limits.
func pod(t *testing.T, limits map[string]string) {
	t.Helper()
	if systemdDriver {
		t.Skip("a pod of systemd is a slice, whose limits are not husk's")
	}
	const dir = "/sys/fs/cgroup/pod"
	all := strings.Fields(readString(t, "/sys/fs/cgroup/cgroup.controllers"))
	must(t, os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+"+strings.Join(all, " +")), 0))
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { must(t, os.Remove(dir)) })
	must(t, os.WriteFile(dir+"/cgroup.subtree_control", []byte("+"+strings.Join(all, " +")), 0))
	for file, value := range limits {
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(value), 0))
	}
}

// Above memory.high a process is slowed down until it hardly moves, not killed.
func TestLimitMemoryHigh(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "memory")
		r := newRoom(t)
		g := r.guest("high", `{"unified":{"memory.high":"16777216","memory.swap.max":"0"}}`, "memory", itoa(64*mib))
		g.reads("memory.high", "16777216", "memory.swap.max", "0")
		g.said("touched 14")
		time.Sleep(3 * time.Second)
		if g.empty() {
			t.Error("it was killed")
		}
		within(t, "MiB touched in three seconds above a high of 16", float64(g.lastNumber("touched")), 14, 40)
		if g.count("memory.events", "high") == 0 || g.count("memory.events", "oom_kill") != 0 {
			t.Error("not counted:", readString(t, g.file("memory.events")))
		}
	})
}
