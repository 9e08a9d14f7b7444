package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOutput(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	o, err := newOutput("profile", path, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if list, _ := os.ReadDir(dir); len(list) > 0 {
		t.Errorf("made before it is written: %v", list)
	}
	for _, text := range []string{"one", "another"} {
		if err := o.write([]byte(text)); err != nil {
			t.Error(err)
		}
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("%q", b)
		}
	}
	if _, err := newOutput("profile", filepath.Join(path, "below"), 100); !errors.Is(err, unix.ENOTDIR) {
		t.Error(err)
	}
	if err := os.Symlink(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if _, err := newOutput("profile", path+"2", 100); err == nil {
		t.Error("a link would be replaced")
	}
}

// What the rights allow may fail all the same.
func TestOutputImmutable(t *testing.T) {
	path := t.TempDir()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
		t.Skip("needs root, and a file system with attributes: ", err)
	}
	defer unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, 0)
	if _, err := newOutput("profile", filepath.Join(path, "out"), 100); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
}
