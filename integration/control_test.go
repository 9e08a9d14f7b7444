package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The commands on a container that runs are disturbed at every system call, as create and
// its like are in sweep_test.go: by SIGKILL, and by errors.

const controlled = "/sys/fs/cgroup/control"

// controllable makes a container that waits to be controlled.
func controllable(t *testing.T) *bundle {
	t.Helper()
	b := newBundle(t, func(s *specs.Spec) {
		s.Linux.CgroupsPath = filepath.Base(controlled)
		s.Process.Args = []string{"/bin/sleep", "1000"}
	})
	b.must("run", "-d", "c1")
	t.Cleanup(func() { b.must("delete", "--force", "c1") })
	return b
}

// file reads an interface file of the container's cgroup.
func file(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(controlled, name))
	must(t, err)
	return strings.TrimSpace(string(data))
}

// thawed fails unless nothing stands still, or is to.
func thawed(t *testing.T, what string, r result) {
	t.Helper()
	if file(t, "cgroup.freeze") != "0" || strings.Contains(file(t, "cgroup.events"), "frozen 1") {
		t.Errorf("%s (exit %d): left frozen: %s", what, r.code, r.stderr)
	}
}

// Wherever pause and resume are killed, resume afterwards works, if there is something to do.
func TestKillSweepPause(t *testing.T) {
	box(t, func(t *testing.T) {
		b := controllable(t)
		total := b.calls(0, parent, "pause", "c1")
		b.must("resume", "c1")
		again := func(what string, n int) bool {
			if r := b.husk("resume", "c1"); r.code != 0 && !strings.Contains(r.stderr, "not paused") {
				t.Errorf("%s killed at call %d: resume: %s", what, n, r.stderr)
			}
			thawed(t, what, result{})
			return !t.Failed()
		}
		sweep(t, total, func(n int) bool {
			b.traced(0, parent, []string{"kill", itoa(n)}, "pause", "c1")
			return again("pause", n)
		})
		sweep(t, total, func(n int) bool {
			b.must("pause", "c1")
			b.traced(0, parent, []string{"kill", itoa(n)}, "resume", "c1")
			return again("resume", n)
		})
	})
}

// Pause either pauses or fails, and then nothing is frozen.
func TestErrorSweepPause(t *testing.T) {
	box(t, func(t *testing.T) {
		b := controllable(t)
		list := b.injections(0, parent, []map[string]int{otherCalls}, "pause", "c1")
		b.must("resume", "c1")
		failed := 0
		tried := sweep(t, len(list), func(n int) bool {
			i := list[(n-1)%len(list)]
			r, _ := b.fail(0, parent, i, unix.EIO, "pause", "c1")
			if r.code == 0 {
				if !strings.Contains(file(t, "cgroup.events"), "frozen 1") {
					t.Errorf("%s number %d failed: pause says that it worked", i.name, i.k)
				}
				b.must("resume", "c1")
			} else {
				failed++
			}
			thawed(t, i.name+" number "+itoa(i.k)+" failed", r)
			return !t.Failed()
		})
		if failed == 0 && tried >= len(list) {
			t.Error("no failure had an effect")
		}
	})
}

// Update changes all or nothing, whichever call fails.
func TestErrorSweepUpdate(t *testing.T) {
	box(t, func(t *testing.T) {
		const first, second = "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"
		b := controllable(t)
		set := func(name, value string) string {
			path := filepath.Join(t.TempDir(), name)
			must(t, os.WriteFile(path, []byte(`{"unified":{"`+first+`":"`+value+`","`+second+`":"`+value+`"},"devices":[{"allow":false,"access":"rwm"}]}`), 0o644))
			return path
		}
		before, after := set("before", "4194304"), set("after", "8388608")
		if r := b.husk("update", "-r", before, "c1"); strings.Contains(r.stderr, "controller") {
			t.Skip("needs the hugetlb controller on cgroup2")
		}
		list := b.injections(0, parent, []map[string]int{otherCalls, {"bpf": unix.SYS_BPF}}, "update", "-r", after, "c1")
		failed := 0
		tried := sweep(t, len(list), func(n int) bool {
			b.must("update", "-r", before, "c1")
			i := list[(n-1)%len(list)]
			r, _ := b.fail(0, parent, i, unix.EIO, "update", "-r", after, "c1")
			want := "8388608"
			if r.code != 0 {
				failed++
				want = "4194304"
			}
			if file(t, first) != want || file(t, second) != want {
				t.Errorf("%s number %d failed (exit %d): %s and %s: %s", i.name, i.k, r.code, file(t, first), file(t, second), r.stderr)
			}
			return !t.Failed()
		})
		if failed == 0 && tried >= len(list) {
			t.Error("no failure had an effect")
		}
		t.Logf("%d of %d calls matter", failed, len(list))
	})
}

// An ordinary user controls containers below a cgroup that was delegated to him.
func TestControlRootless(t *testing.T) {
	box(t, func(t *testing.T) {
		const unit = "/sys/fs/cgroup/unit"
		must(t, os.MkdirAll(unit+"/self", 0o755))
		for _, name := range []string{"", "/cgroup.procs", "/cgroup.subtree_control", "/self", "/self/cgroup.procs"} {
			must(t, os.Chown(unit+name, 65534, 65534))
		}
		b := newOwnedBundle(t, 65534, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 65534, Size: 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			s.Linux.CgroupsPath = "/unit/box"
			s.Mounts = s.Mounts[:1]
			s.Process.Args = []string{"/bin/sleep", "1000"}
		})
		must(t, os.Mkdir("/run/nobody", 0o700))
		must(t, os.Chown("/run/nobody", 65534, 65534))
		user := func(command string) result {
			t.Helper()
			r := run(t, "sh", "-c", "echo $$ >"+unit+"/self/cgroup.procs; cd /run/nobody; XDG_RUNTIME_DIR=/run/nobody "+
				"exec setpriv --reuid 65534 --regid 65534 --clear-groups "+runtimePath()+" "+command)
			if r.code != 0 {
				t.Errorf("%s: exit %d: %s", command, r.code, r.stderr)
			}
			return r
		}
		wants := func(command, word string) {
			t.Helper()
			if r := user(command); !strings.Contains(r.stdout, word) {
				t.Errorf("%s: no %s in %s", command, word, r.stdout)
			}
		}
		user("run -d -b " + b.dir + " c1")
		user("pause c1")
		wants("state --stats c1", `"status": "paused"`)
		user("resume c1")
		wants("ps c1", "sleep 1000")
		wants("events --stats c1", `"type":"stats"`)
		path := filepath.Join(t.TempDir(), "devices")
		must(t, os.WriteFile(path, []byte(`{"devices":[{"allow":false,"access":"rwm"}]}`), 0o644))
		for dir := path; dir != workRoot; dir = filepath.Dir(dir) {
			os.Chmod(dir, 0o755)
		}
		if r := user("update -r " + path + " c1"); !strings.Contains(r.stderr, "/linux/resources/devices: stays as it is: only root") {
			t.Errorf("device rules without effect: %s", r.stderr)
		}
		user("kill --all c1 KILL")
		user("delete -f c1")
		must(t, os.RemoveAll("/run/nobody"))
		must(t, os.Remove(unit+"/self"))
		must(t, os.Remove(unit))
	})
}
