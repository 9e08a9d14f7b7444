package systemd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// These tests speak to the systemd that runs the machine they are on, and are rude to it:
// they have it reload, and execute itself anew. So they want to be told that they may.

func needSystemd(t testing.TB) {
	t.Helper()
	if os.Getenv("HUSK_DRIVER") != "systemd" {
		t.Skip("needs systemd as pid 1 of a machine that is for tests: make test-vm")
	}
}

// managers are the ways to reach it.
func managers(t *testing.T, test func(t *testing.T, m *Manager)) {
	needSystemd(t)
	for _, a := range addresses(false) {
		t.Run(fmt.Sprintf("bus=%v", a.bus), func(t *testing.T) {
			if _, err := os.Stat(a.path); err != nil {
				t.Skip("needs a message bus:", err)
			}
			m, err := connect([]address{a}, time.Minute)
			must(t, err)
			defer m.Close()
			test(t, m)
		})
	}
}

func direct(t testing.TB) *Manager {
	t.Helper()
	needSystemd(t)
	m, err := Unit{}.Connect(time.Minute)
	must(t, err)
	t.Cleanup(m.Close)
	return m
}

// scopeOf names a unit of the test, which is gone at its end.
func scopeOf(t testing.TB, m *Manager, path string) Unit {
	t.Helper()
	u, err := Parse(path, fmt.Sprintf("t%d", time.Now().UnixNano()), false)
	must(t, err)
	t.Cleanup(func() {
		defer m.Stop(Unit{Name: "husktest.slice"})
		if err := m.Stop(u); err != nil {
			t.Error(err)
		}
	})
	return u
}

func sleeper(t testing.TB) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s %q: %v", name, args, err)
	}
	return strings.TrimSpace(string(out))
}

// property is what systemctl shows.
func property(t testing.TB, unit, name string) string {
	t.Helper()
	return output(t, "systemctl", "show", "--value", "-p", name, "--", unit)
}

// groupOf is the cgroup that the process is in.
func groupOf(t testing.TB, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n")
		}
	}
	return ""
}

// file is the content of one of the cgroup's files, "" where its controller is missing.
func file(group, name string) string {
	b, _ := os.ReadFile("/sys/fs/cgroup" + group + "/" + name)
	return strings.TrimSpace(string(b))
}

// eventually waits for something another process does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen: ", what)
		}
	}
}

func TestRealScope(t *testing.T) {
	managers(t, func(t *testing.T, m *Manager) {
		for _, path := range []string{"", "husktest-a-b.slice:husk:x+y@z", "-.slice:cgroup.x:1", "cpu.slice:cpu.x:1", ":_:" + strings.Repeat("n", 200)} {
			u, pid := scopeOf(t, m, path), sleeper(t)
			want, err := m.Path(u)
			must(t, err)
			got, err := m.Start(u, pid, nil)
			must(t, err)
			if m.version <= 252 && strings.Contains(path, "cpu.x") {
				want = strings.Replace(want, "_cpu.x", "cpu.x", 1) // see escapeGroup
			}
			if got != want || groupOf(t, pid) != want {
				t.Errorf("%s is in %s, the process in %s, predicted was %s", u, got, groupOf(t, pid), want)
			}
			for name, want := range map[string]string{
				"ActiveState": "active", "Slice": u.Slice, "Delegate": "yes", "Transient": "yes",
				"DefaultDependencies": "no", "CollectMode": "inactive-or-failed", "MemoryAccounting": "yes",
			} {
				if got := property(t, u.Name, name); got != want {
					t.Errorf("%s: %s is %q, want %q", u, name, got, want)
				}
			}
			must(t, unix.Kill(pid, unix.SIGKILL))
			must(t, m.Stop(u))
			if state := property(t, u.Name, "LoadState"); state != "not-found" {
				t.Errorf("%s is left %s", u, state)
			}
		}
	})
}

// limitsOf makes limits of "file=value …", with | for spaces.
func limitsOf(text string) (limits []cgroups.Limit) {
	for l := range strings.FieldsSeq(text) {
		file, value, _ := strings.Cut(l, "=")
		limits = append(limits, cgroups.Limit{File: file, Value: strings.ReplaceAll(value, "|", " ")})
	}
	return limits
}

