package namespaces

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// allNew are all types; mapped is what root's containers usually map.
const allNew = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

var mapped = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}

// config makes a Config that creates the types, with maps if they need any.
func config(create uintptr) *Config {
	c := &Config{New: create}
	if create&unix.CLONE_NEWUSER != 0 {
		c.UIDMaps, c.GIDMaps = mapped, mapped
	}
	return c
}

func wantNew(t *testing.T, f *facts, create uintptr) {
	t.Helper()
	ours := links()
	for _, n := range names {
		if isNew := f.NS[n.name] != ours[n.name]; isNew != (create&n.flag != 0) {
			t.Errorf("%s namespace new: %v (%s)", n.name, isNew, f.NS[n.name])
		}
	}
}

func TestNewNamespaces(t *testing.T) {
	needRoot(t)

	cases := []uintptr{0, allNew, allNew &^ unix.CLONE_NEWUSER, allNew &^ unix.CLONE_NEWTIME, allNew &^ unix.CLONE_NEWUSER &^ unix.CLONE_NEWTIME}
	for _, n := range names {
		cases = append(cases, n.flag)
	}
	bothWays(t, func(t *testing.T) {
		for _, create := range cases {
			t.Run(typeNames(create), func(t *testing.T) {
				ch := launch(t, config(create), "report")
				f := ch.facts(t)
				wantNew(t, f, create)
				wantFDs(t, f, 0, 1, 2, 3)
				if create&unix.CLONE_NEWPID != 0 && f.PID != 1 {
					t.Errorf("pid %d, want 1", f.PID)
				} else if create&unix.CLONE_NEWPID == 0 && f.PID != ch.PID {
					t.Errorf("pid %d, Spawn says %d", f.PID, ch.PID)
				}
				if f.UID != 0 || f.GID != 0 {
					t.Errorf("ids %d:%d, want 0:0", f.UID, f.GID)
				}
				if f.DeathSignal != int(unix.SIGKILL) {
					t.Errorf("parent death signal %d", f.DeathSignal)
				}
				if got := ch.end(); !got.Exited() || got.ExitStatus() != 0 {
					t.Errorf("wait status %#x", got)
				}
			})
		}
	})
}

// The owner of a new namespace has to be the user namespace made with it.
func TestOwner(t *testing.T) {
	needRoot(t)
	for _, offsets := range []bool{false, true} {
		c := config(allNew)
		if offsets {
			c.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
		}
		ch := launch(t, c, "report")
		f := ch.facts(t)
		for _, n := range names {
			if n.flag == unix.CLONE_NEWUSER {
				continue
			}
			ns := must(Open(fmt.Sprintf("/proc/%d/ns/%s", ch.PID, n.name), n.flag))
			owner := must(unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS))
			var st unix.Stat_t
			unix.Fstat(owner, &st)
			if got := fmt.Sprintf("user:[%d]", st.Ino); got != f.NS["user"] {
				t.Errorf("offsets %v: %s namespace belongs to %s, want %s", offsets, n.name, got, f.NS["user"])
			}
			unix.Close(owner)
			ns.Close()
		}
	}
}

func TestIDMaps(t *testing.T) {
	needRoot(t)
	// Short numbers: 340 ranges have to fit into one page.
	ranges := func(n int) []specs.LinuxIDMapping {
		var maps []specs.LinuxIDMapping
		for i := range uint32(n) {
			maps = append(maps, specs.LinuxIDMapping{ContainerID: 2 * i, HostID: 3 * i, Size: 1})
		}
		return maps
	}
	bothWays(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 2, 5, 6, 100, 340} {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				c := &Config{New: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UIDMaps: ranges(n), GIDMaps: ranges(n)}
				f := launch(t, c, "report").facts(t)
				for _, got := range []string{f.UIDMap, f.GIDMap} {
					if got, want := strings.Fields(got), strings.Fields(string(formatMap(c.UIDMaps))); !slices.Equal(got, want) {
						t.Errorf("map %q, want %q", got, want)
					}
				}
				if want := map[bool]int{true: 0, false: 65534}[n > 0]; f.UID != want || f.GID != want {
					t.Errorf("ids %d:%d, want %d", f.UID, f.GID, want)
				}
				if len(f.Groups) > 0 {
					t.Errorf("supplementary groups %v", f.Groups)
				}
				if f.SetGroups != "allow" {
					t.Errorf("setgroups is %q", f.SetGroups)
				}
				if f.Status["CapEff"] != f.Status["CapBnd"] {
					t.Errorf("CapEff %s, CapBnd %s", f.Status["CapEff"], f.Status["CapBnd"])
				}
			})
		}
	})
}

