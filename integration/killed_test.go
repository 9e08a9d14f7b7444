package integration

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// killedEdits are containers whose init boots in different ways.
func killedEdits(marks string) map[string]func(*specs.Spec) {
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + name + " >>" + marks}}}
	}
	return map[string]func(*specs.Spec){
		"plain":  func(*specs.Spec) {},
		"userns": mapped,
		"hooks": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: hook("runtime"), CreateContainer: hook("container")}
		},
		"offsets": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000}}
		},
		"joined": func(s *specs.Spec) {
			for k := range s.Linux.Namespaces {
				n := &s.Linux.Namespaces[k]
				if n.Type == specs.PIDNamespace || n.Type == specs.NetworkNamespace {
					n.Path = "/proc/self/ns/" + map[specs.LinuxNamespaceType]string{"pid": "pid", "network": "net"}[n.Type]
				}
			}
			s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" || m.Type == "cgroup" })
		},
		"binds": func(s *specs.Spec) { // several packets, which the first init does not read
			for range 40 {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "/", Options: []string{"bind"}})
			}
		},
	}
}

// However the init boots, it does so in a group where the kernel lets nobody be
// born, and what it was to do is done once.
func TestKilledCgroupBoots(t *testing.T) {
	box(t, func(t *testing.T) {
		const group = "/sys/fs/cgroup/pod"
		must(t, os.Mkdir(group, 0o755))
		marks := filepath.Join(t.TempDir(), "marks")
		edits := killedEdits(marks)
		for _, name := range slices.Sorted(maps.Keys(edits)) {
			owner := 0
			if name == "userns" {
				owner = 100000
			}
			b := newOwnedBundle(t, owner, func(s *specs.Spec) {
				edits[name](s)
				s.Linux.CgroupsPath = "/pod"
				s.Process.Args = []string{"/bin/sh", "-c", "cat /proc/self/cgroup; readlink /proc/self/fd/3"}
			})
			must(t, os.WriteFile(group+"/cgroup.kill", []byte("1"), 0))
			r := run(t, "sh", "-c", "exec "+runtimePath()+" run --preserve-fds 1 -b "+b.dir+" c1 3</")
			if r.code != 0 || !strings.Contains(r.stdout, "0::/\n/") {
				t.Errorf("%s: exit %d, %q %s", name, r.code, r.stdout, r.stderr)
			}
			b.must("create", "c2")
			b.must("start", "c2")
			b.must("delete", "--force", "c2")
		}
		got, _ := os.ReadFile(marks)
		if want := strings.Repeat("runtime\ncontainer\n", 2); string(got) != want {
			t.Errorf("hooks ran so: %q, want %q", got, want)
		}
		must(t, os.Remove(group))
	})
}

// An ordinary user whose own group was killed, as that of a restarted unit was.
func TestKilledCgroupRootless(t *testing.T) {
	box(t, func(t *testing.T) {
		const unit = "/sys/fs/cgroup/unit"
		must(t, os.MkdirAll(unit+"/self", 0o755))
		for _, name := range []string{"", "/cgroup.procs", "/cgroup.subtree_control", "/self", "/self/cgroup.procs"} {
			must(t, os.Chown(unit+name, 65534, 65534))
		}
		must(t, os.WriteFile(unit+"/self/cgroup.kill", []byte("1"), 0))
		b := newOwnedBundle(t, 65534, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 65534, Size: 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			s.Linux.CgroupsPath = "/unit/box"
			s.Mounts = s.Mounts[:1]
			s.Process.Args = []string{"/bin/cat", "/proc/self/cgroup"}
		})
		script := "echo $$ >" + unit + "/self/cgroup.procs; mkdir -m 700 /run/nobody; chown 65534 /run/nobody; XDG_RUNTIME_DIR=/run/nobody " +
			"exec setpriv --reuid 65534 --regid 65534 --clear-groups " + runtimePath() + " run -b " + b.dir + " c1"
		if r := run(t, "sh", "-c", script); r.code != 0 || !strings.Contains(r.stdout, "0::/\n") {
			t.Errorf("exit %d, %q %s", r.code, r.stdout, r.stderr)
		}
		must(t, os.Remove(unit+"/self"))
		must(t, os.Remove(unit))
	})
}