// Limits reach the files by way of systemd, stay when it reads its configuration anew,
// and change while the unit runs. Where the machine has no such controller, systemctl
// shows them all the same.
func TestRealLimits(t *testing.T) {
	m := direct(t)
	u, pid := scopeOf(t, m, ""), sleeper(t)
	group, err := m.Start(u, pid, Properties(limitsOf("memory.max=64M memory.low=1048576 memory.swap.max=0 cpu.weight=79 cpu.max=20000|50000 cpuset.cpus=0 pids.max=11 io.weight=50 memory.oom.group=1")))
	must(t, err)
	check := func(when string, shown, files map[string]string) {
		t.Helper()
		for name, want := range shown {
			if got := property(t, u.Name, name); got != want {
				t.Errorf("%s: %s is %q, want %q", when, name, got, want)
			}
		}
		for name, want := range files {
			if got := file(group, name); got != want && got != "" {
				t.Errorf("%s: %s is %q, want %q", when, name, got, want)
			}
		}
	}
	shown := map[string]string{
		"MemoryMax": "67108864", "MemoryLow": "1048576", "MemorySwapMax": "0", "CPUWeight": "79", "CPUQuotaPerSecUSec": "400ms",
		"CPUQuotaPeriodUSec": "50ms", "AllowedCPUs": "0", "TasksMax": "11", "IOWeight": "50",
	}
	files := map[string]string{
		"memory.max": "67108864", "memory.low": "1048576", "memory.swap.max": "0", "cpu.weight": "79",
		"cpu.max": "20000 50000", "cpuset.cpus": "0", "pids.max": "11", "io.weight": "default 50",
	}
	if m.version >= 253 {
		shown["OOMPolicy"], files["memory.oom.group"] = "kill", "1"
	}
	check("started", shown, files)
	output(t, "systemctl", "daemon-reload")
	check("reloaded", shown, files)

	must(t, m.Set(u, Properties(limitsOf("memory.max=128M cpu.max=max pids.max=max cpu.idle=1 memory.oom.group=0"))))
	shown["MemoryMax"], files["memory.max"] = "134217728", "134217728"
	shown["CPUQuotaPerSecUSec"], files["cpu.max"] = "infinity", "max 100000" // without a quota systemd has no period
	shown["TasksMax"], files["pids.max"] = "infinity", "max"
	if m.version >= 252 {
		shown["CPUWeight"], files["cpu.idle"] = "idle", "1"
		delete(files, "cpu.weight")
	}
	check("set", shown, files)
	output(t, "systemctl", "daemon-reload")
	check("set and reloaded", shown, files)
	if groupOf(t, pid) != group {
		t.Errorf("the process is in %s", groupOf(t, pid))
	}
}

func TestRealSlice(t *testing.T) {
	m := direct(t)
	u := scopeOf(t, m, "::husktest-a.slice")
	want, err := m.Path(u)
	must(t, err)
	group, err := m.Start(u, 0, Properties(limitsOf("pids.max=7")))
	must(t, err)
	if group != want || property(t, u.Name, "TasksMax") != "7" {
		t.Errorf("%s is in %s, want %s; TasksMax is %s", u, group, want, property(t, u.Name, "TasksMax"))
	}
}

func TestRealAnnotations(t *testing.T) {
	m := direct(t)
	u := scopeOf(t, m, "")
	var props []Property
	for name, value := range map[string]string{"TimeoutStopSec": "uint64 7", "Description": "'my own'", "After": "['a.target', 'b.target']", "SendSIGHUP": "true"} {
		p, err := ParseProperty(name, value)
		must(t, err)
		props = append(props, p)
	}
	_, err := m.Start(u, sleeper(t), props)
	must(t, err)
	for name, want := range map[string]string{"TimeoutStopUSec": "7s", "Description": "my own", "SendSIGHUP": "yes"} {
		if got := property(t, u.Name, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if after := property(t, u.Name, "After"); !strings.Contains(after, "a.target") || !strings.Contains(after, "b.target") {
		t.Errorf("After is %q", after)
	}
}

func TestRealErrors(t *testing.T) {
	managers(t, func(t *testing.T, m *Manager) {
		u, pid := scopeOf(t, m, ""), sleeper(t)
		before := groupOf(t, pid)
		for _, c := range []struct {
			pid   int
			prop  Property
			errno error
			words string
		}{
			{pid, Property{Name: "NoSuchProperty", Value: true}, unix.EROFS, "NoSuchProperty"},
			{pid, Property{Name: "MemoryMax", Value: "text"}, unix.ENXIO, ""},
			{1 << 22, Property{Name: "SendSIGHUP", Value: true}, unix.ESRCH, ""},
		} {
			_, err := m.Start(u, c.pid, []Property{c.prop})
			wantError(t, err, nil, "start unit "+u.Name, c.words)
			if !errors.Is(err, c.errno) {
				t.Errorf("%v is not %v", err, c.errno)
			}
			if state := property(t, u.Name, "LoadState"); state != "not-found" {
				t.Errorf("%v: the unit is left %s", err, state)
			}
		}
		if groupOf(t, pid) != before {
			t.Errorf("the process is in %s", groupOf(t, pid))
		}
		must(t, m.Stop(u))
		wantError(t, m.Set(u, []Property{{Name: "TasksMax", Value: uint64(5)}}), unix.ENOENT, "set properties of unit "+u.Name)
	})
}

func TestRealExists(t *testing.T) {
	m := direct(t)
	u, first, second := scopeOf(t, m, ""), sleeper(t), sleeper(t)
	group, err := m.Start(u, first, nil)
	must(t, err)
	_, err = m.Start(u, second, nil)
	wantError(t, err, unix.EEXIST, u.Name, "there is a unit")
	if groupOf(t, first) != group || groupOf(t, second) == group {
		t.Error("the unit that was there is not as it was")
	}
}

// A unit that failed and is remembered does not keep its name from others.
func TestRealFailed(t *testing.T) {
	m := direct(t)
	u := scopeOf(t, m, "")
	cmd := exec.Command("systemd-run", "--quiet", "--scope", "--unit="+u.Name, "-p", "RuntimeMaxSec=100ms", "sleep", "100")
	_ = cmd.Run()
	eventually(t, "the unit fails", func() bool { return property(t, u.Name, "ActiveState") == "failed" })
	_, err := m.Start(u, sleeper(t), nil)
	must(t, err)
}

// systemd executes itself anew, again and again, while units are started and stopped:
// every connection breaks.
func TestRealReexec(t *testing.T) {
	m := direct(t)
	m.bus.until(time.Now().Add(5 * time.Second))
	must(t, m.know())
	if m.version < 252 {
		t.Skip("older ones than 252 lose the end of a scope when they execute themselves anew")
	}
	if os.Getenv("HUSK_PATIENCE") != "" {
		t.Skip("needs a machine that is not emulated: there systemd takes seconds to execute itself anew")
	}
	stop := make(chan bool)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				_ = exec.Command("systemctl", "daemon-reexec").Run()
			}
		}
	})
	defer all.Wait()
	defer close(stop)
	for i, end := 0, time.Now().Add(20*time.Second); i < 40 && time.Now().Before(end); i++ {
		m := direct(t) // as each command does
		u, err := Parse("", fmt.Sprintf("reexec%d-%d", os.Getpid(), i), false)
		must(t, err)
		pid := sleeper(t)
		group, err := m.Start(u, pid, nil)
		if err != nil {
			t.Error(err)
			_ = m.Stop(u)
			continue
		}
		if groupOf(t, pid) != group {
			t.Errorf("the process is in %s, not %s", groupOf(t, pid), group)
		}
		_ = unix.Kill(pid, unix.SIGKILL)
		if err := m.Stop(u); err != nil {
			t.Error(err)
		}
	}
}