func TestIDMapsWithoutRoot(t *testing.T) {
	needRoot(t)
	c := &Config{New: unix.CLONE_NEWUSER, UIDMaps: []specs.LinuxIDMapping{{ContainerID: 7, HostID: 7, Size: 1}}}
	c.GIDMaps = c.UIDMaps
	f := launch(t, c, "report").facts(t)
	if f.Status["CapEff"] != f.Status["CapBnd"] {
		t.Errorf("without uid 0 the capabilities are lost: CapEff %s, CapBnd %s", f.Status["CapEff"], f.Status["CapBnd"])
	}
}

func TestBadIDMaps(t *testing.T) {
	needRoot(t)
	var long []specs.LinuxIDMapping
	for i := range uint32(340) {
		long = append(long, specs.LinuxIDMapping{ContainerID: 100000 + 2*i, HostID: 100000 + 3*i, Size: 1})
	}
	bothWays(t, func(t *testing.T) {
		for name, maps := range map[string][]specs.LinuxIDMapping{
			"too long":    long,
			"overlapping": {{ContainerID: 0, HostID: 1, Size: 10}, {ContainerID: 5, HostID: 100, Size: 10}},
			"empty range": {{ContainerID: 0, HostID: 1, Size: 0}},
			"341":         append(make([]specs.LinuxIDMapping, 1), long...),
		} {
			c := &Config{New: unix.CLONE_NEWUSER, UIDMaps: maps, GIDMaps: maps}
			_, err := tryLaunch(t, c, "report")
			if err == nil || !strings.Contains(err.Error(), "_map") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	noChildren(t)
}

func TestTimeOffsets(t *testing.T) {
	needRoot(t)
	for _, create := range []uintptr{unix.CLONE_NEWTIME, allNew} {
		c := config(create)
		c.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 86400, Nanosecs: 5}, "boottime": {Secs: 1 << 20}}
		ch := launch(t, c, "report")
		f := ch.facts(t)
		wantNew(t, f, create)
		if got, want := strings.Fields(f.Offsets), strings.Fields("monotonic 86400 5 boottime 1048576 0"); !slices.Equal(got, want) {
			t.Errorf("offsets %q, want %q", got, want)
		}
		if f.Uptime < 1<<20 {
			t.Errorf("boottime clock says %d: the process itself is not in the namespace", f.Uptime)
		}
	}
	c := config(unix.CLONE_NEWTIME)
	c.TimeOffsets = map[string]specs.LinuxTimeOffset{"sundial": {Secs: 1}}
	if _, err := tryLaunch(t, c, "report"); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "timens_offsets") {
		t.Errorf("unknown clock: %v", err)
	}
	noStrays(t)
}

