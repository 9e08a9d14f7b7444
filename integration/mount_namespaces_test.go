package integration

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A holder is a process whose namespaces others join.
type holder struct {
	pid  int
	link string // name of a network device that only it has
}

func (h holder) path(kind specs.LinuxNamespaceType) string {
	file := string(kind)
	switch kind {
	case specs.NetworkNamespace:
		file = "net"
	case specs.MountNamespace:
		file = "mnt"
	}
	return fmt.Sprintf("/proc/%d/ns/%s", h.pid, file)
}

// hostHolder has namespaces that belong to the host's user namespace.
func hostHolder(t *testing.T) holder {
	t.Helper()
	const script = "ip link add held type veth peer name peer; echo ready; exec sleep 1000"
	cmd := exec.Command("unshare", "--net", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	child, err := exec.Command("pgrep", "-P", strconv.Itoa(cmd.Process.Pid)).Output()
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(child)))
	must(t, err)
	return holder{pid, "held"}
}

// Filesystems that show a namespace, in every combination of a user namespace with a
// namespace of that kind: the host's, a new one, one of the host's user namespace, one of
// a container's. What is shown is always the namespace that the container is in.
func TestMountNamespaces(t *testing.T) {
	box(t, func(t *testing.T) {
		held := hostHolder(t)
		pod := newOwnedBundle(t, 100000, func(s *specs.Spec) {
			mapped(s)
			s.Process.Args = []string{"/probe", "hold"}
		})
		pod.must("run", "-d", "pod")
		defer pod.must("delete", "-f", "pod")
		state, _ := pod.state("pod")
		podHolder := holder{pid: state.Pid}
		plain, owned := newBundle(t, nil), newOwnedBundle(t, 100000, nil)
		for _, user := range []string{"none", "new", "joined"} {
			for _, kind := range []specs.LinuxNamespaceType{"network", "ipc", "pid", "cgroup"} {
				for how, from := range map[string]holder{"host": {}, "new": {}, "of the host": held, "of a container": podHolder} {
					b := owned
					if user == "none" {
						b = plain
					}
					b.write(func(s *specs.Spec) {
						if user != "none" {
							mapped(s)
						}
						var list []specs.LinuxNamespace
						for _, n := range s.Linux.Namespaces {
							switch {
							case n.Type == "user" && user == "joined":
								n.Path = podHolder.path(n.Type)
								s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
							case n.Type != kind:
							case how == "host":
								continue
							case from.pid != 0:
								n.Path = from.path(n.Type)
							}
							list = append(list, n)
						}
						s.Linux.Namespaces = list
						s.Process.Args = []string{"/bin/sh", "-c", "/probe mounts; echo own $$ $(readlink /proc/self/ns/pid) $(cat /proc/$$/stat); echo devices $(ls /sys/class/net | sort); echo links $(ip link show | grep mtu | sed 's/^[0-9]*: //; s/[:@].*//' | sort); echo group $(cat /proc/self/cgroup); for p in $(cat /sys/fs/cgroup/cgroup.procs); do echo member $p; done"}
					})
					owned := user == "joined" && how == "of a container"
					if kind == "pid" && user != "none" && from.pid != 0 && !owned && !kernelIs("6.17") {
						if r := b.husk("run", "c1"); !strings.Contains(r.stderr, "Linux 6.17") {
							t.Errorf("user %s, %s %s: %s", user, kind, how, r.stderr)
						}
						continue
					}
					t.Run(fmt.Sprintf("user %s, %s %s", user, kind, how), func(t *testing.T) {
						b := &bundle{t, b.dir}
						checkInstances(t, b, how, user, kind, from)
					})
				}
			}
		}
	})
}

func checkInstances(t *testing.T, b *bundle, how, user string, kind specs.LinuxNamespaceType, from holder) {
	r := b.must("run", "c1")
	seen := parseFacts(r.stdout)
	for target, fstype := range map[string]string{
		"/proc": "proc", "/sys": "sysfs", "/dev/mqueue": "mqueue", "/sys/fs/cgroup": "cgroup2",
	} {
		line, _ := seen.mount(target)
		options, _, got, _ := mountParts(line)
		if got != fstype || target != "/proc" && target != "/dev/mqueue" && !strings.HasPrefix(options, "ro,nosuid,nodev,noexec") {
			t.Errorf("%s: %q", target, line)
		}
	}
	own := strings.Fields(seen.one("own"))
	if len(own) < 3 || own[0] != own[2] {
		t.Errorf("the shell's pid and procfs: %v", own)
	}
	if a, b := seen.one("devices"), seen.one("links"); a != b || kind == "network" && from.link != "" && !strings.Contains(a, from.link) {
		t.Errorf("network devices of /sys: %s; of the namespace: %s", a, b)
	}
	if _, below := seen.mount("/sys/kernel/debug"); below {
		t.Error("mounts of the host below /sys")
	}
	switch {
	case kind == "cgroup" && how == "host" && user == "none": // the whole hierarchy
	case kind == "cgroup" && from.pid != 0: // seen from another group
		if !strings.Contains(seen.one("group"), "/..") || len(seen["member"]) == 0 {
			t.Errorf("group %q, members %q", seen.one("group"), seen["member"])
		}
	case len(seen["member"]) == 0:
		t.Error("cgroup.procs is empty")
	}
}
