package cgroups

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

func TestParseEvents(t *testing.T) {
	for file, want := range map[string]Events{
		"populated 0\nfrozen 0\n":           {},
		"populated 1\nfrozen 0\n":           {Populated: true},
		"frozen 1\nnew 5\npopulated 1\n":    {true, true},
		"populated 10\nfrozen 01x\n":        {},
		"":                                  {},
		"xpopulated 1\npopulated\nfrozen 1": {Frozen: true},
	} {
		if got := parseEvents(file); got != want {
			t.Errorf("%q: %+v, want %+v", file, got, want)
		}
	}
}

func TestBirthIntoGroup(t *testing.T) {
	g := testGroup(t)
	cmd := spawn(t, g, "exec sleep 60")
	if !g.Populated() {
		t.Error("not populated")
	}
	if got := readFile(t, fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid)); !strings.Contains(got, "0::"+g.path) {
		t.Errorf("born in %q", got)
	}
	must(t, g.Kill())
	must(t, g.WaitEmpty(soon()))
	if g.Populated() {
		t.Error("populated after WaitEmpty")
	}
}

func TestWaitEmptyNamesProcesses(t *testing.T) {
	g := testGroup(t)
	inner := mustCreate(t, g.path+"/a/b")
	want := []int{spawn(t, g, "exec sleep 60").Process.Pid, spawn(t, inner, "exec sleep 60").Process.Pid}
	begin := time.Now()
	err := g.WaitEmpty(begin.Add(50 * time.Millisecond))
	wantError(t, err, os.ErrDeadlineExceeded, g.path, strconv.Itoa(want[0]), strconv.Itoa(want[1]))
	busy, _ := errors.AsType[*BusyError](err)
	slices.Sort(busy.PIDs)
	if !slices.Equal(busy.PIDs, want) {
		t.Errorf("pids %v, want %v", busy.PIDs, want)
	}
	if d := time.Since(begin); d < 50*time.Millisecond || d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestWaitEmptySees(t *testing.T) {
	g := testGroup(t)
	for range 5 {
		spawn(t, g, "sleep 0.05; exec 2>/dev/null")
		must(t, g.WaitEmpty(soon()))
	}
}

func TestGoneGroup(t *testing.T) {
	g := testGroup(t)
	must(t, os.Remove("/sys/fs/cgroup"+g.path))
	must(t, g.Kill())
	must(t, g.KillAll(soon()))
	must(t, g.WaitEmpty(soon()))
	if g.Populated() || g.Frozen() || g.OOMKilled() {
		t.Error("a removed group lives")
	}
	pids, err := g.Procs()
	if err != nil || len(pids) > 0 {
		t.Errorf("%v %v", pids, err)
	}
}

// TestKillNested: a hundred nested groups with slow exits among them.
func TestKillNested(t *testing.T) {
	path := testPath(t)
	missing := Missing(path)
	g := mustCreate(t, path)
	cur := path
	for i := range 100 {
		cur += "/n" + strconv.Itoa(i)
		c := mustCreate(t, cur)
		if i%10 == 0 {
			spawn(t, c, "trap '' TERM HUP INT; sleep 60 & sleep 60")
		}
		if i == 50 {
			spawnHelper(t, c, "heavy")
			spawnHelper(t, c, "heavy")
		}
		c.Close()
	}
	begin := time.Now()
	must(t, g.KillAll(soon()))
	if pids, err := g.Procs(); err != nil || len(pids) > 0 {
		t.Errorf("left: %v %v", pids, err)
	}
	must(t, Remove(path, missing))
	if exists(path) {
		t.Error("still there")
	}
	t.Log("killed and removed in", time.Since(begin))
}

// TestKillMany: five hundred processes in nested groups, some of which take their
// time to die, are gone within seconds; and while one is kept alive Remove names it.
func TestKillMany(t *testing.T) {
	path := testPath(t)
	missing := Missing(path)
	g := mustCreate(t, path)
	for i := range 20 {
		c := mustCreate(t, fmt.Sprintf("%s/a%d/b/c", path, i))
		spawn(t, c, "i=0; while [ $i -lt 24 ]; do sleep 60 & i=$((i+1)); done; wait")
		if i < 2 {
			spawnHelper(t, c, "heavy")
		}
		c.Close()
	}
	const pids = 20*25 + 2
	eventually(t, "502 processes", func() bool { all, _ := g.Procs(); return len(all) == pids })

	begin := time.Now()
	err := Remove(path, missing)
	busy, ok := errors.AsType[*BusyError](err)
	if !ok || len(busy.PIDs) != pids {
		t.Fatalf("%d processes live: %v", pids, err)
	}
	wantError(t, err, nil, path, strconv.Itoa(busy.PIDs[0]), fmt.Sprintf("and %d more", pids-10))
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("took %v to say so", d)
	}

	begin = time.Now()
	must(t, g.KillAll(soon()))
	must(t, Remove(path, missing))
	if d := time.Since(begin); d > 10*time.Second || exists(path) {
		t.Errorf("took %v; still there: %v", d, exists(path))
	}
	t.Logf("%d processes killed and their groups removed in %v", pids, time.Since(begin))
}

