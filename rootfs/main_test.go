package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Native tests apply steps in a child: this test binary again, in namespaces of
// its own, with a job on stdin. The job ends with a probe, which looks at the
// result from inside and prints what the test wants to know.
//
// What the tests take for the host is a mount namespace of their own too. At
// the end the real one must look as before.
const (
	envChild = "HUSK_ROOTFS_TEST_CHILD"
	envHost  = "HUSK_ROOTFS_TEST_HOST"
)

var update = flag.Bool("update", false, "rewrite the golden plans")

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envChild) != "":
		goruntime.LockOSThread()
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Geteuid() == 0 && os.Getenv(envHost) == "":
		os.Exit(inOwnHost())
	}
	os.Exit(m.Run())
}

// inOwnHost runs the tests in a mount namespace of their own, with cgroup2 where it is
// expected. That is the machine's mount: a new one would change the hierarchy's options.
func inOwnHost() int {
	before, _ := os.ReadFile("/proc/self/mountinfo")
	cmd := exec.Command("/bin/sh", append([]string{
		"-c",
		`mount --make-rprivate / && [ -d /sys/fs/cgroup/unified ] && mount --bind /sys/fs/cgroup/unified /mnt &&
			umount -R /sys/fs/cgroup && mount --bind /mnt /sys/fs/cgroup && umount /mnt; exec "$0" "$@"`,
		"/proc/self/exe",
	}, os.Args[1:]...)...)
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd.Args[3] = exe
	cmd.Env = append(os.Environ(), envHost+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	goruntime.LockOSThread() // Pdeathsig is about the parent's thread
	err = cmd.Run()
	if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(before) {
		fmt.Fprintln(os.Stderr, "the host's mount table changed:\n"+cmp.Diff(string(before), string(after)))
		return 1
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// job is what a child does.
type job struct {
	Before, After []Step
	Probe         string
	Args          []string
}

// probes look from inside. What they print is what run returns.
var probes = map[string]func(r *Root, args []string) error{}

func child() error {
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	next := 3
	r := New()
	for _, steps := range [][]Step{j.Before, j.After} {
		for i := range steps {
			fd := -1
			if steps[i].FD {
				fd = next
				next++
			}
			if err := r.Apply(&steps[i], fd); err != nil {
				return fmt.Errorf("%s: %w", steps[i].Field, err)
			}
		}
	}
	probe, ok := probes[j.Probe]
	if !ok {
		return fmt.Errorf("no probe %q", j.Probe)
	}
	return probe(r, j.Args)
}

// bundle is a directory with an empty rootfs, and how to run it.
type bundle struct {
	t    testing.TB
	dir  string
	opts Options
	attr *syscall.SysProcAttr
	tty  bool // the child's stderr is the null device
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func newBundle(t testing.TB) *bundle {
	t.Helper()
	needRoot(t)
	b := &bundle{
		t: t, dir: t.TempDir(),
		opts: Options{Mounts: true, Privileged: true},
		attr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
			Pdeathsig:  unix.SIGKILL,
		},
	}
	b.opts.Bundle = b.dir
	for _, d := range []string{"", "etc", "proc", "sys", "dev", "tmp"} {
		b.mkdir(d, 0o755)
	}
	must(t, unix.Chmod(b.path("tmp"), 0o1777))
	return b
}

const firstID = 100000

// userns puts the bundle's containers into a user namespace.
func (b *bundle) userns() *bundle {
	b.opts.UserNS = true
	b.attr.Cloneflags |= unix.CLONE_NEWUSER
	ids := []syscall.SysProcIDMap{{HostID: firstID, Size: 65536}}
	b.attr.UidMappings, b.attr.GidMappings = ids, ids
	b.attr.Credential = &syscall.Credential{}
	must(b.t, filepath.Walk(b.path(""), func(p string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Lchown(p, firstID, firstID))
	}))
	return b
}

// open lets everybody walk to the bundle.
func (b *bundle) open() {
	for dir := b.dir; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			must(b.t, os.Chmod(dir, 0o755))
		}
	}
}

func (b *bundle) path(p string) string { return filepath.Join(b.dir, "rootfs", p) }

func (b *bundle) mkdir(p string, mode os.FileMode) string {
	b.t.Helper()
	must(b.t, os.MkdirAll(b.path(p), mode))
	return b.path(p)
}

func (b *bundle) write(p, text string) string {
	b.t.Helper()
	b.mkdir(filepath.Dir(p), 0o755)
	must(b.t, os.WriteFile(b.path(p), []byte(text), 0o644))
	return b.path(p)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run compiles the spec, applies it in a child and returns what the probe says.
// Nobody outside may see a trace of it.
func (b *bundle) run(spec *specs.Spec, probe string, args ...string) (string, error) {
	b.t.Helper()
	if spec.Root == nil {
		spec.Root = &specs.Root{Path: "rootfs"}
	}
	before, after, err := Compile(spec, b.opts)
	if err != nil {
		return "", err
	}
	return b.apply(job{Before: before, After: after, Probe: probe, Args: args})
}

// must is run, where failing is a failure of the test.
func (b *bundle) must(spec *specs.Spec, probe string, args ...string) string {
	b.t.Helper()
	out, err := b.run(spec, probe, args...)
	must(b.t, err)
	return out
}

func (b *bundle) apply(j job) (string, error) {
	b.t.Helper()
	host, err := os.ReadFile("/proc/self/mountinfo")
	must(b.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe") // a user namespace may not walk to it
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGQUIT) }
	cmd.WaitDelay = time.Second
	for _, steps := range [][]Step{j.Before, j.After} {
		for i := range steps {
			if !steps[i].FD {
				continue
			}
			user := -1
			if m := steps[i].IDMap; m != nil {
				user = b.user(m)
			}
			fd, err := steps[i].Open(user)
			if err != nil {
				return "", err
			}
			f := os.NewFile(uintptr(fd), "mount")
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
	in, err := json.Marshal(j)
	must(b.t, err)
	var out, errs strings.Builder
	cmd.Env = []string{envChild + "=1"}
	cmd.Stdin, cmd.Stdout = strings.NewReader(string(in)), &out
	if !b.tty {
		cmd.Stderr = &errs
	}
	cmd.SysProcAttr = b.attr
	err = cmd.Run()
	if now, _ := os.ReadFile("/proc/self/mountinfo"); string(now) != string(host) {
		b.t.Errorf("the mount table outside changed:\n%s", cmp.Diff(string(host), string(now)))
	}
	if err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// mountEntry is a line of mountinfo.
type mountEntry struct {
	ID, Parent, Root, On, Options, Propagation, Type, Source, Super string
}

func parseMounts(table string) []mountEntry {
	var all []mountEntry
	for line := range strings.Lines(table) {
		left, right, _ := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		all = append(all, mountEntry{l[0], l[1], l[3], l[4], l[5], strings.Join(l[6:], " "), r[0], r[1], r[2]})
	}
	return all
}

// topMount is what is seen on a path.
func topMount(t testing.TB, table, on string) mountEntry {
	t.Helper()
	var found mountEntry
	for _, m := range parseMounts(table) {
		if m.On == on {
			found = m
		}
	}
	if found.On == "" {
		t.Fatalf("nothing mounted on %s in\n%s", on, table)
	}
	return found
}

// hostMount mounts on what the tests take for the host.
func hostMount(t testing.TB, source, on, fstype string, flags uintptr, data string) {
	t.Helper()
	must(t, os.MkdirAll(on, 0o755))
	must(t, unix.Mount(source, on, fstype, flags, data))
	t.Cleanup(func() { must(t, unix.Unmount(on, unix.MNT_DETACH)) })
}
