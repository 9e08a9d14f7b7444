package integration

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The rootfs, the image and what runs inside are the attacker. Each test is a
// flaw that some runtime had; what must not happen is watched from the host.

// sentinel is what a container must never see.
const sentinel = "SENTINEL-7f3a"

// A can is a directory of the host's that an attack tries to reach.
type can struct {
	t        *testing.T
	dir      string
	manifest []string
}

// newCan makes the can and remembers what it looks like.
func newCan(t *testing.T) *can {
	t.Helper()
	c := &can{t: t, dir: filepath.Join(workRoot, "can")}
	for _, d := range []string{"d", "empty"} {
		must(t, os.MkdirAll(filepath.Join(c.dir, d), 0o777))
	}
	for _, f := range []string{"secret", "ptmx", "d/secret", "null"} {
		must(t, os.WriteFile(filepath.Join(c.dir, f), []byte(sentinel+"\n"), 0o666))
	}
	c.manifest = manifest(c.dir)
	t.Cleanup(c.check)
	return c
}

// check compares the can with what it was: type, mode, owner, size, time, content.
func (c *can) check() {
	now := manifest(c.dir)
	for _, l := range now {
		if !slices.Contains(c.manifest, l) {
			c.t.Errorf("host file made or changed: %s", l)
		}
	}
	for _, l := range c.manifest {
		if !slices.Contains(now, l) {
			c.t.Errorf("host file gone or changed: %s", l)
		}
	}
}

func manifest(dir string) []string {
	var list []string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			return nil
		}
		content := ""
		if d.Type().IsRegular() {
			data, _ := os.ReadFile(path)
			content = fmt.Sprintf("%x", sha256.Sum256(data))
		}
		list = append(list, fmt.Sprintf("%s %o %d:%d %d %d.%d %s", path, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Sec, st.Mtim.Nsec, content))
		return nil
	})
	return list
}

// attack runs the bundle and judges the outcome: a clean error or a confined
// success, soon, without the sentinel.
func (c *can) attack(b *bundle, args ...string) result {
	c.t.Helper()
	r := b.husk(append([]string{"run"}, append(args, "c1")...)...)
	c.judge(r)
	return r
}

func (c *can) judge(r result) {
	c.t.Helper()
	if strings.Contains(r.stdout, sentinel) {
		c.t.Errorf("the container saw the secret:\n%s", r.stdout)
	}
	if r.took > patience(5*time.Second) {
		c.t.Errorf("took %v", r.took)
	}
	if strings.Contains(r.stderr, "goroutine ") {
		c.t.Errorf("panic: %s", r.stderr)
	}
}

// link replaces a path of the rootfs by a symbolic link.
func (b *bundle) link(target, path string) {
	b.t.Helper()
	must(b.t, os.RemoveAll(b.rootfs(path)))
	must(b.t, os.MkdirAll(filepath.Dir(b.rootfs(path)), 0o755))
	must(b.t, os.Symlink(target, b.rootfs(path)))
}

// targets are the ways to write a link to the can in a rootfs.
func (c *can) targets(sub string) []string {
	up := strings.Repeat("../", 20)
	return []string{filepath.Join(c.dir, sub), up + filepath.Join(c.dir, sub)[1:], "/proc/1/root" + filepath.Join(c.dir, sub), "/proc/self/root" + filepath.Join(c.dir, sub)}
}

// read tries to get at the secret wherever a link might have brought it.
func readAll(s *specs.Spec) {
	s.Process.Args = []string{"/bin/sh", "-c", "for d in / /proc /sys /dev /dev/shm /dev/pts /etc /vol; do cat $d/secret; done; for f in console null zero ptmx tty; do [ -f /dev/$f ] && cat /dev/$f; done; exit 0"}
}

// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2019-18837: the place of a
// mount is a link.
func TestAttackMountTargetLinks(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		for _, place := range []string{"proc", "sys", "dev", "dev/shm", "dev/pts", "dev/mqueue", "sys/fs/cgroup"} {
			for _, target := range c.targets("d") {
				b := newBundle(t, readAll)
				if place == "dev/shm" || place == "dev/pts" || place == "dev/mqueue" {
					b.write(func(s *specs.Spec) { // a /dev of the image, so that the link matters
						readAll(s)
						s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" })
					})
				}
				b.link(target, place)
				r := c.attack(b)
				if (place == "proc" || place == "sys") && r.code == 0 {
					t.Errorf("/%s -> %s is accepted", place, target)
				}
			}
		}
	})
}

