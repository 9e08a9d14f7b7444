package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

func TestCreateRemove(t *testing.T) {
	path := testPath(t) + "/a/b"
	top := filepath.Dir(filepath.Dir(path))
	fds := openFDs(t)
	missing := Missing(path)
	if diff := cmp.Diff([]string{top, top + "/a", path}, missing); diff != "" {
		t.Error(diff)
	}
	g, err := Create(path, nil)
	must(t, err)
	if Missing(path) != nil {
		t.Errorf("missing after create: %v", Missing(path))
	}
	if g.Populated() || g.Frozen() {
		t.Error("a new group is populated or frozen")
	}
	o, err := Open(path)
	must(t, err)
	o.Close()
	g.Close()
	g.Close() // harmless
	must(t, Remove(path, missing))
	if exists(top) {
		t.Error("the ancestors made by create remain")
	}
	must(t, Remove(path, missing)) // gone: no error
	if n := openFDs(t); n != fds {
		t.Errorf("%d descriptors leaked", n-fds)
	}
	_, err = Open(path)
	wantError(t, err, unix.ENOENT, path)
}

func TestRemoveKeepsWhatWasThere(t *testing.T) {
	top := testGroup(t)
	neighbour := mustCreate(t, top.path+"/n")
	path := top.path + "/a/b"
	missing := Missing(path)
	mustCreate(t, path)
	mustCreate(t, top.path+"/a/other")
	must(t, Remove(path, missing))
	if exists(path) || !exists(top.path+"/a/other") || !exists(neighbour.path) {
		t.Error("Remove took too little or too much")
	}
	must(t, Remove(top.path+"/a/other", []string{top.path + "/a", top.path + "/a/other"}))
	if exists(top.path + "/a") {
		t.Error("the last one leaves the shared ancestor behind")
	}
	// A group that existed before its container stays, without what the container made in it.
	mustCreate(t, neighbour.path+"/inner")
	foreign := spawn(t, neighbour, "exec sleep 60")
	must(t, Remove(neighbour.path, nil))
	if !exists(neighbour.path + "/inner") {
		t.Error("a group where others live must not be touched")
	}
	must(t, foreign.Process.Kill())
	must(t, neighbour.WaitEmpty(soon()))
	must(t, Remove(neighbour.path, nil))
	if !exists(neighbour.path) || exists(neighbour.path+"/inner") {
		t.Error("a group that create did not make must stay, empty")
	}
}

func TestCreateOnExisting(t *testing.T) {
	g := testGroup(t)
	mustCreate(t, g.path).Close() // empty: taken

	cmd := spawn(t, g, "exec sleep 60")
	_, err := Create(g.path, nil)
	wantError(t, err, unix.EBUSY, g.path, fmt.Sprint(cmd.Process.Pid))
	if busy, ok := errors.AsType[*BusyError](err); !ok || !slices.Equal(busy.PIDs, []int{cmd.Process.Pid}) {
		t.Errorf("error does not tell the pids: %v", err)
	}
	must(t, g.KillAll(soon()))
	must(t, g.Freeze(nil))
	_, err = Create(g.path, nil)
	wantError(t, err, unix.EBUSY, "frozen", "thaw")
	if !exists(g.path) {
		t.Error("a failed create removed a group that it did not make")
	}
	// A child born under a frozen ancestor would hang in its first instruction.
	_, err = Create(g.path+"/x/y", nil)
	wantError(t, err, unix.EBUSY, "frozen")
	if exists(g.path + "/x") {
		t.Error("a failed create left directories behind")
	}
}

func TestCreateThreaded(t *testing.T) {
	g := testGroup(t)
	th := mustCreate(t, g.path+"/t")
	must(t, kernfs.Write(th.fd, "cgroup.type", "threaded"))

	// Below a threaded group a new one is "domain invalid": it becomes threaded.
	c := mustCreate(t, th.path+"/c")
	if kind, _ := kernfs.Read(c.fd, "cgroup.type"); kind != "threaded\n" {
		t.Errorf("type is %q", kind)
	}
	cmd := spawn(t, c, "exec sleep 60")
	pids, err := c.Procs()
	must(t, err)
	if !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("threaded group: procs %v, want %d", pids, cmd.Process.Pid)
	}
	// There is no cgroup.kill in a threaded group.
	must(t, c.KillAll(soon()))
	if c.Frozen() {
		t.Error("left frozen")
	}

	d := &Group{fd: th.fd, path: th.path}
	err = d.domain([]string{"pids", "memory"})
	wantError(t, err, unix.EOPNOTSUPP, "threaded", "memory", "cgroupsPath")
	if strings.Contains(readFile(t, "/sys/fs/cgroup/cgroup.controllers"), "hugetlb") {
		_, err = Create(th.path+"/h", []string{"hugetlb"})
		wantError(t, err, nil, "hugetlb")
		if exists(th.path + "/h") {
			t.Error("a failed create left a directory behind")
		}
	}
}

