package namespaces

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// placements are spawns in one stage and in two, with and without other reasons to
// wait at the gate.
func placements(t *testing.T) map[string]*Config {
	net, err := Open("/proc/self/ns/net", unix.CLONE_NEWNET)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Close() })
	pid, err := Open("/proc/self/ns/pid", unix.CLONE_NEWPID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pid.Close() })
	offsets := config(allNew)
	offsets.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
	joined := config(unix.CLONE_NEWCGROUP)
	joined.Join = []Join{{unix.CLONE_NEWNET, int(net.Fd())}, {unix.CLONE_NEWPID, int(pid.Fd())}}
	return map[string]*Config{
		"nothing": config(0),
		"cgroup":  config(unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID),
		"maps":    config(allNew),
		"offsets": offsets,
		"joined":  joined,
	}
}

// The child must not run before it was placed, and is root of nothing but its group.
func TestPlace(t *testing.T) {
	needRoot(t)
	group := killedGroup(t)
	for name, c := range placements(t) {
		t.Run(name, func(t *testing.T) {
			calls := 0
			c.Place = func(pid int) error {
				calls++
				if exe, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err != nil || strings.HasPrefix(string(exe), "probe") {
					t.Errorf("placed when it ran already: %q, %v", exe, err)
				}
				return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
			}
			ch := launch(t, c, "report")
			want := "/" + filepath.Base(group)
			if c.New&unix.CLONE_NEWCGROUP != 0 {
				want = "/"
			}
			if got := unified(ch.facts(t).Cgroup); got != want {
				t.Errorf("the child sees itself in cgroup %q, want %q", got, want)
			}
			if calls != 1 {
				t.Errorf("placed %d times", calls)
			}
			ch.end()
		})
	}
}

func TestPlaceFails(t *testing.T) {
	needRoot(t)
	for name, c := range placements(t) {
		c.Place = func(int) error { return unix.EDOM }
		if _, err := tryLaunch(t, c, "report"); !errors.Is(err, unix.EDOM) {
			t.Errorf("%s: %v, want the error of Place", name, err)
		}
	}
	c := config(0)
	c.Place, c.Cgroup = func(int) error { return nil }, 1
	if _, err := tryLaunch(t, c, "report"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("with a Cgroup as well: %v", err)
	}
}

// A child that was killed by somebody else is told from one that failed.
func TestKilledAtGate(t *testing.T) {
	needRoot(t)
	for name, c := range placements(t) {
		c.Place = func(pid int) error {
			unix.Kill(pid, unix.SIGKILL)
			return unix.EDOM
		}
		if _, err := tryLaunch(t, c, "report"); !errors.Is(err, ErrKilled) {
			t.Errorf("%s: %v, want ErrKilled", name, err)
		}
	}
}

// killedGroup makes a cgroup in which Linux 6.14 and later let nobody be born.
func killedGroup(t *testing.T) string {
	mount := t.TempDir()
	// As it is mounted already, if it is: a new mount would change its options.
	err := unix.ENOENT
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var st unix.Statfs_t
		if err != 0 && unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			err, _ = unix.Mount(dir, mount, "", unix.MS_BIND, "").(unix.Errno)
		}
	}
	if err != 0 {
		t.Skip("no cgroup2: ", err)
	}
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	group := filepath.Join(mount, "husk-test-place-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	return group
}

// unified finds the path in the cgroup2 hierarchy.
func unified(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	return ""
}