// Every type by path alone, all of them by path, by pidfd, and mixed.
func TestJoin(t *testing.T) {
	needRoot(t)
	holder := launch(t, config(allNew), "report")
	in := holder.facts(t)
	byPath := func(t *testing.T, flags uintptr) (joins []Join) {
		for _, n := range names {
			if flags&n.flag != 0 {
				f := must(Open(fmt.Sprintf("/proc/%d/ns/%s", holder.PID, n.name), n.flag))
				t.Cleanup(func() { f.Close() })
				joins = append(joins, Join{n.flag, int(f.Fd())})
			}
		}
		return joins
	}
	wantJoined := func(t *testing.T, ch *child, join, create uintptr) {
		t.Helper()
		f := ch.facts(t)
		ours := links()
		for _, n := range names {
			switch got := f.NS[n.name]; {
			case join&n.flag != 0 && got != in.NS[n.name]:
				t.Errorf("%s not joined: %s, want %s", n.name, got, in.NS[n.name])
			case join&n.flag == 0 && (got != ours[n.name]) != (create&n.flag != 0):
				t.Errorf("%s: %s, ours is %s", n.name, got, ours[n.name])
			}
		}
		wantFDs(t, f, 0, 1, 2, 3)
		if f.UID != 0 || f.GID != 0 || f.Status["CapEff"] != f.Status["CapBnd"] {
			t.Errorf("ids %d:%d, CapEff %s", f.UID, f.GID, f.Status["CapEff"])
		}
		if f.DeathSignal != int(unix.SIGKILL) {
			t.Errorf("parent death signal %d", f.DeathSignal)
		}
		if join&unix.CLONE_NEWPID != 0 && (f.PID == 1 || f.PID == ch.PID) {
			t.Errorf("pid %d inside, %d outside", f.PID, ch.PID)
		}
		if got := ch.end(); !got.Exited() || got.ExitStatus() != 0 {
			t.Errorf("wait status %#x", got)
		}
	}
	for _, n := range names {
		t.Run("path/"+n.name, func(t *testing.T) {
			wantJoined(t, launch(t, &Config{Join: byPath(t, n.flag)}, "report"), n.flag, 0)
		})
		t.Run("others new/"+n.name, func(t *testing.T) {
			c := config(allNew &^ n.flag)
			c.Join = byPath(t, n.flag)
			if n.flag == unix.CLONE_NEWPID || n.flag == unix.CLONE_NEWTIME {
				// Only together with the user namespace that owns them... is
				// what a rootless caller could do; root may mix.
				c.TimeOffsets = nil
			}
			wantJoined(t, launch(t, c, "report"), n.flag, allNew&^n.flag)
		})
		t.Run("pidfd/"+n.name, func(t *testing.T) {
			wantJoined(t, launch(t, &Config{Join: []Join{{n.flag, int(holder.FD.Fd())}}}, "report"), n.flag, 0)
		})
	}
	t.Run("paths", func(t *testing.T) {
		wantJoined(t, launch(t, &Config{Join: byPath(t, allNew)}, "report"), allNew, 0)
	})
	t.Run("pidfd", func(t *testing.T) {
		wantJoined(t, launch(t, &Config{Join: []Join{{allNew, int(holder.FD.Fd())}}}, "report"), allNew, 0)
	})
	t.Run("pidfd without user", func(t *testing.T) {
		flags := uintptr(allNew &^ unix.CLONE_NEWUSER)
		wantJoined(t, launch(t, &Config{Join: []Join{{flags, int(holder.FD.Fd())}}}, "report"), flags, 0)
	})
	t.Run("user, new pid", func(t *testing.T) {
		c := &Config{New: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Join: byPath(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNET)}
		ch := launch(t, c, "report")
		if f := ch.facts(t); f.PID != 1 || f.NS["user"] != in.NS["user"] || f.NS["net"] != in.NS["net"] {
			t.Errorf("pid %d, namespaces %v", f.PID, f.NS)
		}
	})
	noStrays(t)
}

