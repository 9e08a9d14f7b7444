package namespaces

import (
	"encoding/json"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Like husk init, the probe stays on its main thread: parent death signals are
// a thread's own.
func init() {
	if len(os.Args) > 1 && os.Args[0] == "probe" {
		goruntime.LockOSThread()
	}
}

// The test binary is also what the tests spawn: its first argument says so.
func TestMain(m *testing.M) {
	if os.Args[0] == "husk-linker" {
		if err := ServeLinks(FromFD(3), new(fakeLinker)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(1)
		}
		syscall.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[0] == "probe" {
		probe(os.Args[1])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// facts are what a spawned process sees of itself.
type facts struct {
	PID, PPID, UID, GID int
	Groups              []int
	NS                  map[string]string
	UIDMap, GIDMap      string
	SetGroups, Offsets  string
	Uptime              int64
	FDs                 []int
	Status              map[string]string
	DeathSignal         int
	Cgroup              string
	Nofile              uint64
	Args, Env           []string
}

func probe(mode string) {
	switch mode { // not started by Spawn
	case "seal":
		reportSeal()
		return
	case "write":
		reportWrite()
		return
	case "rootless":
		rootless()
		return
	}
	RestoreNofile()
	fds := openFDs()
	c := FromFD(fds[len(fds)-1])
	switch mode {
	case "exit": // at once
	case "report":
		sayFacts(c, fds)
	case "echo":
		for {
			kind, payload, fds, err := c.Recv(time.Time{})
			if err != nil {
				return
			}
			if err := c.Send(kind, payload, fds...); err != nil {
				os.Exit(3)
			}
			closeAll(fds)
		}
	case "die": // with what the parent sent unread, and an error said
		time.Sleep(50 * time.Millisecond)
		c.Send(KindError, EncodeError(7, unix.ENOTDIR, "last words"))
	case "grandchild":
		grandchild(c)
	case "loopback":
		c.Send(1, []byte(tryLoopback()))
	case "nofile":
		nofile(c)
	case "root":
		var names []string
		for _, e := range must(os.ReadDir("/")) {
			names = append(names, e.Name())
		}
		c.Send(1, []byte(strings.Join(names, " ")+" in "+must(os.Getwd())))
		c.Recv(time.Time{})
	case "inherit":
		inherit(c)
	case "last":
		startLast(c)
	default:
		os.Exit(4)
	}
}

func sayFacts(c *Conn, fds []int) {
	var f facts
	f.FDs = fds
	f.PID, f.PPID, f.UID, f.GID = os.Getpid(), os.Getppid(), os.Getuid(), os.Getgid()
	f.Groups, _ = os.Getgroups()
	f.NS = links()
	f.UIDMap, f.GIDMap = fileText("uid_map"), fileText("gid_map")
	f.SetGroups, f.Offsets, f.Cgroup = fileText("setgroups"), fileText("timens_offsets"), fileText("cgroup")
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	f.Uptime = ts.Sec
	f.Status = map[string]string{}
	for line := range strings.Lines(fileText("status") + "\n") {
		key, value, _ := strings.Cut(line, ":")
		f.Status[key] = strings.TrimSpace(value)
	}
	var sig int32
	unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&sig)), 0, 0, 0)
	f.DeathSignal = int(sig)
	var lim unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	f.Nofile = lim.Cur
	f.Args, f.Env = os.Args, os.Environ()
	b, _ := json.Marshal(f)
	c.Send(1, b)
	c.Recv(time.Time{}) // until the test hangs up
}

// relay spawns a report, passes on what it says and sees its end.
func relay(c *Conn, config *Config, parent *Conn) {
	config.Cgroup, config.Args = -1, []string{"probe", "report"}
	p := must(Spawn(config))
	kind, payload, _, err := parent.Recv(soon())
	if err != nil {
		panic(err)
	}
	c.Send(kind, payload)
	(&child{Process: p, conn: parent}).end()
}

func openFDs() []int {
	var fds []int
	for fd := range 256 {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// links are the calling thread's namespaces.
func links() map[string]string {
	m := map[string]string{}
	for _, n := range names {
		m[n.name], _ = os.Readlink("/proc/thread-self/ns/" + n.name)
	}
	return m
}

func fileText(name string) string {
	b, _ := os.ReadFile("/proc/self/" + name)
	return strings.TrimSpace(string(b))
}

// needRoot skips a test that the caller's rights do not allow.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces that only root may make")
	}
}

// child is a spawned probe.
type child struct {
	*Process
	conn  *Conn
	ended bool
}

// launch spawns the probe in a mode; what c leaves out is filled in. The
// process is gone, killed if need be, at the end of the test.
func launch(t testing.TB, c *Config, mode string) *child {
	t.Helper()
	ch, err := tryLaunch(t, c, mode)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func tryLaunch(t testing.TB, c *Config, mode string) (*child, error) {
	t.Helper()
	parent, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Close() })
	c.Child = theirs
	if c.Cgroup == 0 {
		c.Cgroup = -1
	}
	if c.Exe == nil {
		exe, err := Sealed(new(Config))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { exe.Close() })
		c.Exe = exe
	}
	c.Args = append([]string{"probe", mode}, c.Args...)
	p, err := Spawn(c)
	if err != nil {
		return nil, err
	}
	ch := &child{Process: p, conn: parent}
	t.Cleanup(func() { ch.end() })
	return ch, nil
}

// end hangs up and reaps.
func (c *child) end() syscall.WaitStatus {
	if c.ended {
		return 0
	}
	c.ended = true
	c.conn.Close()
	if !ended(int(c.FD.Fd())) {
		unix.PidfdSendSignal(int(c.FD.Fd()), unix.SIGKILL, nil, 0)
	}
	var ws syscall.WaitStatus
	syscall.Wait4(c.PID, &ws, 0, nil)
	c.FD.Close()
	return ws
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

// facts waits for the report.
func (c *child) facts(t testing.TB) *facts {
	t.Helper()
	kind, payload, _, err := c.conn.Recv(soon())
	if err != nil {
		t.Fatalf("no report: %v; wait status %#x", err, c.end())
	}
	if kind == KindError {
		_, errno, text, _ := DecodeError(payload)
		t.Fatalf("the child failed: %s: %v", text, errno)
	}
	var f facts
	if err := json.Unmarshal(payload, &f); err != nil {
		t.Fatal(err)
	}
	return &f
}

// failure waits for the error packet of the raw half.
func (c *child) failure(t testing.TB) (string, syscall.Errno) {
	t.Helper()
	kind, payload, _, err := c.conn.Recv(soon())
	if err != nil || kind != KindError {
		t.Fatalf("got kind %#x, %v; want an error packet", kind, err)
	}
	step, errno, text, err := DecodeError(payload)
	if err != nil || step != StepSpawn {
		t.Fatalf("step %#x, %v; want StepSpawn", step, err)
	}
	return text, errno
}

// bothWays runs a test with the child in shared and in copied memory.
func bothWays(t *testing.T, test func(t *testing.T)) {
	for _, share := range []bool{true, false} {
		if share && !canShare {
			continue
		}
		t.Run(map[bool]string{true: "shared", false: "copied"}[share], func(t *testing.T) {
			defer func(was bool) { canShare = was }(canShare)
			canShare = share
			test(t)
		})
	}
}

func wantFDs(t *testing.T, f *facts, want ...int) {
	t.Helper()
	if !slices.Equal(f.FDs, want) {
		t.Errorf("open descriptors %v, want %v", f.FDs, want)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprint("test setup: ", err))
	}
	return v
}
