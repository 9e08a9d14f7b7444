package rootfs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Native tests apply steps in a child: this test binary again, in namespaces of
// its own, with a job on stdin. The job ends with a probe, which looks at the
// result from inside and prints what the test wants to know.

const childEnv = "HUSK_ROOTFS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		goruntime.LockOSThread()
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// job is what a child does.
type job struct {
	Before, After []Step
	Open          bool // the parent opened the descriptors of steps with FD: 3, 4, …
	Probe         string
	Args          []string
}

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
	return probes[j.Probe](r, j.Args)
}

// bench is a bundle on a tmpfs, gone when the test ends.
type bundle struct {
	t    *testing.T
	dir  string
	opts Options
	attr *syscall.SysProcAttr
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{"rootfs", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/dev", "rootfs/tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &bundle{
		t: t, dir: dir,
		opts: Options{Bundle: dir, Mounts: true, Privileged: true, PidNS: true, NetNS: true, CgroupNS: true},
		attr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
			Pdeathsig:  unix.SIGKILL,
		},
	}
}

func (b *bundle) path(p string) string { return filepath.Join(b.dir, "rootfs", p) }

// run compiles the spec, applies it in a child and returns what the probe says.
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

func (b *bundle) apply(j job) (string, error) {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(exe)
	for _, steps := range [][]Step{j.Before, j.After} {
		for i := range steps {
			if !steps[i].FD {
				continue
			}
			fd, err := steps[i].Open()
			if err != nil {
				return "", err
			}
			f := os.NewFile(uintptr(fd), "mount")
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
	in, err := json.Marshal(j)
	if err != nil {
		b.t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd.Env = []string{childEnv + "=1"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(in)), &out, &errs
	cmd.SysProcAttr = b.attr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