// Where a PID namespace is joined, its processes see a child that has no way
// to the host's files from its first moment.
func TestRoot(t *testing.T) {
	needRoot(t)
	holder := launch(t, config(unix.CLONE_NEWPID), "report")
	holder.facts(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/marker", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// 100000 of the user namespace is nobody here.
	for path := dir; path != "/tmp" && path != "/"; path = filepath.Dir(path) {
		os.Chmod(path, 0o755)
	}
	for _, create := range []uintptr{unix.CLONE_NEWNS, unix.CLONE_NEWNS | unix.CLONE_NEWUSER | unix.CLONE_NEWNET} {
		c := config(create)
		c.Root = must(unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
		c.Join = []Join{{unix.CLONE_NEWPID, int(holder.FD.Fd())}}
		ch := launch(t, c, "root")
		unix.Close(c.Root)
		_, payload, _, err := ch.conn.Recv(soon())
		if err != nil || string(payload) != "marker in /" {
			t.Errorf("%s: the root holds %q, %v", typeNames(create), payload, err)
		}
		mounts := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", ch.PID))))
		if n := strings.Count(mounts, "\n"); n != 1 {
			t.Errorf("%s: %d mounts:\n%s", typeNames(create), n, mounts)
		}
		if ws := ch.end(); ws != 0 {
			t.Errorf("wait status %#x", ws)
		}
	}
	if _, err := tryLaunch(t, &Config{Root: 1}, "root"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a root without a mount namespace: %v", err)
	}
}

func TestJoinFailures(t *testing.T) {
	needRoot(t)
	null := must(os.Open("/dev/null"))
	defer null.Close()
	// In one stage the child says so itself, in two it is Spawn that fails.
	ch := launch(t, &Config{Join: []Join{{unix.CLONE_NEWNET, int(null.Fd())}}}, "report")
	if text, errno := ch.failure(t); text != "setns net" || errno != unix.EINVAL {
		t.Errorf("%q, %v", text, errno)
	}
	if _, _, _, err := ch.conn.Recv(soon()); err != io.EOF {
		t.Errorf("after the error: %v, want EOF", err)
	}
	ch.end()
	_, err := tryLaunch(t, &Config{Join: []Join{{unix.CLONE_NEWPID, int(null.Fd())}}}, "report")
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "setns pid") {
		t.Errorf("two stages: %v", err)
	}
	// A descriptor of the wrong type, which setns notices too.
	ipc := must(Open("/proc/self/ns/ipc", unix.CLONE_NEWIPC))
	defer ipc.Close()
	ch = launch(t, &Config{Join: []Join{{unix.CLONE_NEWNET, int(ipc.Fd())}}}, "report")
	if text, errno := ch.failure(t); text != "setns net" || errno != unix.EINVAL {
		t.Errorf("%q, %v", text, errno)
	}
	ch.end()
	noChildren(t)
}

func TestOpen(t *testing.T) {
	for _, n := range names {
		f, err := Open("/proc/self/ns/"+n.name, n.flag)
		if err != nil {
			t.Error(err)
			continue
		}
		f.Close()
	}
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"/proc/self/ns/net": {"a net namespace", "a uts namespace is wanted"},
		"/dev/null":         {"not a namespace", "uts"},
		fifo:                {"not a namespace", "uts"},
		"/proc/self/status": {"not a namespace", "uts"},
		"/nonexistent":      {"no such file"},
	} {
		_, err := Open(path, unix.CLONE_NEWUTS)
		var pathErr *os.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q misses %q", path, err, text)
			}
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []*Config{
		{New: unix.CLONE_NEWNET, Join: []Join{{unix.CLONE_NEWNET, 0}}},
		{Join: []Join{{unix.CLONE_NEWNET, 0}, {unix.CLONE_NEWNET, 0}}},
		{UIDMaps: mapped},
		{TimeOffsets: map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1}}},
		{Inherit: -1},
		{Env: []string{"A=\x00"}},
	} {
		if _, err := tryLaunch(t, c, "report"); err == nil {
			t.Errorf("%+v accepted", c)
		}
		if c.Child.FD() != -1 {
			t.Errorf("%+v: Child left open", c)
		}
	}
	if _, err := Spawn(&Config{}); err == nil {
		t.Error("empty Config accepted")
	}
}

func TestCloneAndExecFailures(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		null := must(os.Open("/dev/null"))
		defer null.Close()
		_, err := tryLaunch(t, &Config{Cgroup: int(null.Fd())}, "report")
		if !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "clone3") {
			t.Errorf("not a cgroup: %v", err)
		}
		ch := launch(t, &Config{Exe: null}, "report")
		if text, errno := ch.failure(t); text != "execveat" || errno != unix.EACCES {
			t.Errorf("%q, %v", text, errno)
		}
		if ws := ch.end(); ws.ExitStatus() != 1 {
			t.Errorf("wait status %#x", ws)
		}
		_, err = tryLaunch(t, &Config{New: 1 << 40}, "report")
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("unknown namespace: %v", err)
		}
	})
	noChildren(t)
}

func TestDescriptors(t *testing.T) {
	// Descriptors of the host, as a careless caller leaks them: not
	// close-on-exec.
	var leaked []int
	for range 5 {
		leaked = append(leaked, must(unix.Open("/", unix.O_PATH, 0)))
	}
	leaked = append(leaked, must(unix.FcntlInt(uintptr(leaked[0]), unix.F_DUPFD, 200)))
	defer closeAll(leaked)
	bothWays(t, func(t *testing.T) {
		wantFDs(t, launch(t, &Config{}, "report").facts(t), 0, 1, 2, 3)
	})
}

// Inherit needs known numbers from 3 on, so it is tried in a process of its
// own, in every way in which they can collide with what Spawn uses.
func TestInherit(t *testing.T) {
	for inherit := range 6 {
		want := []int{0, 1, 2}
		for fd := 3; fd <= 3+inherit; fd++ {
			want = append(want, fd)
		}
		for _, on := range []string{"exe", "conn", "other"} {
			t.Run(fmt.Sprint(inherit, on), func(t *testing.T) {
				ch := launch(t, &Config{Args: []string{strconv.Itoa(inherit), on}}, "inherit")
				wantFDs(t, ch.facts(t), want...)
			})
		}
	}
}