func TestControllers(t *testing.T) {
	path := testPath(t)
	have := strings.Fields(readFile(t, "/sys/fs/cgroup/cgroup.controllers"))
	if !slices.Contains(have, "hugetlb") {
		t.Skip("no hugetlb controller in cgroup2")
	}
	g := mustCreate(t, path+"/a/b", "hugetlb")
	if list, _ := kernfs.Read(g.fd, "cgroup.controllers"); !strings.Contains(list, "hugetlb") {
		t.Errorf("controllers of the new group: %q", list)
	}
	if _, err := os.Stat("/sys/fs/cgroup" + path + "/a/b/hugetlb.2MB.max"); err != nil {
		t.Error(err)
	}
	// Not on the way down: the group itself has no children to enable it for.
	if list, _ := kernfs.Read(g.fd, "cgroup.subtree_control"); list != "\n" && list != "" {
		t.Errorf("enabled below the leaf: %q", list)
	}
	// Processes in a group forbid controllers below it ("no internal processes").
	busy := mustCreate(t, path+"/busy")
	cmd := spawn(t, busy, "exec sleep 60")
	_, err := Create(busy.path+"/c", []string{"hugetlb"})
	wantError(t, err, unix.EBUSY, busy.path, fmt.Sprint(cmd.Process.Pid), "move them", "cgroupsPath")
}

func TestMissingController(t *testing.T) {
	path := testPath(t)
	have := strings.Fields(readFile(t, "/sys/fs/cgroup/cgroup.controllers"))
	limits := []Limit{{Field: "/linux/resources/hugepageLimits/0", File: "hugetlb.2MB.max"}, {Field: "/linux/resources/memory/limit", File: "memory.max"}}

	_, err := Create(path, []string{"nonsense"})
	wantError(t, err, unix.EINVAL, `"nonsense"`, "this kernel does not have it")
	if exists(path) {
		t.Error("a failed create left a directory behind")
	}
	if slices.Contains(have, "memory") {
		t.Skip("the memory controller is in cgroup2 here")
	}
	_, err = Create(path, []string{"memory"})
	wantError(t, err, nil, `"memory"`, "cgroup_no_v1=memory")
	ce, ok := errors.AsType[*ControllerError](err)
	if !ok || ce.Field(limits) != "/linux/resources/memory/limit" {
		t.Errorf("error does not lead to the field: %v", err)
	}
	g := mustCreate(t, path)
	err = g.Apply([]Limit{{Field: "/linux/resources/memory/limit", File: "memory.max", Value: "1"}}, false)
	wantError(t, err, unix.ENOENT, "/linux/resources/memory/limit", "memory.max", "cgroup_no_v1=memory")

	// Enabled at the top but not passed on: a matter of delegation.
	if slices.Contains(have, "hugetlb") {
		e := &ControllerError{Controller: "hugetlb", Group: path}
		wantError(t, e, nil, "pass it on", "+hugetlb")
	}
}

