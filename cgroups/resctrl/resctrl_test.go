package resctrl

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/cgroups/resctrl/resctrltest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mount serves a fake resctrl for the time of the test.
func mount(t *testing.T, k *resctrltest.Kernel) *FS {
	t.Helper()
	dir := t.TempDir()
	unmount, err := k.Mount(dir)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) {
		t.Skip("needs root and FUSE: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unmount)
	f, err := open(dir, resctrltest.Magic)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// create does what a create does.
func (f *FS) create(r specs.LinuxIntelRdt, id string, pid int) (*Use, error) {
	u, err := f.Look(&r, id)
	if err == nil {
		err = f.Make(u, &r)
	}
	if err == nil && pid != 0 {
		err = f.Join(u, pid)
	}
	return u, err
}

func (f *FS) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.path, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// process starts one that lives as long as the test.
func process(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestOwnClass(t *testing.T) {
	k := resctrltest.New()
	f, pid := mount(t, k), process(t)
	u, err := f.create(specs.LinuxIntelRdt{
		L3CacheSchema: "L3:0=f;1=f0", MemBwSchema: "MB:0=25", Schemata: []string{"L3:1=3f", "MB:1=50"}, EnableMonitoring: true,
	}, "c1", pid)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir c1", "write c1/schemata L3:0=f;1=f0", "write c1/schemata MB:0=25", "write c1/schemata L3:1=3f",
		"write c1/schemata MB:1=50", "mkdir c1/mon_groups/c1", "write c1/tasks " + strconv.Itoa(pid),
		"write c1/mon_groups/c1/tasks " + strconv.Itoa(pid),
	}
	if got := k.Changes(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if s := f.file(t, "c1/schemata"); s != "    L3:0=00f;1=03f\n    MB:0=  30;1=  50\n" {
		t.Errorf("schemata %q", s)
	}
	if err := f.Remove(u); err != nil {
		t.Fatal(err)
	}
	if left := groups(f.fd, "."); slices.Contains(left, "c1") {
		t.Errorf("left: %q", left)
	}
	if err := f.Remove(u); err != nil {
		t.Error("again: ", err)
	}
}

// Without a schema nothing is written to any schemata file.
func TestNoSchema(t *testing.T) {
	k := resctrltest.New()
	f := mount(t, k)
	for _, r := range []specs.LinuxIntelRdt{{}, {ClosID: "/"}} {
		if _, err := f.create(r, "c1", 0); err != nil {
			t.Error(err)
		}
	}
	if got := k.Changes(); !slices.Equal(got, []string{"mkdir c1"}) {
		t.Errorf("%q", got)
	}
}

// A class that the config names outlives the container, whoever made it.
func TestNamedClassStays(t *testing.T) {
	k := resctrltest.New()
	f, pid := mount(t, k), process(t)
	r := specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=0x00f", MemBwSchema: "MB:0=25;1=100", EnableMonitoring: true}
	first, err := f.create(r, "c1", pid)
	if err != nil {
		t.Fatal(err)
	}
	// The kernel has rounded 25 up to 30, and the same config must do again.
	second, err := f.create(r, "c2", pid)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := f.create(specs.LinuxIntelRdt{ClosID: "gold"}, "c3", pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []*Use{first, second, plain} {
		if err := f.Remove(u); err != nil {
			t.Error(err)
		}
	}
	if s := f.file(t, "gold/schemata"); !strings.Contains(s, "L3:0=00f") {
		t.Errorf("schemata %q", s)
	}
	if left := groups(f.fd, "gold/mon_groups"); len(left) > 0 {
		t.Errorf("monitoring groups left: %q", left)
	}
}

func TestRefused(t *testing.T) {
	k := resctrltest.New()
	f := mount(t, k)
	if _, err := f.create(specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=f;1=f", "MB:0=50"}, EnableMonitoring: true}, "other", 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rdt  specs.LinuxIntelRdt
		want string
	}{
		{specs.LinuxIntelRdt{ClosID: "none"}, "/linux/intelRdt/closID: use PATH/none: no such file or directory: without a schema, the class of service has to be there already"},
		{specs.LinuxIntelRdt{ClosID: "none", EnableMonitoring: true}, "/linux/intelRdt/closID: use PATH/none: no such file or directory: without a schema, the class of service has to be there already"},
		{specs.LinuxIntelRdt{ClosID: "info"}, "/linux/intelRdt/closID: use PATH/info: no such file or directory: it is not a class of service"},
		{specs.LinuxIntelRdt{ClosID: "mon_groups", L3CacheSchema: "L3:0=f"}, "/linux/intelRdt/closID: use PATH/mon_groups: no such file or directory: it is not a class of service"},
		{specs.LinuxIntelRdt{ClosID: "tasks"}, "/linux/intelRdt/closID: use PATH/tasks: not a directory"},
		{specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f;1=ff"}, `/linux/intelRdt/l3CacheSchema: use PATH/gold/schemata: "L3:0=f;1=ff" does not match the class, which has f for domain 1`},
		{specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:0=60"}, `/linux/intelRdt/memBwSchema: use PATH/gold/schemata: "MB:0=60" does not match the class, which has 50 for domain 0`},
		{specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:7=f"}, `/linux/intelRdt/l3CacheSchema: use PATH/gold/schemata: "L3:7=f" does not match the class, whose L3 has no domain 7`},
		{specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3CODE:0=f"}, `/linux/intelRdt/l3CacheSchema: use PATH/gold/schemata: the class has no L3CODE; it has L3, MB`},
		{specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3"}, `/linux/intelRdt/l3CacheSchema: use PATH/gold/schemata: "L3" is not of the form RESOURCE:DOMAIN=VALUE;DOMAIN=VALUE`},
		{specs.LinuxIntelRdt{ClosID: "/", L3CacheSchema: "L3:0=f"}, `/linux/intelRdt/l3CacheSchema: use PATH/schemata: "L3:0=f" does not match the class, which has 7ff for domain 0`},
		{specs.LinuxIntelRdt{ClosID: "new", L3CacheSchema: "L3:0=0"}, `/linux/intelRdt/l3CacheSchema: write "L3:0=0" to PATH/new/schemata: invalid argument (Mask out of range)`},
		{specs.LinuxIntelRdt{ClosID: "new", L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=5"}, `/linux/intelRdt/memBwSchema: write "MB:0=5" to PATH/new/schemata: invalid argument (MB value 5 out of range [10,100])`},
		{specs.LinuxIntelRdt{Schemata: []string{"L3:0=f", "L2:0=f"}}, `/linux/intelRdt/schemata/1: write "L2:0=f" to PATH/c1/schemata: invalid argument (Unknown or unsupported resource name 'L2')`},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=7", "MB:0=1"}}, `/linux/intelRdt/schemata/1: write "MB:0=1" to PATH/gold/schemata: invalid argument (MB value 1 out of range [10,100])`},
	} {
		before := f.file(t, "gold/schemata")
		u, err := f.create(c.rdt, "c1", 0)
		if err == nil || err.Error() != strings.ReplaceAll(c.want, "PATH", f.path) {
			t.Errorf("%+v:\n got %v\nwant %s", c.rdt, err, c.want)
		}
		// As if it had never been tried.
		if u != nil {
			if err := f.Undo(u); err != nil {
				t.Error(err)
			}
		}
		if list := groups(f.fd, "."); slices.Contains(list, "new") || slices.Contains(list, "c1") || f.file(t, "gold/schemata") != before {
			t.Errorf("%+v: left %q, %q", c.rdt, list, f.file(t, "gold/schemata"))
		}
	}
}

// What Look refuses it refuses before anything has changed, and undoing nothing harms nobody.
func TestExisting(t *testing.T) {
	k := resctrltest.New()
	f, pid := mount(t, k), process(t)
	if _, err := f.create(specs.LinuxIntelRdt{EnableMonitoring: true}, "c1", pid); err != nil {
		t.Fatal(err)
	}
	for want, r := range map[string]specs.LinuxIntelRdt{
		"/linux/intelRdt: use PATH/c1: file exists: no class of service can be made for the container": {},
		"/linux/intelRdt/enableMonitoring: use PATH/c1/mon_groups/c1: file exists":                     {ClosID: "c1", EnableMonitoring: true},
	} {
		if u, err := f.create(r, "c1", 0); err == nil || err.Error() != strings.ReplaceAll(want, "PATH", f.path) || u != nil && u.Made {
			t.Errorf("%+v, %v", u, err)
		}
	}
	if s := f.file(t, "c1/mon_groups/c1/tasks"); s != strconv.Itoa(pid)+"\n" {
		t.Errorf("tasks %q", s)
	}
}

// Others that do not keep to the lock may be faster; what they made is not ours to undo.
func TestOvertaken(t *testing.T) {
	k := resctrltest.New()
	f := mount(t, k)
	r := specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f", EnableMonitoring: true}
	for _, made := range []string{"gold", "gold/mon_groups/c1"} {
		u, err := f.Look(&r, "c1")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(f.path, made), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := f.Make(u, &r); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: %v", made, err)
		}
		if err := f.Undo(u); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(f.path, made)); err != nil {
			t.Error(err)
		}
		r.L3CacheSchema = ""
	}
}

func TestFull(t *testing.T) {
	k := resctrltest.New()
	k.Classes, k.Monitors = 2, 3
	f := mount(t, k)
	if _, err := f.create(specs.LinuxIntelRdt{}, "c1", 0); err != nil {
		t.Fatal(err)
	}
	_, err := f.create(specs.LinuxIntelRdt{}, "c2", 0)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "(Out of CLOSIDs)") {
		t.Error(err)
	}
	if _, err := f.create(specs.LinuxIntelRdt{ClosID: "/", EnableMonitoring: true}, "c3", 0); err != nil {
		t.Fatal(err)
	}
	_, err = f.create(specs.LinuxIntelRdt{ClosID: "c1", EnableMonitoring: true}, "c4", 0)
	if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "/linux/intelRdt/enableMonitoring: ") {
		t.Error(err)
	}
	k.Monitors = 0
	_, err = f.create(specs.LinuxIntelRdt{ClosID: "c1", EnableMonitoring: true}, "c5", 0)
	if err == nil || !strings.Contains(err.Error(), "this CPU does not monitor") {
		t.Error(err)
	}
}

// A class that a failed create has made, and another container uses by now, stays; so do
// schemata that another has changed since.
func TestUndoMindsOthers(t *testing.T) {
	k := resctrltest.New()
	f, pid := mount(t, k), process(t)
	r := specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=f"}}
	u, err := f.create(r, "c1", 0)
	if err != nil {
		t.Fatal(err)
	}
	changing, err := f.create(specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=3f"}}, "c2", pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Undo(u); err != nil {
		t.Error(err)
	}
	if _, err := f.create(specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=1"}}, "c3", 0); err != nil {
		t.Error(err)
	}
	if err := f.Undo(changing); err != nil {
		t.Error(err)
	}
	if s := f.file(t, "gold/schemata"); !strings.Contains(s, "L3:0=001") {
		t.Errorf("schemata %q", s)
	}
	// From the record, where it is not known what became of them, they are set back.
	changing.after = ""
	if err := f.Undo(changing); err != nil {
		t.Error(err)
	}
	if s := f.file(t, "gold/schemata"); !strings.Contains(s, "L3:0=00f") {
		t.Errorf("schemata %q", s)
	}
}

// Who has ended and was not reaped yet does not count as somebody in the class.
func TestZombieInClass(t *testing.T) {
	k := resctrltest.New()
	f := mount(t, k)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	u, err := f.create(specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f"}, "c1", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	_ = cmd.Process.Kill()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000); err != nil {
		t.Fatal(err)
	}
	if err := f.Undo(u); err != nil {
		t.Error(err)
	}
	if slices.Contains(groups(f.fd, "."), "gold") {
		t.Error("the class is still there")
	}
	_ = cmd.Wait()
}

func TestLock(t *testing.T) {
	f := mount(t, resctrltest.New())
	other, err := open(f.path, resctrltest.Magic)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Lock(time.Now()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := f.Lock(start.Add(20 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	other.Close()
	if err := f.Lock(time.Now()); err != nil {
		t.Error(err)
	}
}

// A directory that is no resctrl is not taken for one, whatever is in it.
func TestMagic(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"tasks", "schemata"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing"), filepath.Join(dir, "tasks")} {
		if _, err := open(path, superMagic); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// An update writes all of its schemas or none.
func TestChange(t *testing.T) {
	k := resctrltest.New()
	f := mount(t, k)
	u, err := f.create(specs.LinuxIntelRdt{}, "c1", 0)
	if err != nil {
		t.Fatal(err)
	}
	before, err := f.Change(u, &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=50"})
	if s := f.file(t, "c1/schemata"); err != nil || s != "    L3:0=00f;1=7ff\n    MB:0=  50;1= 100\n" {
		t.Errorf("%v, %q", err, s)
	}
	if _, err := f.Change(u, &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=1", MemBwSchema: "MB:0=1"}); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if s := f.file(t, "c1/schemata"); s != "    L3:0=00f;1=7ff\n    MB:0=  50;1= 100\n" {
		t.Errorf("after an error: %q", s)
	}
	if err := f.Restore(u, before); err != nil {
		t.Error(err)
	}
	if s := f.file(t, "c1/schemata"); s != before || !strings.Contains(s, "L3:0=7ff") {
		t.Errorf("restored: %q", s)
	}
	if _, err := f.Change(&Use{}, &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"}); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