// A chain of links longer than the kernel follows is an error, not a loop.
func TestAttackLinkChain(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		b := newBundle(t, func(s *specs.Spec) {
			readAll(s)
			s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "x", Destination: "/chain/0"})
		})
		must(t, os.Mkdir(b.rootfs("chain"), 0o755))
		for i := range 41 {
			must(t, os.Symlink(itoa(i+1), b.rootfs("chain/"+itoa(i))))
		}
		must(t, os.Symlink(c.dir, b.rootfs("chain/41")))
		if r := c.attack(b); r.code == 0 {
			t.Error("41 links are followed")
		}
		must(t, os.Remove(b.rootfs("chain/0")))
		must(t, os.Symlink("0", b.rootfs("chain/0")))
		if r := c.attack(b); r.code == 0 {
			t.Error("a link to itself is followed")
		}
	})
}

// CVE-2014-6407 and others: destinations that climb out of the root.
func TestAttackMountDestinations(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		for _, dest := range []string{"/../../../../../.." + c.dir + "/d", "../../../../../../.." + c.dir + "/d", "/vol/../../../../../../.." + c.dir + "/new", "/./.."} {
			b := newBundle(t, func(s *specs.Spec) {
				readAll(s)
				s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "x", Destination: dest})
			})
			c.attack(b)
		}
	})
}

// CVE-2026-41579, crun CVE-2026-47766: nodes and links made through a /dev that is
// a link. Without a mount on /dev nothing hides it.
func TestAttackDevLink(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		for _, terminal := range []bool{false, true} {
			for _, target := range c.targets("") {
				b := newBundle(t, func(s *specs.Spec) {
					readAll(s)
					s.Mounts = s.Mounts[:1] // /proc
					s.Process.Terminal = terminal
					s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/d/mine", Type: "c", Major: 1, Minor: 3}}
				})
				b.link(target, "dev")
				if terminal {
					c.judge(b.onTerminal())
				} else {
					c.attack(b)
				}
			}
		}
	})
}

// onTerminal runs the bundle with a console socket and returns what it printed.
func (b *bundle) onTerminal() result {
	b.t.Helper()
	socket := filepath.Join(workRoot, "console")
	os.Remove(socket)
	listener := exec.Command(tool("tool"), "console", socket)
	var out bytes.Buffer
	listener.Stdout = &out
	must(b.t, listener.Start())
	poll(b.t, func() bool { _, err := os.Lstat(socket); return err == nil }, "the console socket")
	r := b.husk("run", "-d", "--console-socket", socket, "c1")
	if r.code == 0 {
		b.waitFor("c1", specs.StateStopped)
		listener.Wait()
	} else {
		listener.Process.Kill()
		listener.Wait()
	}
	b.must("delete", "-f", "c1")
	r.stdout += out.String()
	return r
}

// CVE-2015-3627, crun CVE-2026-88264, CVE-2026-88265, CVE-2025-31133: single
// devices of the image that are links.
func TestAttackDeviceLinks(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		for _, name := range []string{"console", "null", "zero", "ptmx", "pts", "tty", "fd", "stdin"} {
			for _, sub := range []string{"secret", "new", "d"} {
				for _, terminal := range []bool{false, true} {
					b := newBundle(t, func(s *specs.Spec) {
						readAll(s)
						s.Mounts = append(s.Mounts[:1:1], s.Mounts[2]) // /proc and /dev/pts, the image's /dev
						s.Process.Terminal = terminal
						s.Process.User = specs.User{UID: 1000, GID: 1000}
					})
					b.link(filepath.Join(c.dir, sub), "dev/"+name)
					if terminal {
						c.judge(b.onTerminal())
					} else {
						c.attack(b)
					}
				}
			}
		}
	})
}

// CVE-2015-3629: the second run of a rootfs that the first one prepared.
func TestAttackRespawn(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		hosts := filepath.Join(t.TempDir(), "hosts")
		must(t, os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o644))
		edit := func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: hosts, Destination: "/etc/hosts", Options: []string{"bind"}})
		}
		b := newBundle(t, func(s *specs.Spec) {
			edit(s)
			s.Process.Args = []string{"/bin/sh", "-c", "umount /etc/hosts; mv /etc /old; ln -s ../../../../../../.." + c.dir + " /etc"}
		})
		c.attack(b)
		b.write(func(s *specs.Spec) { edit(s); readAll(s) })
		c.attack(b)
	})
}

// LXC CVE-2015-1331: links planted in the state root.
func TestAttackStateRoot(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		b := newBundle(t, probeArgs("names"))
		must(t, os.MkdirAll("/run/husk", 0o700))
		must(t, os.Symlink(filepath.Join(c.dir, "d"), "/run/husk/c1"))
		if r := c.attack(b); r.code == 0 {
			t.Error("a linked state directory is used")
		}
		b.husk("delete", "-f", "c1")
		b.husk("list")
		b.husk("state", "c1")
		os.Remove("/run/husk/c1")
	})
}