// TestKillForks: chains of processes, each of which forks the next and exits,
// so that no list of pids is ever true. (Not a bomb: their number stays.)
func TestKillForks(t *testing.T) {
	g := testGroup(t)
	for range 8 {
		spawn(t, g, `f() { f & exit 0; }; f`)
	}
	time.Sleep(50 * time.Millisecond)
	begin := time.Now()
	must(t, g.KillAll(soon()))
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	time.Sleep(20 * time.Millisecond)
	if g.Populated() {
		t.Error("one got away")
	}
}

// TestKillEntering: KillAll also gets what enters from outside after the first kill.
func TestKillEntering(t *testing.T) {
	g := testGroup(t)
	stop := time.Now().Add(200 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for time.Now().Before(stop) {
			spawn(t, g, "exec sleep 60")
		}
	}()
	time.Sleep(20 * time.Millisecond)
	must(t, g.KillAll(soon()))
	<-done
	must(t, g.KillAll(soon()))
}

func TestFreeze(t *testing.T) {
	g := testGroup(t)
	inner := mustCreate(t, g.path+"/inner")
	spawn(t, inner, "while :; do :; done")
	must(t, g.Freeze(nil))
	if !g.Frozen() || !inner.Frozen() {
		t.Error("not frozen")
	}
	before := usage(t, inner)
	time.Sleep(30 * time.Millisecond)
	if after := usage(t, inner); after != before {
		t.Errorf("runs on: %d → %d µs", before, after)
	}
	wantError(t, inner.Thaw(), unix.EBUSY, inner.path, g.path+" above it is")
	must(t, g.Thaw())
	if g.Frozen() {
		t.Error("still frozen")
	}
	eventually(t, "running again", func() bool { return usage(t, inner) > before })
}

func usage(t *testing.T, g *Group) uint64 {
	t.Helper()
	file, err := kernfs.Read(g.fd, "cpu.stat")
	must(t, err)
	n, ok := value(file, "usage_usec")
	if !ok {
		t.Fatal("no usage_usec in cpu.stat")
	}
	return n
}

// TestThawDeep: the group to blame is the nearest frozen one, however far above, and a
// refused thaw changes nothing.
func TestThawDeep(t *testing.T) {
	g := testGroup(t)
	inner := mustCreate(t, g.path+"/a/b")
	before := openFDs(t)
	must(t, g.Freeze(nil))
	must(t, inner.Freeze(nil))
	wantError(t, inner.Thaw(), unix.EBUSY, g.path+" above it is")
	if !inner.Freezes() {
		t.Error("half thawed")
	}
	must(t, g.Thaw())
	if !inner.Frozen() {
		t.Error("thawed with the group above")
	}
	must(t, inner.Thaw())
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

func TestFreezeEmpty(t *testing.T) {
	g := testGroup(t)
	must(t, g.Freeze(nil))
	must(t, g.Freeze(nil))
	must(t, g.Thaw())
	must(t, g.Thaw())
}

// TestFreezeTimeout: when a process does not freeze, in time or before somebody loses
// patience, none may stay frozen.
func TestFreezeTimeout(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/cgroup.events", []byte("populated 1\nfrozen 0\n"), 0o644))
	must(t, os.WriteFile(dir+"/cgroup.procs", []byte("0\n4711\n"), 0o644))
	must(t, os.WriteFile(dir+"/cgroup.freeze", nil, 0o644))
	thawed := func() {
		t.Helper()
		if got := readFile(t, dir+"/cgroup.freeze"); got != "0" {
			t.Errorf("left with cgroup.freeze %q", got)
		}
	}
	g := fakeGroup(t, dir)
	err := g.freeze(time.Now().Add(20*time.Millisecond), nil)
	wantError(t, err, os.ErrDeadlineExceeded, "/fake", "processes 4711:")
	thawed()
	enough := errors.New("enough")
	if err := g.freeze(soon(), func() error { return enough }); err != enough {
		t.Errorf("stopped: %v", err)
	}
	thawed()

	// Who was paused before stays so.
	must(t, os.WriteFile(dir+"/cgroup.freeze", []byte("1\n"), 0o644))
	if err := g.freeze(soon(), func() error { return enough }); err != enough || !g.Freezes() {
		t.Errorf("stopped: %v, frozen %v", err, g.Freezes())
	}
}

func TestKillFrozen(t *testing.T) {
	path := testPath(t)
	missing := Missing(path)
	g := mustCreate(t, path)
	inner := mustCreate(t, g.path+"/a/b")
	spawn(t, g, "exec sleep 60")
	spawn(t, inner, "sleep 60 & sleep 60")
	must(t, inner.Freeze(nil))
	must(t, g.Freeze(nil))
	begin := time.Now()
	must(t, g.KillAll(soon()))
	must(t, Remove(path, missing))
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestMemoryEvents(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/memory.events", []byte("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 0\n"), 0o644))
	g := fakeGroup(t, dir)
	got, err := g.MemoryEvents()
	must(t, err)
	if want := (MemoryEvents{1, 2, 3, 4, 5, 6}); got != want || !g.OOMKilled() {
		t.Errorf("%+v", got)
	}
	must(t, os.Remove(dir+"/memory.events"))
	if got, err := g.MemoryEvents(); err != nil || got != (MemoryEvents{}) {
		t.Errorf("without the controller: %+v, %v", got, err)
	}
}

// fakeGroup makes an ordinary directory stand in for a group.
func fakeGroup(t *testing.T, dir string) *Group {
	t.Helper()
	fd, err := kernfs.Open(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	must(t, err)
	g := &Group{fd: fd, path: "/fake"}
	t.Cleanup(g.Close)
	return g
}
