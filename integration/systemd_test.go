package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// systemdDriver says that cgroups are made by systemd. The tests of limits and those
// below then run in a VM that it has booted, and not in boxes: systemd knows processes and
// cgroups by the names that they have for itself.
var systemdDriver = os.Getenv("HUSK_DRIVER") == "systemd"

// underSystemd runs a test that is to leave no unit and no state.
func underSystemd(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	requireTools(t)
	if !exists("/run/systemd/system") {
		t.Fatal("HUSK_DRIVER=systemd is for machines that systemd has booted")
	}
	t.Cleanup(func() {
		if left := systemctl(t, "list-units", "--all", "--plain", "--no-legend", "husk-*"); left != "" {
			t.Errorf("left behind: %s", left)
		}
		if left := stateFiles("/run/husk"); len(left) > 0 {
			t.Errorf("left behind: %s", left)
		}
	})
	f(t)
}

func driverFlags() []string {
	if systemdDriver {
		return []string{"--systemd-cgroup"}
	}
	return nil
}

// driverPath is what a config says, and where the cgroup then is, for a group /NAME.
func driverPath(group string) (cgroupsPath, dir string) {
	if !systemdDriver {
		return group, group
	}
	name := filepath.Base(group)
	return "system.slice:husk:" + name, "/system.slice/husk-" + name + ".scope"
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// property is what systemd thinks of a guest's unit.
func (g *guest) property(name string) string {
	return systemctl(g.t, "show", "--value", "--property", name, filepath.Base(g.group))
}

func needSystemd(t *testing.T) {
	t.Helper()
	if !systemdDriver {
		t.Skip("needs a machine that systemd has booted: make test-vm")
	}
}

// What husk is told of limits, systemd is told too: it would take them back else.
func TestSystemdLimits(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		g := newRoom(t).guest("told", `{"memory":{"limit":67108864,"reservation":1048576},"pids":{"limit":20},
			"cpu":{"shares":2048,"quota":50000,"period":100000,"cpus":"0"},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
			"unified":{"memory.oom.group":"1","memory.high":"60000000"}}`, "/bin/sleep", "1000")
		want := []string{
			"memory.max", "67108864", "memory.low", "1048576", "pids.max", "20",
			"cpu.weight", "174", "cpu.max", "50000 100000", "cpuset.cpus", "0", "hugetlb.2MB.max", "0",
		}
		g.reads(want...)
		systemctl(t, "daemon-reload")
		g.reads(want...)
		for name, value := range map[string]string{
			"MemoryMax": "67108864", "MemoryLow": "1048576", "TasksMax": "20", "CPUWeight": "174",
			"CPUQuotaPerSecUSec": "500ms", "AllowedCPUs": "0", "Delegate": "yes", "ActiveState": "active", "Slice": "system.slice",
		} {
			if got := g.property(name); got != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
		// systemd rounds what it is told, and what it is not told it may take back: neither
		// is to be seen in what the container has.
		g.must("update", "--cpu-quota", "23456", "--pids-limit", "0", "told")
		g.reads("memory.max", "67108864", "memory.oom.group", "1", "memory.high", "59998208", "cpu.max", "23456 100000", "pids.max", "0", "hugetlb.2MB.max", "0")
		g.must("update", "--memory", "63m", "--cpu-quota", "20000", "--pids-limit", "-1", "told")
		systemctl(t, "daemon-reload")
		g.reads("memory.max", "66060288", "cpu.max", "20000 100000", "pids.max", "max")
		g.must("pause", "told")
		g.must("resume", "told")
		if r := g.must("exec", "told", "/bin/cat", "/proc/self/cgroup"); !strings.Contains(r.stdout, "0::/\n") {
			t.Errorf("exec is in cgroup %s", r.stdout)
		}
		g.gone()
		if exists(g.file("")) || g.property("LoadState") != "not-found" {
			t.Errorf("the unit is still there: %s", g.property("ActiveState"))
		}
	})
}

// A limit that could strangle a booting init comes when it is parked, here too.
func TestSystemdTight(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		g := newRoom(t).prepare("/tight", `{"pids":{"limit":1},"cpu":{"quota":1000,"period":100000}}`, nil, "/bin/true")
		g.must("run", "tight")
	})
}

// Whatever of another program's runs in the unit that a config names goes on running.
func TestSystemdForeignUnit(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		victim := exec.Command("systemd-run", "--scope", "--unit=husk-victim", "sleep", "1000")
		must(t, victim.Start())
		defer victim.Wait()
		defer victim.Process.Kill()
		g := newRoom(t).prepare("/victim", `{}`, nil, "/bin/true")
		for deadline := time.Now().Add(slow); !exists(g.file("")) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		r := g.husk("run", "victim")
		if r.code == 0 || !strings.Contains(r.stderr, "/linux/cgroupsPath") || !strings.Contains(r.stderr, "husk-victim.scope") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
		r = g.husk("delete", "-f", "victim")
		if g.empty() || victim.ProcessState != nil {
			t.Errorf("the other program is dead; %s", r.stderr)
		}
	})
}

