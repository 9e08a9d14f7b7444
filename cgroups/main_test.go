package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// The tests that need a real cgroup2 run in a mount and a PID namespace of
// their own with cgroup2 at /sys/fs/cgroup, whatever the host has there. As
// root the test binary starts itself again so; otherwise these tests skip.
const nativeEnv, helperEnv = "HUSK_TEST_NATIVE", "HUSK_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helper()
	}
	switch os.Getenv(nativeEnv) {
	case "":
		if code, ok := reexec(); ok {
			os.Exit(code)
		}
	case "1":
		if err := ownMounts(); err != nil {
			fmt.Fprintln(os.Stderr, "private mounts:", err)
			os.Exit(1)
		}
		_ = os.Setenv(nativeEnv, "2") // fuzz workers are already inside
	}
	os.Exit(m.Run())
}

// reexec runs the test binary in new namespaces; ok is false where that is not permitted.
func reexec() (code int, ok bool) {
	runtime.LockOSThread() // Pdeathsig is the death of this thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), nativeEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, false
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGQUIT, syscall.SIGINT)
	go func() {
		for s := range stop {
			_ = cmd.Process.Signal(s)
		}
	}()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), true
}

func ownMounts() error {
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
	)
	switch where, noMount := Mountpoint(); {
	case noMount != nil:
		err = errors.Join(err, unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""))
	case where != mountpoints[0]:
		err = errors.Join(err, unix.Mount(where, "/sys/fs/cgroup", "", unix.MS_BIND, ""))
	}
	return err
}

// asHybrid covers /sys/fs/cgroup as on a host with cgroup v1 and calls between, then shows
// cgroup2 where it is on such hosts. That is the machine's mount: to mount it once more
// would change the options of the hierarchy, which are those of who mounts last.
func asHybrid(t *testing.T, between func()) {
	t.Helper()
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/sys/fs/cgroup", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	defer unix.Close(tree)
	tmpfs(t, "/sys/fs/cgroup")
	if between != nil {
		between()
	}
	const unified = "/sys/fs/cgroup/unified"
	must(t, os.Mkdir(unified, 0o755))
	must(t, unix.MoveMount(tree, "", unix.AT_FDCWD, unified, unix.MOVE_MOUNT_F_EMPTY_PATH))
	t.Cleanup(func() { must(t, unix.Unmount(unified, unix.MNT_DETACH)) })
}

func needCgroup2(t testing.TB) {
	t.Helper()
	if os.Getenv(nativeEnv) == "" {
		t.Skip("needs root: a mount namespace with cgroup2")
	}
}

// testPath names a group of this test and sees to it that nothing of it remains.
func testPath(t testing.TB) string {
	t.Helper()
	needCgroup2(t)
	path := fmt.Sprintf("/husk-test-%d-%s", time.Now().UnixNano(), strings.ToLower(filepath.Base(t.Name())))
	path = strings.Map(func(r rune) rune {
		if strings.ContainsRune("#$*()", r) {
			return '_'
		}
		return r
	}, path)
	t.Cleanup(func() {
		g, err := Open(path)
		if errors.Is(err, unix.ENOENT) {
			return
		}
		must(t, err)
		defer g.Close()
		_ = kernfs.Write(g.fd, "cgroup.freeze", "0")
		if err := g.KillAll(soon()); err != nil {
			t.Error(err)
		}
		if err := Remove(path, []string{path}); err != nil {
			t.Error(err)
		}
	})
	return path
}

func testGroup(t testing.TB, controllers ...string) *Group {
	t.Helper()
	return mustCreate(t, testPath(t), controllers...)
}

func mustCreate(t testing.TB, path string, controllers ...string) *Group {
	t.Helper()
	g, err := Create(path, controllers)
	must(t, err)
	t.Cleanup(g.Close)
	return g
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat("/sys/fs/cgroup" + path)
	return err == nil
}

// wantError checks the errno (if any) and that the text has all the words.
func wantError(t *testing.T, err, is error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("error %v is not %v", err, is)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
}

// spawn starts a shell script inside g, born there, and reaps it at the end.
func spawn(t testing.TB, g *Group, script string) *exec.Cmd {
	t.Helper()
	return start(t, g, exec.Command("/bin/sh", "-c", script))
}

func start(t testing.TB, g *Group, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD()}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// spawnHelper starts the test binary inside g, as the named case of helper.
func spawnHelper(t testing.TB, g *Group, what string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	out, err := cmd.StdoutPipe()
	must(t, err)
	start(t, g, cmd)
	ready := make([]byte, 2)
	if _, err := out.Read(ready); err != nil {
		t.Fatal("helper did not get ready:", err)
	}
}

// helper is what spawnHelper starts. It ends by syscall.Exit: where coverage is measured
// os.Exit would add words of its own to the output.
func helper() {
	what, path, _ := strings.Cut(os.Getenv(helperEnv), ":")
	switch what {
	case "heavy":
		// A quarter of a gigabyte takes its time to be torn down at exit.
		mem, err := unix.Mmap(-1, 0, 256<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
		if err != nil {
			os.Exit(1)
		}
		mem[0] = 1
	case "pages":
		mem, err := unix.Mmap(-1, 0, 96<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
		if err != nil {
			os.Exit(1)
		}
		for i := 0; i < len(mem); i += 4096 {
			mem[i], mem[i+1] = byte(i>>12), byte(i>>20)|1 // not all the same: zswap would drop them
		}
	case "create":
		// A group in the place that is ours, with a controller and without, or in the given one.
		var err error
		if path == "" {
			path, err = Delegated()
			path += "/husk-made"
		}
		for _, controllers := range [][]string{{"hugetlb"}, nil} {
			var g *Group
			if err == nil {
				g, err = Create(path, controllers)
			}
			if err != nil {
				fmt.Println(err)
				err = nil
				continue
			}
			fmt.Println("made", path, g.Update([]Limit{{Field: "/x", File: "cgroup.max.depth", Value: "5"}}))
			g.Close()
		}
		syscall.Exit(0)
	case "delegated":
		path, err := Delegated()
		if err != nil {
			path = err.Error()
		}
		fmt.Println(path)
		syscall.Exit(0)
	}
	fmt.Println("ok")
	time.Sleep(time.Minute)
	syscall.Exit(0)
}

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// eventually waits for something another process does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen: ", what)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(bytes.TrimSpace(b))
}