func TestSharedAncestor(t *testing.T) {
	top := testPath(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			path := fmt.Sprintf("%s/pods/c%d", top, i)
			for range 50 {
				missing := []string{top, top + "/pods", path}
				g, err := Create(path, nil)
				if err != nil {
					t.Error(err)
					return
				}
				g.Close()
				if err := Remove(path, missing); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if exists(top) {
		t.Error("ancestors remain")
	}
}

func TestNoEscape(t *testing.T) {
	g := testGroup(t)
	// Something mounted into the hierarchy is not a part of it.
	mustCreate(t, g.path+"/m")
	tmpfs(t, "/sys/fs/cgroup"+g.path+"/m")
	_, err := Open(g.path + "/m")
	wantError(t, err, unix.EXDEV)
	_, err = Create(g.path+"/m/x", nil)
	wantError(t, err, unix.EXDEV)
}

func TestRemoveDeep(t *testing.T) {
	path := testPath(t)
	missing := Missing(path)
	g := mustCreate(t, path)
	const depth = 300
	cur, err := kernfs.Open(g.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	must(t, err)
	for range depth {
		for _, name := range []string{"a", "n"} {
			must(t, unix.Mkdirat(cur, name, 0o755))
		}
		next, err := kernfs.Open(cur, "n", unix.O_RDONLY|unix.O_DIRECTORY)
		must(t, err)
		kernfs.Close(cur)
		cur = next
	}
	kernfs.Close(cur)

	// More levels than descriptors.
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: old.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) }()
	_, err = g.Procs()
	must(t, err)
	must(t, Remove(path, missing))
	if exists(path) {
		t.Error("still there")
	}
}

func TestRemoveBusy(t *testing.T) {
	g := testGroup(t)
	inner := mustCreate(t, g.path+"/x/y")
	cmd := spawn(t, inner, "exec sleep 60")
	begin := time.Now()
	err := Remove(g.path, []string{g.path})
	wantError(t, err, nil, g.path, fmt.Sprint(cmd.Process.Pid))
	if _, ok := errors.AsType[*BusyError](err); !ok {
		t.Errorf("%T", err)
	}
	if d := time.Since(begin); d > removeWait+5*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestRemoveGroupsMadeMeanwhile removes while a process inside still nests.
func TestRemoveGroupsMadeMeanwhile(t *testing.T) {
	path := testPath(t)
	missing := Missing(path)
	g := mustCreate(t, path)
	spawn(t, g, `cd /sys/fs/cgroup`+path+`; for i in 1 2 3 4; do mkdir -p a$i/b; sleep 0.01; done`)
	must(t, Remove(path, missing))
	if exists(path) {
		t.Error("still there")
	}
}

// TestReadOnly: on a cgroup file system mounted read-only create says what to do,
// and remove has nothing to remove.
func TestReadOnly(t *testing.T) {
	path := testPath(t)
	there := testGroup(t)
	bind := func(flags uintptr) {
		t.Helper()
		must(t, unix.Mount("", "/sys/fs/cgroup", "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""))
	}
	bind(unix.MS_RDONLY)
	defer bind(0)
	missing := Missing(path)
	_, err := Create(path, nil)
	wantError(t, err, unix.EROFS, path, "read-only", "remount", "--cgroup-manager disabled")
	must(t, Remove(path, missing))
	must(t, Remove(path, nil))
	g, err := Open(there.path)
	must(t, err)
	defer g.Close()
	wantError(t, g.Apply([]Limit{{Field: pointer + "unified/cgroup.max.depth", File: "cgroup.max.depth", Value: "1"}}, false), unix.EROFS, "cgroup.max.depth", "read-only")
	wantError(t, g.Update([]Limit{{Field: pointer + "unified/cgroup.max.depth", File: "cgroup.max.depth", Value: "1"}}), unix.EROFS, "cgroup.max.depth", "read-only")
	wantError(t, g.Freeze(nil), unix.EROFS, there.path)
	wantError(t, Remove(there.path, []string{there.path}), unix.EROFS, there.path)
	if _, err := g.Stats(); err != nil {
		t.Error(err)
	}
}

// TestHybrid: with cgroup v1 beside it, what v2 has works and the rest says what to do.
func TestHybrid(t *testing.T) {
	needCgroup2(t)
	asHybrid(t, nil)
	have := strings.Fields(readFile(t, "/sys/fs/cgroup/unified/cgroup.controllers"))
	g := testGroup(t, have...)
	p, err := CompileDevices(nil)
	must(t, err)
	must(t, g.AttachDevices(p))
	spawn(t, g, "exec sleep 60")
	must(t, g.Freeze(nil))
	must(t, g.Thaw())
	s, err := g.Stats()
	must(t, err)
	if (s.Memory != nil) != slices.Contains(have, "memory") || (s.Hugetlb != nil) != slices.Contains(have, "hugetlb") {
		t.Errorf("controllers %v: %+v", have, s)
	}
	if slices.Contains(have, "hugetlb") {
		must(t, g.Update(compileFor(t, g, `{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}`)))
	}
	must(t, g.KillAll(soon()))

	for resources, controller := range map[string]string{
		`{"memory":{"limit":1048576}}`: "memory", `{"pids":{"limit":3}}`: "pids", `{"cpu":{"shares":3}}`: "cpu", `{"blockIO":{"weight":30}}`: "io", `{"cpu":{"cpus":"0"}}`: "cpuset",
	} {
		if slices.Contains(have, controller) {
			continue
		}
		path := testPath(t)
		limits, controllers, _, err := Compile(parse(t, resources))
		must(t, err)
		for _, err := range []error{second(Create(path, controllers)), g.Require(controllers)} {
			v1 := strings.Replace(controller, "io", "blkio", 1)
			wantError(t, err, nil, controller, "cgroup v1 uses it; boot with cgroup_no_v1="+v1, "remove the limit")
			if ce, ok := errors.AsType[*ControllerError](err); !ok || ce.Field(limits) != limits[0].Field {
				t.Errorf("error does not lead to the field: %v", err)
			}
		}
		if Missing(path) == nil {
			t.Error("a failed create left a directory behind")
		}
		if _, ok := errors.AsType[*ControllerError](g.Update(limits)); !ok {
			t.Errorf("update: %v", g.Update(limits))
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestDelegate(t *testing.T) {
	g := testGroup(t)
	must(t, g.Delegate(4711))
	owned := map[string]bool{".": true}
	for _, name := range strings.Fields(readFile(t, "/sys/kernel/cgroup/delegate")) {
		owned[name] = true
	}
	list, err := os.ReadDir("/sys/fs/cgroup" + g.path)
	must(t, err)
	for _, name := range append(dirNames(list), ".") {
		var st unix.Stat_t
		must(t, unix.Lstat("/sys/fs/cgroup"+g.path+"/"+name, &st))
		if want := uint32(map[bool]int{true: 4711}[owned[name]]); st.Uid != want {
			t.Errorf("%s belongs to %d, want %d", name, st.Uid, want)
		}
		if st.Gid != 0 {
			t.Errorf("group of %s changed", name)
		}
	}
}

func dirNames(list []os.DirEntry) (names []string) {
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func BenchmarkCreateRemove(b *testing.B) {
	path := testPath(b)
	for b.Loop() {
		g, err := Create(path, nil)
		must(b, err)
		g.Close()
		must(b, Remove(path, []string{path}))
	}
}