// A property of the unit takes the operator's leave, not only an annotation.
func TestSystemdProperty(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		annotated := func(s *specs.Spec) {
			s.Annotations = map[string]string{"org.systemd.property.Description": "'of an image'", "org.systemd.property.TimeoutStopUSec": "uint64 3000000"}
		}
		g := newRoom(t).prepare("/property", `{}`, annotated, "/bin/sleep", "1000")
		r := g.must("run", "-d", "property")
		if !strings.Contains(r.stderr, "/annotations/org.systemd.property.Description: ignored") {
			t.Errorf("no word of what is ignored: %s", r.stderr)
		}
		if got := g.property("Description"); strings.Contains(got, "image") {
			t.Errorf("the description is %q", got)
		}
		g.gone()
		g.must("--allow-systemd-property", "Description,TimeoutStopUSec", "run", "-d", "property")
		if got := g.property("Description"); got != "of an image" {
			t.Errorf("the description is %q", got)
		}
		if got := g.property("TimeoutStopUSec"); got != "3s" {
			t.Errorf("the timeout is %q", got)
		}
	})
}

// kill -9 anywhere in create leaves what one delete removes.
func TestSystemdKilled(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		g := newRoom(t).prepare("/killed", `{"pids":{"limit":20}}`, nil, "/bin/sleep", "1000")
		for delay := 5 * time.Millisecond; delay < 300*time.Millisecond; delay += 15 * time.Millisecond {
			cmd := exec.Command(runtimePath(), append(driverFlags(), "create", "killed")...)
			cmd.Dir = g.dir
			must(t, cmd.Start())
			time.Sleep(delay)
			cmd.Process.Kill()
			cmd.Wait()
			g.must("delete", "-f", "killed")
			if exists(g.file("")) {
				t.Fatalf("killed after %v: the cgroup is still there", delay)
			}
		}
	})
}

// An ordinary user's containers are units of that user's own systemd, which has been given
// a part of the hierarchy.
func TestSystemdUser(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		const dir = "/run/user/65534"
		systemctl(t, "start", "user@65534.service")
		t.Cleanup(func() { systemctl(t, "stop", "user@65534.service") })
		b := newOwnedBundle(t, 65534, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 65534, Size: 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			s.Linux.Resources = parseResources(t, `{"pids":{"limit":20},"memory":{"limit":67108864}}`)
			s.Mounts = s.Mounts[:1]
			s.Process.Args = []string{"/bin/sleep", "1000"}
		})
		user := func(args ...string) result {
			t.Helper()
			cmd := exec.Command("setpriv", append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups"}, args...)...)
			cmd.Dir, cmd.Env = b.dir, append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "DBUS_SESSION_BUS_ADDRESS=")
			r := runCmd(t, cmd)
			if r.code != 0 {
				t.Fatalf("%q: exit %d: %s", args, r.code, r.stderr)
			}
			return r
		}
		husk := func(args ...string) result {
			t.Helper()
			return user(append([]string{runtimePath()}, args...)...)
		}
		show := func(name string) string {
			t.Helper()
			return strings.TrimSpace(user("systemctl", "--user", "show", "--value", "--property", name, "husk-own.scope").stdout)
		}
		husk("--systemd-cgroup", "run", "-d", "own")
		g := &guest{bundle: b, id: "own", group: show("ControlGroup")}
		if want := "/user.slice/user-65534.slice/user@65534.service/user.slice/husk-own.scope"; g.group != want {
			t.Errorf("the cgroup is %s, want %s", g.group, want)
		}
		g.reads("pids.max", "20", "memory.max", "67108864")
		husk("update", "--pids-limit", "30", "own")
		user("systemctl", "--user", "daemon-reload")
		g.reads("pids.max", "30", "memory.max", "67108864")
		if got := show("TasksMax"); got != "30" {
			t.Errorf("TasksMax is %s", got)
		}
		husk("exec", "own", "/bin/true") // from outside of what the user's systemd was given
		husk("delete", "-f", "own")
		if got := show("LoadState"); got != "not-found" || exists(g.file("")) {
			t.Errorf("the unit is left: %s", got)
		}
	})
}

