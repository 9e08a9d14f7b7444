package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
	"golang.org/x/sys/unix"
)

// The environment variables by which a box's processes know what they are.
const (
	envInit  = "HUSK_BOX_INIT"  // this process is PID 1 of a box
	envTest  = "HUSK_BOX_TEST"  // this process runs that one test in a box
	envTools = "HUSK_BOX_TOOLS" // where probe, tool and husk are
)

// boxTimeout ends a box that hangs. No test needs more than a few seconds, or minutes on a
// machine that is emulated or busy; the sweeps watch their own clock.
const boxTimeout = 8 * time.Minute

// patience is short for its many callers.
var patience = harness.Patience

// toolDir holds the compiled helpers. It belongs to the outermost process.
var toolDir = os.Getenv(envTools)

func TestMain(m *testing.M) {
	if os.Getenv(envInit) != "" {
		os.Exit(boxInit())
	}
	if toolDir != "" {
		os.Exit(m.Run())
	}
	code := m.Run()
	if toolDir != "" {
		os.RemoveAll(toolDir)
	}
	os.Exit(code)
}

// box runs f as the body of test t inside a box of its own. Boxes of different
// tests run beside one another unless the caller wants to be alone.
func box(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if systemdDriver {
		underSystemd(t, f)
		return
	}
	if os.Getenv(envTest) == "" {
		t.Parallel()
		runBox(t)
		return
	}
	runInside(t, f)
}

// quietBox is box for tests that measure time: nothing runs beside them.
func quietBox(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if systemdDriver {
		underSystemd(t, f)
		return
	}
	if os.Getenv(envTest) == "" {
		runBox(t)
		return
	}
	runInside(t, f)
}

func runInside(t *testing.T, f func(t *testing.T)) {
	before := census(t)
	t.Cleanup(func() { before.compare(t) })
	f(t)
}

// exact makes the -test.run pattern that selects one (sub)test.
func exact(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// runBox starts this test binary once more as PID 1 of a new box and reports
// what became of the test in there.
func runBox(t *testing.T) {
	requireTools(t)
	group, err := harness.NewGroup("husk-test")
	if err != nil {
		t.Skipf("needs %v", err)
	}
	t.Cleanup(func() { group.Remove() })
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run="+exact(t.Name()), "-test.timeout=0")
	cmd.Args = append(cmd.Args, inheritedFlags()...)
	cmd.Env = append(os.Environ(), envInit+"=1", envTest+"="+t.Name(), envTools+"="+toolDir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = group.Isolate()
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a box: %v", err)
	}
	timer := time.AfterFunc(boxTimeout, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	if !timer.Stop() {
		t.Errorf("killed: took more than %v", boxTimeout)
	}
	report(t, err, out.String())
}

// inheritedFlags passes on what changes how a test runs, not which.
func inheritedFlags() []string {
	var flags []string
	for _, a := range os.Args[1:] {
		if strings.HasPrefix(a, "-test.short") || strings.HasPrefix(a, "-test.testlogfile") {
			flags = append(flags, a)
		}
	}
	return flags[:len(flags):len(flags)]
}

func report(t *testing.T, err error, out string) {
	t.Helper()
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(out, "--- SKIP: "+t.Name()+" "):
		t.Skip(skipReason(out))
	case !strings.Contains(out, "--- PASS: "+t.Name()+" "):
		t.Errorf("the test did not run in its box:\n%s", out)
	case testing.Verbose():
		t.Log("\n" + out)
	}
}

func skipReason(out string) string {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "skipped"
}

// boxInit is PID 1 of a box: it furnishes the box, starts the test as its child
// and reaps whoever is reparented to it, as a machine's init would.
func boxInit() int {
	// The cgroup namespace that furnish unshares is this thread's alone, and the test
	// is to be born of this thread.
	goruntime.LockOSThread()
	if err := furnish(); err != nil {
		fmt.Println("furnish the box:", err)
		return 2
	}
	os.Unsetenv(envInit)
	return harness.Run(append(os.Environ(), "TMPDIR="+workRoot))
}

// workRoot is where tests have their directories, on the box's own tmpfs.
const workRoot = "/run/work"

// furnish sets up the namespaces. "/" is shared as systemd leaves it on real
// machines: what a runtime gets wrong about propagation then shows.
func furnish() error {
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
	}{
		{"", "/", "", unix.MS_PRIVATE | unix.MS_REC},
		{"", "/", "", unix.MS_SHARED | unix.MS_REC},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	// The sandbox of a developer may cover it with v1 trees: all go, from this
	// mount namespace only.
	for unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH) == nil {
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup2: %w", err)
	}
	// Below the root there must be no process beside groups with controllers.
	if err := os.Mkdir("/sys/fs/cgroup/harness", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/sys/fs/cgroup/harness/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	return os.MkdirAll(workRoot, 0o755)
}

// onDisk has a test work on a disk where the kernel maps no ids on tmpfs: a sandbox that
// root starts needs its workspace mapped.
func onDisk(t *testing.T) {
	t.Helper()
	if kernelIs("6.3") {
		return
	}
	var fs unix.Statfs_t
	must(t, unix.Statfs("/var/tmp", &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the kernel maps no ids on tmpfs, which /var/tmp is on")
	}
	dir, err := os.MkdirTemp("/var/tmp", "husk-test-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
}

// requireTools builds what tests need, once, and skips when that is impossible.
func requireTools(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts and cgroups of its own")
	}
	if missing := buildTools(); missing != nil {
		t.Skip(missing)
	}
}

var buildTools = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "husk-integration-")
	if err != nil {
		return err
	}
	toolDir = dir
	husk, err := findHusk()
	if err != nil {
		return err
	}
	if err := os.Symlink(husk, filepath.Join(dir, "runtime")); err != nil {
		return err
	}
	for _, name := range []string{"probe", "tool", "hog", "agent", "hostile"} {
		if err := findTool(name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := os.Symlink("tool", filepath.Join(dir, "husk")); err != nil {
		return err
	}
	return findBusybox(filepath.Join(dir, "busybox"))
})

// findTool takes a helper from $HUSK_TOOLS, where no compiler is, or compiles it.
func findTool(name, target string) error {
	if tools := os.Getenv("HUSK_TOOLS"); tools != "" {
		return os.Symlink(filepath.Join(tools, name), target)
	}
	return compile(filepath.Join("probe", name+".c"), target)
}

// compile needs a C compiler and its static C library.
func compile(source, target string) error {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	out, err := exec.Command(cc, "-O2", "-static", "-s", "-o", target, source).CombinedOutput()
	if err != nil {
		return fmt.Errorf("needs a C compiler with a static C library: %v: %s", err, out)
	}
	return nil
}

// findHusk takes $HUSK or lets make bring ../husk up to date.
func findHusk() (string, error) {
	if path := os.Getenv("HUSK"); path != "" {
		return filepath.Abs(path)
	}
	out, err := exec.Command("make", "-s", "-C", "..", "build").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("needs husk: make build: %v: %s", err, out)
	}
	return filepath.Abs("../husk")
}

// findBusybox links a busybox that runs in an empty root file system.
func findBusybox(link string) error {
	for _, name := range []string{"busybox", "busybox-static", "/bin/busybox.static"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if out, err := exec.Command("ldd", path).CombinedOutput(); err == nil && !bytes.Contains(out, []byte("not a dynamic")) {
			continue
		}
		return os.Symlink(path, link)
	}
	return errors.New("needs a static busybox (package busybox-static)")
}

// tool returns the path of a helper.
func tool(name string) string { return filepath.Join(toolDir, name) }

func itoa(n int) string { return strconv.Itoa(n) }
