package integration

import "testing"

// Systemd is told of new limits, and then writes all those of which it has an idea: a quota
// rounded up, one process for none, memory.oom.group by its own OOMPolicy. What the
// container was given, at create or by an update, holds all the same.
func TestSystemdUpdate(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		g := newRoom(t).guest("odd", `{"unified":{"memory.oom.group":"1","memory.high":"50003968"},"cpu":{"quota":12345,"period":50000}}`, "/bin/sleep", "1000")
		given := []string{"memory.oom.group", "1", "memory.high", "50003968"}
		g.reads(append(given, "cpu.max", "12345 50000")...)
		g.must("update", "--pids-limit", "9", "odd")
		g.reads(append(given, "cpu.max", "12345 50000", "pids.max", "9")...)
		g.must("update", "--cpu-quota", "23456", "odd")
		g.reads(append(given, "cpu.max", "23456 50000", "pids.max", "9")...)
		g.must("update", "--pids-limit", "0", "odd")
		g.reads(append(given, "cpu.max", "23456 50000", "pids.max", "0")...)
		g.gone()
	})
}
