package engines

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
	"golang.org/x/sys/unix"
)

// envRole tells this program, executed again, what it is in the box.
const envRole = "ENGINES_ROLE"

const boxPath = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// boxTimeout ends a box that hangs: before the test binary's own timeout would leave it.
const boxTimeout = 28 * time.Minute

// TestMain runs all tests in one box, or, if the whole machine is a throw-away root, right
// here. Where there can be neither, they skip themselves.
func TestMain(m *testing.M) {
	switch role := os.Getenv(envRole); {
	case os.Getenv("ENGINES_ROOT") == "/":
		os.Setenv(envRole, "machine")
		if err := bindFile(os.Getenv("HUSK"), "/usr/local/bin/husk"); err != nil {
			fmt.Fprintln(os.Stderr, "engines:", err)
			os.Exit(1)
		}
		os.Setenv("PATH", boxPath)
		os.Exit(m.Run())
	case role == "init":
		os.Exit(boxInit())
	case role == "test" || os.Getenv("ENGINES_ROOT") == "" || os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	status, err := runBox()
	if err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		status = 1
	}
	os.Exit(status)
}

// runBox executes this test binary once more, as PID 1 of the box.
func runBox() (int, error) {
	husk, err := filepath.Abs(or(os.Getenv("HUSK"), "../../husk"))
	if err != nil {
		return 1, err
	}
	group, err := harness.NewGroup("husk-engines")
	if err != nil {
		return 1, err
	}
	defer func() {
		if err := group.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, "engines:", err)
		}
	}()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envRole+"=init", "HUSK="+husk)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = group.Isolate()
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	timer := time.AfterFunc(harness.Patience(boxTimeout), func() {
		fmt.Fprintln(os.Stderr, "engines: killed: took too long")
		cmd.Process.Kill()
	})
	defer timer.Stop()
	err = cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok && err != nil {
		return 1, err
	}
	return max(cmd.ProcessState.ExitCode(), -cmd.ProcessState.ExitCode()), nil
}

// boxInit furnishes the box and reaps, as a machine's init would, until the tests end.
func boxInit() int {
	runtime.LockOSThread() // the cgroup namespace is this thread's, of which the tests are born
	if err := furnish(os.Getenv("ENGINES_ROOT"), os.Getenv("HUSK")); err != nil {
		fmt.Fprintln(os.Stderr, "engines: furnish the box:", err)
		return 1
	}
	os.Setenv("PATH", boxPath)
	os.Setenv("HOME", "/root")
	os.Unsetenv("TMPDIR")
	os.Unsetenv("XDG_RUNTIME_DIR")
	os.Setenv(envRole, "test")
	return harness.Run(os.Environ())
}

// The places in the box: what it is made from, the source tree, the tests' part of it.
const (
	newRoot = "/mnt/root"
	treeDir = "/mnt"
	testDir = treeDir + "/integration/engines"
)

// furnish makes root, below an overlay, the root of the box.
func furnish(root, husk string) error {
	tests, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := mounts([]mount{
		{"", "/", "", unix.MS_PRIVATE | unix.MS_REC, ""},
		{"tmpfs", "/mnt", "tmpfs", 0, ""},
	}); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/mnt/upper", 0o755), os.Mkdir("/mnt/work", 0o755), os.Mkdir(newRoot, 0o755)); err != nil {
		return err
	}
	if err := mounts([]mount{
		{"overlay", newRoot, "overlay", 0, "lowerdir=" + root + ",upperdir=/mnt/upper,workdir=/mnt/work"},
		{"proc", newRoot + "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", newRoot + "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", newRoot + "/dev", "tmpfs", unix.MS_NOSUID, "mode=755"},
		{"tmpfs", newRoot + "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmpfs", newRoot + "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"tmpfs", newRoot + "/var/lib/docker", "tmpfs", 0, ""}, // no overlay on an overlay
		{"tmpfs", newRoot + "/var/lib/containerd", "tmpfs", 0, ""},
		{"tmpfs", newRoot + "/var/lib/containers", "tmpfs", 0, ""},
		{filepath.Join(tests, "../.."), newRoot + treeDir, "", unix.MS_BIND, ""},
	}); err != nil {
		return err
	}
	if err := devices(newRoot + "/dev"); err != nil {
		return err
	}
	if err := bindFile(husk, newRoot+"/usr/local/bin/husk"); err != nil {
		return err
	}
	if err := errors.Join(os.Chdir(newRoot), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir(testDir)); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	return settleIn()
}

// settleIn does what an init does before it starts services.
func settleIn() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := mounts([]mount{
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"", "/", "", unix.MS_SHARED | unix.MS_REC, ""}, // as systemd leaves it
	}); err != nil {
		return err
	}
	// Below the root there must be no process beside groups with controllers.
	if err := os.Mkdir("/sys/fs/cgroup/init", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/sys/fs/cgroup/init/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	return errors.Join(
		unix.Sethostname([]byte("box")),
		os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost box\n"), 0o644),
		exec.Command("ip", "link", "set", "lo", "up").Run(),
	)
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mounts(list []mount) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return &os.PathError{Op: "mount", Path: m.target, Err: err}
		}
	}
	return nil
}

// devices furnishes /dev as devtmpfs and systemd do.
func devices(dev string) error {
	for name, number := range map[string][2]uint32{
		"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9},
		"tty": {5, 0}, "kmsg": {1, 11}, "fuse": {10, 229}, "net/tun": {10, 200},
	} {
		path := filepath.Join(dev, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))); err != nil {
			return &os.PathError{Op: "mknod", Path: path, Err: err}
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return mounts([]mount{
		{"devpts", dev + "/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"tmpfs", dev + "/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"mqueue", dev + "/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	})
}

func bindFile(source, target string) error {
	if err := os.WriteFile(target, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w (husk is built by: make build)", source, err)
	}
	return nil
}

func or(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}
