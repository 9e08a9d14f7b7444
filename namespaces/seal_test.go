package namespaces

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func seals(t testing.TB) map[string]*Executable {
	t.Helper()
	m := map[string]*Executable{"copy": must(sealCopy())}
	if os.Geteuid() == 0 {
		m["overlay"] = must(sealOverlay())
	}
	t.Cleanup(func() {
		for _, f := range m {
			f.Close()
		}
	})
	return m
}

// What the container may try with /proc/PID/exe, as root of the host even.
func TestSealed(t *testing.T) {
	before := must(os.Stat(selfExe))
	for name, exe := range seals(t) {
		t.Run(name, func(t *testing.T) {
			ch := launch(t, &Config{Exe: exe}, "report")
			ch.facts(t)
			path := fmt.Sprintf("/proc/%d/exe", ch.PID)
			for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC, unix.O_WRONLY | unix.O_APPEND} {
				fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
				if err == nil {
					if _, err = unix.Write(fd, []byte("x")); err == nil {
						t.Errorf("open with %#x and write succeeded", flags)
					}
					unix.Close(fd)
				}
			}
			if err := unix.Truncate(path, 0); err == nil {
				t.Error("truncate succeeded")
			}
			if err := unix.Chmod(path, 0o600); err == nil && name == "overlay" {
				t.Error("chmod succeeded")
			}
			if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err == nil {
				t.Error("bind mount onto itself succeeded")
				unix.Unmount(path, unix.MNT_DETACH)
			}
			// The container holds the file open across the process's end.
			kept, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(kept)
			ch.end()
			reopen := fmt.Sprintf("/proc/self/fd/%d", kept)
			if fd, err := unix.Open(reopen, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
				if _, err := unix.Write(fd, []byte("x")); err == nil {
					t.Error("writable once the process has ended")
				}
				unix.Close(fd)
			}
		})
	}
	after := must(os.Stat(selfExe))
	if before.ModTime() != after.ModTime() || before.Mode() != after.Mode() || before.Size() != after.Size() {
		t.Errorf("the executable has changed: %v, %v", before, after)
	}
}

// Root of a user namespace is nobody to the owner of the file.
func TestSealedInUserNamespace(t *testing.T) {
	needRoot(t)
	for name, exe := range seals(t) {
		c := config(allNew)
		c.Exe = exe
		if f := launch(t, c, "report").facts(t); f.UID != 0 {
			t.Errorf("%s: uid %d", name, f.UID)
		}
	}
}

func TestSealedSameContent(t *testing.T) {
	want := must(os.ReadFile(selfExe))
	for name, exe := range seals(t) {
		got := must(os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", exe.Fd())))
		if string(got) != string(want) {
			t.Errorf("%s: other content", name)
		}
	}
}

// An executable that was replaced, removed, or is its owner's alone is copied. So is that
// of an ordinary user, whom nobody lets mount an overlay, unless it is root's.
func TestSealedFallback(t *testing.T) {
	needRoot(t)
	self := must(os.ReadFile(selfExe))
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for name, test := range map[string]struct {
		change func(path string) error
		as     *syscall.SysProcAttr
		want   string
	}{
		"plain":    {func(string) error { return nil }, nil, "overlay"},
		"removed":  {os.Remove, nil, "copy"},
		"replaced": {func(path string) error { os.Remove(path); return os.WriteFile(path, self, 0o755) }, nil, "copy"},
		"private":  {func(path string) error { return os.Chmod(path, 0o700) }, nil, "copy"},

		"root's":             {func(string) error { return nil }, nobody, "itself, which the child could not open to write: permission denied"},
		"the user's":         {func(path string) error { return os.Chown(path, 65534, 0) }, nobody, "copy"},
		"a group's to write": {func(path string) error { return os.Chmod(path, 0o775) }, nobody, "copy"},
		"all's to write":     {func(path string) error { return os.Chmod(path, 0o757) }, nobody, "copy"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "with space,comma:colon\\")
		for _, err := range []error{os.Chmod(filepath.Dir(dir), 0o755), os.WriteFile(path, self, 0o755), os.Chmod(path, 0o755)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(path)
		cmd.Args, cmd.SysProcAttr, cmd.Stderr = []string{"probe", "seal"}, test.as, os.Stderr
		in, out := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := test.change(path); err != nil {
			t.Fatal(err)
		}
		in.Write([]byte("go"))
		got := string(must(io.ReadAll(out)))
		cmd.Wait()
		if got != test.want+"\n" {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// reportSeal is the probe of TestSealedFallback.
func reportSeal() {
	os.Stdin.Read(make([]byte, 2))
	id := os.Geteuid()
	exe, err := Sealed(&Config{New: unix.CLONE_NEWUSER, UIDMaps: []specs.LinuxIDMapping{{HostID: uint32(id), Size: 1}}})
	switch {
	case err != nil:
		fmt.Println(err)
	case strings.HasPrefix(exe.Name(), "memfd:"):
		fmt.Println("copy")
	case exe.mount >= 0:
		fmt.Println("overlay")
	default:
		cmd := exec.Command("/proc/self/fd/3")
		cmd.Args, cmd.ExtraFiles, cmd.Stdout = []string{"probe", "write"}, []*os.File{exe.File}, os.Stdout
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{HostID: id, Size: 1}},
		}
		if err := cmd.Run(); err != nil {
			fmt.Println(err)
		}
	}
}

// reportWrite says what keeps root of a user namespace from writing to its executable:
// were it permitted, it would be that it runs (ETXTBSY).
func reportWrite() {
	_, err := unix.Open(selfExe, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	fmt.Println("itself, which the child could not open to write:", err)
}

func TestOverlayRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs not to be root: it wants the overlay refused")
	}
	if _, err := sealOverlay(); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

func BenchmarkSeal(b *testing.B) {
	for name, seal := range map[string]func() (*Executable, error){"overlay": sealOverlay, "copy": sealCopy} {
		b.Run(name, func(b *testing.B) {
			if name == "overlay" {
				needRoot(b)
			}
			b.ReportMetric(float64(must(os.Stat(selfExe)).Size())/1e6, "MB")
			for b.Loop() {
				must(seal()).Close()
			}
		})
	}
}