// The user's own manager, by a user without privileges: the test binary runs once more.
func TestRealUser(t *testing.T) {
	const uid = 65534 // nobody, who is in every passwd
	if os.Getenv("HUSK_TEST_USER") != "" {
		userTest(t)
		return
	}
	needSystemd(t)
	dir := fmt.Sprintf("/run/user/%d", uid)
	manager := exec.Command("systemctl", "start", fmt.Sprintf("user@%d.service", uid))
	if out, err := manager.CombinedOutput(); err != nil {
		t.Skipf("needs a user's manager: %v: %s", err, out)
	}
	defer output(t, "systemctl", "stop", fmt.Sprintf("user@%d.service", uid))
	// Where it may be moved from: a group that the user's manager can write.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRealUser$", "-test.v")
	cmd.Env = append(os.Environ(), "HUSK_TEST_USER=1", "XDG_RUNTIME_DIR="+dir, "DBUS_SESSION_BUS_ADDRESS=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

func userTest(t *testing.T) {
	m, err := Unit{User: true}.Connect(25 * time.Second)
	must(t, err)
	defer m.Close()
	u, err := Parse("", "t1", true)
	must(t, err)
	want, err := m.Path(u)
	must(t, err)
	pid := sleeper(t)
	group, err := m.Start(u, pid, Properties(limitsOf("pids.max=9")))
	must(t, err)
	if group != want || groupOf(t, pid) != want || !strings.Contains(group, "user@") {
		t.Errorf("%s is in %s, the process in %s, predicted was %s", u, group, groupOf(t, pid), want)
	}
	if got := output(t, "systemctl", "--user", "show", "--value", "-p", "TasksMax", u.Name); got != "9" {
		t.Errorf("TasksMax is %s", got)
	}
	other := sleeper(t)
	must(t, m.Attach(u, "", other))
	if groupOf(t, other) != group {
		t.Errorf("the other process is in %s", groupOf(t, other))
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	_ = unix.Kill(other, unix.SIGKILL)
	must(t, m.Stop(u))
}

// BenchmarkReal is what a container pays: a connection, a unit, its end.
func BenchmarkReal(b *testing.B) {
	direct(b)
	for b.Loop() {
		b.StopTimer()
		pid := sleeper(b)
		b.StartTimer()
		m, err := Unit{}.Connect(time.Minute)
		must(b, err)
		u := Unit{Slice: "system.slice", Name: fmt.Sprintf("husk-bench%d.scope", pid)}
		_, err = m.Start(u, pid, nil)
		must(b, err)
		b.StopTimer()
		_ = unix.Kill(pid, unix.SIGKILL)
		must(b, m.Stop(u))
		m.Close()
		b.StartTimer()
	}
}