// crun CVE-2026-115521: the read-only root does not depend on a /proc that the
// image forges.
func TestAttackForgedProc(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = nil
			s.Root.Readonly = true
			s.Process.Cwd = "/tmp"
			s.Process.Args = []string{"/probe", "open", "c", "/x", "/tmp/x", "/proc/self/fd/x"}
		})
		must(t, os.MkdirAll(b.rootfs("proc/self/fd"), 0o755))
		must(t, os.MkdirAll(b.rootfs("proc/thread-self"), 0o755))
		must(t, os.Symlink("fd", b.rootfs("proc/thread-self/fd")))
		for i := range 30 {
			must(t, os.Symlink(c.dir, b.rootfs("proc/self/fd/"+itoa(i))))
		}
		r := c.attack(b)
		if r.code == 0 && strings.Count(r.stdout, "EROFS") != 3 {
			t.Errorf("the root is writable:\n%s", r.stdout)
		}
	})
}

// CVE-2024-21626: descriptors of the host as working directory or program.
func TestAttackDescriptors(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		leak, err := os.Open("/")
		must(t, err)
		defer leak.Close()
		try := func(edit func(s *specs.Spec)) result {
			b := newBundle(t, edit)
			cmd := exec.Command(runtimePath(), "run", "-b", b.dir, "c1")
			// Whoever started husk leaks "/" as descriptors 3 to 5.
			cmd.ExtraFiles = []*os.File{leak, leak, leak}
			r := runCmd(t, cmd)
			c.judge(r)
			return r
		}
		for n := range 24 {
			for _, self := range []string{"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"} {
				fd := self + itoa(n)
				r := try(func(s *specs.Spec) {
					s.Process.Cwd = fd
					s.Process.Args = []string{"/bin/sh", "-c", "cat ../../../../../../../../.." + c.dir + "/secret"}
				})
				if r.code == 0 {
					t.Errorf("cwd %s is accepted: %s", fd, r.stdout)
				}
				if self != "/proc/self/fd/" {
					continue
				}
				// The hooks inside begin there too.
				r = try(func(s *specs.Spec) {
					s.Process.Cwd = fd
					s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat ../../../../../../../../.." + c.dir + "/secret >&2; exit 1"}}}}
				})
				if strings.Contains(r.stderr, "hook /bin/sh") {
					t.Errorf("a hook runs in %s: %s", fd, r.stderr)
				}
				r = try(func(s *specs.Spec) {
					s.Process.Args = []string{fd + "/bin/sh", "-c", "cat " + c.dir + "/secret; echo ran"}
				})
				if strings.Contains(r.stdout, "ran") {
					t.Errorf("%s/bin/sh runs", fd)
				}
			}
		}
	})
}

// CVE-2019-5736: husk's own executable, reached from inside.
func TestAttackExecutable(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		path, err := filepath.EvalSymlinks(runtimePath())
		must(t, err)
		before, err := os.ReadFile(path)
		must(t, err)
		scripts := map[string]string{"/script": "#!/proc/self/exe\n", "/evil": "#!/proc/self/exe -c\n"}
		for _, args := range [][]string{{"/proc/self/exe"}, {"/script"}, {"/evil"}, {"/proc/self/exe", "spec"}, {"/proc/1/exe"}, {"/proc/thread-self/exe"}} {
			b := newBundle(t, func(s *specs.Spec) { s.Process.Args = args })
			for name, text := range scripts {
				must(t, os.WriteFile(b.rootfs(name), []byte(text), 0o755))
			}
			c.attack(b)
		}
		// While the parked init is still husk, root of another container writes to it.
		b := newBundle(t, func(s *specs.Spec) {
			s.Process.Args = []string{"/bin/true"}
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
		})
		b.must("create", "c1")
		s, _ := b.state("c1")
		evil := newBundle(t, func(s2 *specs.Spec) {
			s2.Process.Args = []string{"/bin/sh", "-c", fmt.Sprintf("for w in 1 2 3; do echo evil >/proc/%d/exe; done; /probe open w /proc/%d/exe; /probe open rw /proc/%d/exe", s.Pid, s.Pid, s.Pid)}
			s2.Linux.Namespaces = slices.DeleteFunc(s2.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
			all := []string{"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH"}
			s2.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		})
		r := evil.husk("run", "c2")
		if strings.Contains(r.stdout, " ok") {
			t.Errorf("the executable of a parked init can be opened for writing:\n%s", r.stdout)
		}
		b.must("delete", "-f", "c1")
		after, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(before, after) {
			t.Fatal("husk was overwritten")
		}
	})
}

