package cgroups

import (
	"os"
	"testing"
	"time"
)

// TestWatch: the end of the last process is told, and only news ends a wait early.
func TestWatch(t *testing.T) {
	g := testGroup(t)
	before := openFDs(t)
	cmd := spawn(t, g, "exec sleep 60")
	w, err := g.Watch()
	must(t, err)
	news := func(want bool) {
		t.Helper()
		kills, populated, err := w.News()
		if kills != 0 || populated != want || err != nil {
			t.Errorf("%d kills, populated %v, %v", kills, populated, err)
		}
	}
	news(true)
	begin := time.Now()
	must(t, w.Wait(begin.Add(30*time.Millisecond), -1))
	if took := time.Since(begin); took < 30*time.Millisecond {
		t.Errorf("nothing happened, but the wait ended after %v", took)
	}
	news(true)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	begin = time.Now()
	must(t, w.Wait(begin.Add(10*time.Second), -1))
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("noticed after %v", took)
	}
	news(false)

	// A group that is gone is one without processes.
	must(t, Remove(g.path, []string{g.path}))
	news(false)
	w.Close()
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
	if _, err := g.Watch(); err == nil {
		t.Error("a group that is gone is watched")
	}
}

// TestWatchKills: the counter is read from when watching began, and from a controller that
// comes later.
func TestWatchKills(t *testing.T) {
	dir := t.TempDir()
	write := func(file, text string) { must(t, os.WriteFile(dir+"/"+file, []byte(text), 0o644)) }
	write("cgroup.events", "populated 1\nfrozen 0\n")
	write("memory.events", "oom 1\noom_kill 3\n")
	w, err := fakeGroup(t, dir).Watch()
	must(t, err)
	defer w.Close()
	for _, step := range []struct{ total, want uint64 }{{3, 0}, {4, 1}, {4, 0}, {7, 3}} {
		write("memory.events", "oom 1\noom_kill "+string(rune('0'+step.total))+"\n")
		if kills, _, err := w.News(); kills != step.want || err != nil {
			t.Errorf("%d kills at %d, want %d: %v", kills, step.total, step.want, err)
		}
	}

	must(t, os.Remove(dir+"/memory.events"))
	late, err := fakeGroup(t, dir).Watch()
	must(t, err)
	defer late.Close()
	if kills, populated, err := late.News(); kills != 0 || !populated || err != nil {
		t.Errorf("without the controller: %d, %v", kills, err)
	}
	write("memory.events", "oom_kill 2\n")
	if kills, _, err := late.News(); kills != 2 || err != nil {
		t.Errorf("the controller came later: %d, %v", kills, err)
	}
}