// inherit lays out the descriptors, spawns a report and passes it on.
func inherit(c *Conn) {
	n := must(strconv.Atoi(os.Args[2]))
	move := func(fd, to int) int {
		if err := unix.Dup3(fd, to, unix.O_CLOEXEC); err != nil {
			panic(err)
		}
		return to
	}
	c = FromFD(move(c.fd, 150))
	exe := move(int(must(Sealed(new(Config))).Fd()), 151)
	parent, theirs := must2(Pair())
	parent, theirs = FromFD(move(parent.fd, 152)), FromFD(move(theirs.fd, 153))
	unix.CloseRange(3, 149, 0)
	for fd := 3; fd < 3+n; fd++ {
		unix.Dup3(0, fd, 0)
	}
	switch os.Args[3] {
	case "exe":
		exe = move(exe, 3+n)
	case "conn":
		theirs = FromFD(move(theirs.fd, 3+n))
		unix.Close(153)
	default: // something that must not get through
		unix.Dup3(0, 3+n, 0)
		unix.Dup3(0, 5+n, 0)
	}
	relay(c, &Config{Inherit: n, Exe: os.NewFile(uintptr(exe), "exe"), Child: theirs}, parent)
}

// What the caller ignores or blocks does not reach the container.
func TestSignals(t *testing.T) {
	var old unix.Sigset_t
	block := unix.Sigset_t{Val: [16]uint64{1<<(unix.SIGTERM-1) | 1<<(unix.SIGUSR1-1)}}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	var ignore, was [4]uint64
	ignore[0] = 1 // SIG_IGN
	sigaction(unix.SIGPIPE, &ignore, &was)
	defer sigaction(unix.SIGPIPE, &was, nil)
	bothWays(t, func(t *testing.T) {
		f := launch(t, &Config{}, "report").facts(t)
		if f.Status["SigIgn"] != "0000000000000000" || f.Status["SigBlk"] != "0000000000000000" {
			t.Errorf("ignored %s, blocked %s", f.Status["SigIgn"], f.Status["SigBlk"])
		}
	})
}

func sigaction(sig syscall.Signal, action, old *[4]uint64) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}

func TestArgsEnv(t *testing.T) {
	c := &Config{Args: []string{"a b", ""}, Env: []string{"X=1", "GODEBUG=asyncpreemptoff=1"}}
	f := launch(t, c, "report").facts(t)
	if !slices.Equal(f.Args, []string{"probe", "report", "a b", ""}) || !slices.Equal(f.Env, c.Env) {
		t.Errorf("args %q, env %q", f.Args, f.Env)
	}
	if f := launch(t, &Config{}, "report").facts(t); len(f.Env) != 0 {
		t.Errorf("env %q, want none", f.Env)
	}
}

func TestThreadDeath(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		spawned := make(chan *child)
		var run func()
		run = func() {
			goruntime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			if unix.Gettid() == unix.Getpid() {
				go run() // but the main thread does not
				select {}
			}
			ch, err := tryLaunch(t, config(0), "report")
			if err != nil {
				t.Error(err)
			} else {
				ch.facts(t)
			}
			spawned <- ch
		}
		go run()
		ch := <-spawned
		if ch == nil {
			return
		}
		var ws syscall.WaitStatus
		if err := waitPID(ch.PID, &ws); err != nil || ws.Signal() != unix.SIGKILL {
			t.Errorf("%v, wait status %#x; want killed by the kernel", err, ws)
		}
	})
}

func waitPID(pid int, ws *syscall.WaitStatus) error {
	for deadline := soon(); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got, err := syscall.Wait4(pid, ws, syscall.WNOHANG, nil); err != nil || got == pid {
			return err
		}
	}
	return os.ErrDeadlineExceeded
}