// A sandbox of an ordinary user gets its limits from the user's systemd where nothing else
// was delegated, and leaves it no unit.
func TestSystemdUserSandbox(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		const dir = "/run/user/65534"
		systemctl(t, "start", "user@65534.service")
		t.Cleanup(func() { systemctl(t, "stop", "user@65534.service") })
		job := filepath.Join(t.TempDir(), "job")
		must(t, os.Mkdir(job, 0o755))
		must(t, os.Chown(job, 65534, 65534))
		for d := filepath.Dir(job); d != os.TempDir(); d = filepath.Dir(d) {
			must(t, os.Chmod(d, 0o755))
		}
		sandbox := func(runtime string, args ...string) result {
			cmd := exec.Command("setpriv", append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", runtimePath(), "sandbox"}, args...)...)
			cmd.Dir, cmd.Env = job, append(os.Environ(), "XDG_RUNTIME_DIR="+runtime, "DBUS_SESSION_BUS_ADDRESS=")
			return runCmd(t, cmd)
		}
		husk := func(status int, stderr, runtime string, args ...string) {
			t.Helper()
			r := sandbox(runtime, args...)
			if r.code != status || !strings.Contains(r.stderr, stderr) {
				t.Errorf("%q: exit %d, want %d: %s, want %q", args, r.code, status, r.stderr, stderr)
			}
		}
		said := false // systemd may remove the scope, and all it knew, first
		for tries := 0; tries < 20 && !said; tries++ {
			r := sandbox(dir, "--memory", "32M", "--", "tail", "/dev/zero")
			if said = strings.Contains(r.stderr, "killed by the memory limit of 32M"); r.code != 137 {
				t.Fatalf("exit %d: %s", r.code, r.stderr)
			}
		}
		if !said {
			t.Error("nothing is said of the memory limit in 20 runs")
		}
		husk(0, "", dir, "--memory", "64M", "--pids", "40", "--summary", "--report", "r.json", "--", "sh", "-c", "exit 0")
		text, err := os.ReadFile(job + "/r.json")
		must(t, err)
		for _, part := range []string{`"memory"`, `"pids"`, `"leftOut":[]`} {
			if !strings.Contains(string(text), part) {
				t.Errorf("the report lacks %s: %s", part, text)
			}
		}
		// Without that systemd a limit is an error, or is left out.
		none := job + "/none"
		must(t, os.Mkdir(none, 0o700))
		must(t, os.Chown(none, 65534, 65534))
		husk(125, "husk: error: ", none, "--memory", "64M", "--", "true")
		husk(0, "left out: --memory", none, "--best-effort", "--memory", "64M", "--", "true")
	})
}

// A systemd that says nothing is not waited for without end, and nothing is left (fault
// 9 of those that are known of runc and others).
func TestSystemdMute(t *testing.T) {
	box(t, func(t *testing.T) {
		if systemdDriver {
			t.Skip("systemd is not mute here")
		}
		must(t, os.MkdirAll("/run/systemd", 0o755))
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "/run/systemd/private"}))
		must(t, unix.Listen(fd, 8))
		defer os.RemoveAll("/run/systemd")
		defer unix.Close(fd)
		b := newBundle(t, nil)
		began := time.Now()
		cmd := exec.Command(runtimePath(), "--systemd-cgroup", "create", "mute")
		cmd.Dir = b.dir
		out, err := cmd.CombinedOutput()
		if took := time.Since(began); err == nil || took > 30*time.Second || !strings.Contains(string(out), "husk-mute.scope") {
			t.Errorf("after %v %v: %s", took, err, out)
		}
	})
}

// Without systemd the flag is an error that says so.
func TestSystemdMissing(t *testing.T) {
	box(t, func(t *testing.T) {
		if systemdDriver {
			t.Skip("systemd is here")
		}
		r := newBundle(t, nil).husk("--systemd-cgroup", "create", "c1")
		if r.code == 0 || !strings.Contains(r.stderr, "husk-c1.scope") || !strings.Contains(r.stderr, "hint") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	})
}

// systemd removes a scope as soon as its last process is dead; what it has counted is in
// the report all the same.
func TestSystemdReport(t *testing.T) {
	needSystemd(t)
	box(t, func(t *testing.T) {
		r := newRoom(t)
		for _, program := range []string{"/bin/true", "/bin/sleep"} {
			g := r.prepare("/reported", `{"memory":{"limit":67108864}}`, nil, program, "0.2")
			for range 20 {
				g.must("run", "--report", "report.json", "reported")
				var report struct {
					CPU, Memory, Pids, IO *struct{}
					WallUsec, UnseenUsec  int
				}
				must(t, json.Unmarshal([]byte(readString(t, filepath.Join(g.dir, "report.json"))), &report))
				if report.CPU == nil || report.Memory == nil || report.Pids == nil || report.IO == nil || report.UnseenUsec > report.WallUsec {
					t.Errorf("%s: %s", program, readString(t, filepath.Join(g.dir, "report.json")))
				}
				t.Logf("%s: %d of %d µs unseen", program, report.UnseenUsec, report.WallUsec)
			}
		}
	})
}