// A parked init shows nothing of husk's to the container: it cannot be dumped.
func TestAttackParkedInit(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, probeArgs("hold"))
		b.must("create", "c1")
		s, _ := b.state("c1")
		var st unix.Stat_t
		must(t, unix.Stat(fmt.Sprintf("/proc/%d/environ", s.Pid), &st))
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.Pid))
		for _, v := range bytes.Split(status, []byte{0}) {
			if bytes.HasPrefix(v, []byte("PATH=")) || bytes.HasPrefix(v, []byte("HUSK_BOX")) {
				t.Errorf("the init has the caller's %s", v)
			}
		}
		links, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid))
		for _, l := range links {
			path := fmt.Sprintf("/proc/%d/fd/%s", s.Pid, l.Name())
			is, err := os.Stat(path)
			for _, host := range []string{"/", b.dir, "/sys/fs/cgroup", "/proc", "/run/husk", "/run/husk/c1"} {
				if not, e := os.Stat(host); err == nil && e == nil && os.SameFile(is, not) {
					t.Errorf("descriptor %s of the parked init is the host's %s", l.Name(), host)
				}
			}
		}
		b.must("delete", "-f", "c1")
	})
}

// CVE-2016-9962, CVE-2020-14300: a process that joins a container carries nothing
// that root in there could reach before the payload runs. Root with CAP_SYS_PTRACE
// of the initial user namespace is beyond that: it may trace whom it sees.
func TestAttackJoin(t *testing.T) {
	box(t, func(t *testing.T) {
		all := []string{"CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SETUID"}
		caps := &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		seconds := int(raceTime() / time.Second)
		pod := newBundle(t, func(s *specs.Spec) {
			s.Process.Args = []string{"/probe", "leak", itoa(seconds + 2)} // in whole seconds, and outliving the others
			s.Process.Capabilities = caps
		})
		watcher := exec.Command(runtimePath(), "run", "-b", pod.dir, "pod")
		var out bytes.Buffer
		watcher.Stdout = &out
		must(t, watcher.Start())
		pod.waitFor("pod", specs.StateRunning)
		s, _ := pod.state("pod")
		b := newBundle(t, func(c *specs.Spec) {
			for i, n := range c.Linux.Namespaces {
				if n.Type != specs.MountNamespace {
					kind := map[specs.LinuxNamespaceType]string{"network": "net"}[n.Type]
					c.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", s.Pid, cmp.Or(kind, string(n.Type)))
				}
			}
			c.Hostname = ""
			c.Process.Capabilities = caps
			c.Process.Args = []string{"/bin/true"}
		})
		runs := 0
		for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); runs++ {
			if r := b.husk("run", "c1"); r.code != 0 {
				t.Fatal(r.stderr)
			}
		}
		watcher.Wait()
		f := parseFacts(out.String())
		if f.one("seen") == "0" || f.one("reached") != "0" || f.one("attached") != "0" {
			t.Errorf("of %d runs: seen %s, reached %s, attached %s", runs, f.one("seen"), f.one("reached"), f.one("attached"))
		}
		t.Logf("%d runs, seen %s times", runs, f.one("seen"))
	})
}

// CVE-2020-15257: no abstract sockets, which have no permissions.
func TestAttackAbstractSockets(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
			s.Process.Args = []string{"/bin/cat", "/proc/net/unix"}
		})
		b.must("create", "c1")
		if sockets, _ := os.ReadFile("/proc/net/unix"); bytes.Contains(sockets, []byte(" @")) {
			t.Errorf("abstract sockets:\n%s", sockets)
		}
		b.must("delete", "-f", "c1")
	})
}

// CVE-2016-10124, CVE-2017-5226: a container cannot type into its caller's terminal.
func TestAttackTerminalInput(t *testing.T) {
	box(t, func(t *testing.T) {
		s := newSeat(t)
		b := newBundle(t, func(c *specs.Spec) { c.Process.Args = []string{"/probe", "sys", "tiocsti"} })
		cmd := exec.Command(runtimePath(), "run", "-b", b.dir, "c1")
		cmd.Stdin = s.line
		var out bytes.Buffer
		cmd.Stdout = &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		must(t, cmd.Run())
		if !strings.Contains(out.String(), "sys tiocsti E") {
			t.Errorf("inside: %s", &out)
		}
	})
}

