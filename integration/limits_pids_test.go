package integration

import (
	"strings"
	"testing"
)

// A container of ten processes is refused its eleventh.
func TestLimitPids(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "pids")
		r := newRoom(t)
		g := r.guest("ten", `{"pids":{"limit":10}}`, "fork", "50")
		g.reads("pids.max", "10")
		if out := g.said("ready"); !strings.Contains(out, "forked 9 EAGAIN\n") {
			t.Errorf("it said %q", out)
		}
		g.reads("pids.current", "10")
		if g.count("pids.events", "max") != 1 {
			t.Error("not counted:", readString(t, g.file("pids.events")))
		}
		free := r.guest("free", `{"pids":{"limit":-1}}`, "fork", "50")
		free.reads("pids.max", "max")
		if out := free.said("ready"); !strings.Contains(out, "forked 50 ok\n") {
			t.Errorf("it said %q", out)
		}
		// None at all: the container's first process is there before it counts.
		none := r.guest("none", `{"pids":{"limit":0}}`, "fork", "1")
		none.reads("pids.max", "0")
		if out := none.said("ready"); !strings.Contains(out, "forked 0 EAGAIN\n") {
			t.Errorf("it said %q", out)
		}
	})
}