// grandchild spawns a report in the namespaces that its argument asks for,
// tells of it and waits for its own death.
func grandchild(c *Conn) {
	flags, _ := strconv.ParseUint(os.Args[2], 0, 64)
	parent, theirs := must2(Pair())
	p := must(Spawn(&Config{New: uintptr(flags), Cgroup: -1, Exe: must(Sealed(new(Config))), Args: []string{"probe", "report"}, Child: theirs}))
	if os.Args[3] == "late" {
		parent.Recv(soon())
	}
	c.Send(1, nil, int(p.FD.Fd()))
	time.Sleep(time.Minute)
	parent.Close()
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// The parent dies by SIGKILL, with the child freshly cloned or long since
// running.
func TestParentDeath(t *testing.T) {
	needRoot(t)
	for _, when := range []string{"early", "late"} {
		for _, flags := range []uintptr{0, unix.CLONE_NEWPID, allNew &^ unix.CLONE_NEWUSER} {
			ch := launch(t, &Config{Args: []string{strconv.Itoa(int(flags)), when}}, "grandchild")
			_, _, fds, err := ch.conn.Recv(soon())
			if err != nil || len(fds) != 1 {
				t.Fatalf("%d descriptors, %v", len(fds), err)
			}
			unix.PidfdSendSignal(int(ch.FD.Fd()), unix.SIGKILL, nil, 0)
			if !ended(fds[0]) {
				t.Errorf("%s %s: the grandchild outlives its parent", when, typeNames(flags))
				unix.PidfdSendSignal(fds[0], unix.SIGKILL, nil, 0)
			}
			closeAll(fds)
			ch.end()
		}
	}
	reapOrphans()
}

// reapOrphans reaps what became ours where we are pid 1.
func reapOrphans() {
	for {
		if _, err := retry(func() (int, error) { return unix.Wait4(-1, nil, 0, nil) }); err != nil {
			break
		}
	}
}

// A child whose gate is never opened notices that its parent is gone.
func TestGateEOF(t *testing.T) {
	needRoot(t)
	bothWays(t, func(t *testing.T) {
		for _, offsets := range []map[string]specs.LinuxTimeOffset{nil, {"monotonic": {Secs: 1}}} {
			goruntime.LockOSThread()
			parent, theirs := must2(Pair())
			c := config(allNew)
			c.TimeOffsets = offsets
			exe := must(Sealed(new(Config)))
			c.Exe, c.Args, c.Child, c.Cgroup = exe, []string{"probe", "report"}, theirs, -1
			h, boot := must2(prepare(c))
			p := must(h.start())
			unix.Close(int(h.boot))
			theirs.Close()
			time.Sleep(20 * time.Millisecond)
			boot.Close()
			var ws syscall.WaitStatus
			if err := waitPID(p.PID, &ws); err != nil || !ws.Exited() || ws.ExitStatus() != 1 {
				t.Errorf("%v, wait status %#x", err, ws)
			}
			if kind, _, _, err := parent.Recv(soon()); err != io.EOF {
				t.Errorf("%#x, %v; want EOF", kind, err)
			}
			goruntime.KeepAlive(h)
			p.FD.Close()
			exe.Close()
			parent.Close()
			goruntime.UnlockOSThread()
		}
	})
	noChildren(t)
}

// Spawn in the middle of garbage collections and of other threads' work.
func TestSpawnUnderLoad(t *testing.T) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var keep [][]byte
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			keep = append(keep, make([]byte, 10000))
			if i%100 == 0 {
				goruntime.KeepAlive(keep)
				keep = nil
				goruntime.GC()
			}
		}
	}()
	defer func() { close(stop); <-done }()
	kinds := []uintptr{0}
	if os.Geteuid() == 0 {
		kinds = append(kinds, unix.CLONE_NEWUSER, allNew)
	}
	bothWays(t, func(t *testing.T) {
		for i := range 90 {
			ch := launch(t, config(kinds[i%len(kinds)]), "exit")
			if _, _, _, err := ch.conn.Recv(soon()); err != io.EOF {
				t.Fatal(err)
			}
			if ws := ch.end(); ws != 0 {
				t.Fatalf("wait status %#x", ws)
			}
		}
	})
}

// ended waits for the end of the process behind a pidfd.
func ended(pidfd int) bool {
	n, _ := retry(func() (int, error) {
		return unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000)
	})
	return n == 1
}

// noChildren fails if this process has an unreaped child.
func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

// noStrays fails if this process has an unreaped zombie.
func noStrays(t *testing.T) {
	t.Helper()
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err == nil && pid > 0 {
		t.Errorf("a zombie is left: %d", pid)
	}
}
