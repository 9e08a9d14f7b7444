package namespaces

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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

// An executable that was replaced, removed, or is its owner's alone is copied.
func TestSealedFallback(t *testing.T) {
	needRoot(t)
	self := must(os.ReadFile(selfExe))
	for name, change := range map[string]func(path string) error{
		"plain":    func(string) error { return nil },
		"removed":  os.Remove,
		"replaced": func(path string) error { os.Remove(path); return os.WriteFile(path, self, 0o755) },
		"private":  func(path string) error { return os.Chmod(path, 0o700) },
	} {
		path := filepath.Join(t.TempDir(), "with space,comma:colon\\")
		if err := os.WriteFile(path, self, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path)
		cmd.Args = []string{"probe", "seal"}
		in, out := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		in.Write([]byte("go"))
		var got [256]byte
		n, _ := out.Read(got[:])
		cmd.Wait()
		want := map[bool]string{true: "overlay", false: "copy"}[name == "plain"]
		if !strings.HasPrefix(string(got[:n]), want) {
			t.Errorf("%s: %s, want %s", name, got[:n], want)
		}
	}
}

// reportSeal is the probe of TestSealedFallback.
func reportSeal() {
	os.Stdin.Read(make([]byte, 2))
	exe, err := Sealed()
	switch {
	case err != nil:
		fmt.Println(err)
	case strings.HasPrefix(exe.Name(), "memfd:"):
		fmt.Println("copy")
	default:
		fmt.Println("overlay")
	}
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