// CVE-2023-25809, CVE-2022-0492: cgroup files are not writable from inside.
func TestAttackCgroupFiles(t *testing.T) {
	box(t, func(t *testing.T) {
		for _, private := range []bool{true, false} {
			b := newBundle(t, func(s *specs.Spec) {
				if !private {
					s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
				}
				s.Process.Args = []string{"/bin/sh", "-c", "find /sys/fs/cgroup -type f -exec /probe open w {} \\;; mkdir /sys/fs/cgroup/x && echo made; exit 0"}
			})
			r := b.must("run", "c1")
			if strings.Contains(r.stdout, " ok\n") || strings.Contains(r.stdout, "made") {
				t.Errorf("private %v: writable:\n%s", private, r.stdout)
			}
		}
	})
}

// CVE-2021-43784: sizes that overflow some field of a protocol.
func TestAttackLongInput(t *testing.T) {
	box(t, func(t *testing.T) {
		// 340 ranges are what the kernel takes; the 341st is an error.
		for _, n := range []int{340, 341} {
			b := newOwnedBundle(t, 10000, func(s *specs.Spec) {
				mapped(s)
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 10000, Size: 1}}
				for i := uint32(1); i < uint32(n); i++ {
					s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: i, HostID: 10000 + i, Size: 1})
				}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				s.Process.Args = []string{"/probe", "ids"}
			})
			r := b.husk("run", "c1")
			if f := parseFacts(r.stdout); n == 340 && len(f["uid_map"]) != 340 {
				t.Errorf("340 ranges: %d are there: %s", len(f["uid_map"]), r.stderr)
			}
			if n == 341 && (r.code == 0 || !strings.Contains(r.stderr, "/linux/uidMappings")) {
				t.Errorf("341 ranges: exit %d: %s", r.code, r.stderr)
			}
		}
		long := "/" + strings.Repeat("x/", 35000)
		for _, edit := range []func(s *specs.Spec){
			func(s *specs.Spec) { s.Linux.Namespaces[1].Path = long },
			func(s *specs.Spec) { s.Process.Cwd = long },
			func(s *specs.Spec) { s.Mounts[0].Destination = long },
			func(s *specs.Spec) { s.Hostname = strings.Repeat("h", 70000) },
			func(s *specs.Spec) { s.Linux.CgroupsPath = long },
			func(s *specs.Spec) { s.Process.Args = []string{long} },
		} {
			b := newBundle(t, edit)
			r := b.husk("run", "c1")
			if r.code == 0 || strings.Contains(r.stderr, "goroutine ") || !strings.Contains(r.stderr, "husk: error: run c1: /") {
				t.Errorf("70 KiB: exit %d: %.300s", r.code, r.stderr)
			}
		}
		// What is long and right arrives in full.
		b := newBundle(t, func(s *specs.Spec) {
			s.Process.Args = []string{"/bin/sh", "-c", "echo ${#A} $#", "x", strings.Repeat("y", 100000)}
			s.Process.Env = append(s.Process.Env, "A="+strings.Repeat("z", 100000))
		})
		if r := b.must("run", "c1"); strings.TrimSpace(r.stdout) != "100000 1" {
			t.Errorf("inside: %.100s", r.stdout)
		}
	})
}

// Annotations, which images can carry, change nothing (CVE-2024-3154 and others).
func TestAttackAnnotations(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		plain := newBundle(t, probeArgs("ids", "caps", "mounts", "namespaces")).must("run", "c1").stdout
		b := newBundle(t, func(s *specs.Spec) {
			probeArgs("ids", "caps", "mounts", "namespaces")(s)
			s.Annotations = map[string]string{
				"org.systemd.property.SuccessAction": "'reboot-force'",
				"run.oci.hooks.stdout":               c.dir + "/new",
				"run.oci.seccomp_bpf_data":           "AAAA",
				"run.oci.keep_original_groups":       "1",
				"run.oci.handler":                    "krun",
				"run.oci.systemd.force_cgroup_v1":    "/sys/fs/cgroup",
				"io.kubernetes.cri-o.Devices":        "/dev/sda",
				"cdi.k8s.io/x":                       "vendor.com/device=all",
				"org.criu.config":                    c.dir + "/secret",
				"module.wasm.image/variant":          "compat",
			}
		})
		r := c.attack(b)
		if got, want := shape(r.stdout), shape(plain); got != want {
			t.Errorf("annotations change the container:\n%s\nwithout:\n%s", got, want)
		}
	})
}

// shape drops what differs between any two containers: numbers, and paths of tests.
func shape(out string) string {
	var lines []string
	for l := range strings.Lines(out) {
		l = strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, l)
		lines = append(lines, l)
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
