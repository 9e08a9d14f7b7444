package integration

import (
	"strings"
	"testing"
	"time"
)

func (g *guest) cpuTime() uint64 { return g.count("cpu.stat", "usage_usec") }

// A quota of 20 ms in 100 is 20% of a CPU, for one process as for four.
func TestLimitCPUQuota(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "cpu")
		r := newRoom(t)
		one := r.guest("one", `{"cpu":{"quota":20000,"period":100000}}`, "cpu", "1")
		four := r.guest("four", `{"cpu":{"quota":10000,"period":50000}}`, "cpu", "4")
		one.reads("cpu.max", "20000 100000")
		four.reads("cpu.max", "10000 50000")
		one.said("ready")
		four.said("ready")
		settles(t, "one process, % of a CPU", 17, 23, func() float64 { return rates(3, time.Second, one.cpuTime)[0] / 1e4 })
		settles(t, "four processes, % of a CPU", 17, 23, func() float64 { return rates(3, time.Second, four.cpuTime)[0] / 1e4 })
		if one.count("cpu.stat", "nr_throttled") == 0 || one.count("cpu.stat", "throttled_usec") == 0 {
			t.Error("not counted as throttled")
		}
	})
}

// Two hogs on one CPU share it by their weights. 2440 shares are the weight 200.
func TestLimitCPUWeight(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "cpu", "cpuset")
		r := newRoom(t)
		// First the idle one: beside others it would hardly get through its start.
		idle := r.guest("idle", `{"cpu":{"idle":1,"cpus":"0"}}`, "cpu", "1")
		idle.reads("cpu.idle", "1")
		idle.said("ready")
		within(t, "idle alone, % of a CPU", rates(3, time.Second, idle.cpuTime)[0]/1e4, 70, 101)
		two := r.guest("two", `{"cpu":{"shares":2440,"cpus":"0"}}`, "cpu", "1")
		one := r.guest("one", `{"cpu":{"shares":1024,"cpus":"0"}}`, "cpu", "1")
		two.reads("cpu.weight", "200")
		one.reads("cpu.weight", "100")
		two.said("ready")
		one.said("ready")
		settles(t, "weights 200 and 100", 1.8, 2.2, func() float64 {
			return ratio(3, time.Second, two.cpuTime, one.cpuTime)
		})
		// An idle group gets what the others leave: next to nothing.
		within(t, "idle against weight 200", ratio(3, time.Second, idle.cpuTime, two.cpuTime), 0, 0.05)
	})
}

// A burst lets a group that rested compute for longer than its quota.
func TestLimitCPUBurst(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "cpu")
		r := newRoom(t)
		// 35 ms after a rest of some periods: within quota and burst, not within quota.
		bursts := r.guest("bursts", `{"cpu":{"quota":20000,"period":100000,"burst":20000}}`, "burst", "35", "450")
		not := r.guest("not", `{"cpu":{"quota":20000,"period":100000}}`, "burst", "35", "450")
		bursts.reads("cpu.max.burst", "20000", "cpu.max", "20000 100000")
		not.reads("cpu.max.burst", "0")
		bursts.said("ready")
		not.said("ready")
		time.Sleep(4 * time.Second)
		n, usec := bursts.count("cpu.stat", "nr_bursts"), bursts.count("cpu.stat", "burst_usec")
		t.Logf("%d bursts of %d µs together", n, usec)
		if n == 0 || usec == 0 || not.count("cpu.stat", "nr_bursts") != 0 {
			t.Error("the burst is not used")
		}
	})
}

// A cpuset keeps a container on its CPUs and its memory nodes.
func TestLimitCPUSet(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "cpuset")
		if strings.TrimSpace(readString(t, "/sys/devices/system/cpu/online")) == "0" {
			t.Skip("needs two CPUs")
		}
		r := newRoom(t)
		g := r.guest("last", `{"cpu":{"cpus":"1"}}`, "where", "1")
		g.reads("cpuset.cpus", "1", "cpuset.cpus.effective", "1")
		if out := g.said("ready"); !strings.Contains(out, "cpus 1\n") {
			t.Errorf("it was on other CPUs than 1: %s", out)
		}
		if !exists("/sys/devices/system/node/node1") {
			t.Skip("cpuset.mems: needs two NUMA nodes")
		}
		for _, node := range []string{"0", "1"} {
			g := r.guest("node"+node, `{"cpu":{"mems":"`+node+`"},"memory":{"limit":-1}}`, "memory", "33554432")
			g.reads("cpuset.mems", node, "cpuset.mems.effective", node)
			g.said("ready")
			within(t, "MiB of memory on node "+node, g.onNode(node), 32, 40)
		}
	})
}

// onNode is how many MiB of anonymous memory the guest has on a node.
func (g *guest) onNode(node string) float64 {
	g.t.Helper()
	for line := range strings.Lines(readString(g.t, g.file("memory.numa_stat"))) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "anon" {
			continue
		}
		for _, f := range fields[1:] {
			if n, ok := strings.CutPrefix(f, "N"+node+"="); ok {
				return float64(parseUint(g.t, n)) / (1 << 20)
			}
		}
	}
	return 0
}
