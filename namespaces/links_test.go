package namespaces

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeLinker writes down what it is asked for, in the directory that stands for the
// namespace, or whose name stands for the owner.
type fakeLinker struct{ dir string }

func (f *fakeLinker) Wire(fd int, owner string, devices []Device) (int, error) {
	f.dir, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	f.note("wire "+owner, devices)
	switch devices[0].Name {
	case "refuse":
		return 1, fmt.Errorf("it is stuck: %w", unix.EBUSY)
	case "crash":
		panic("crash")
	case "garbage":
		unix.Write(3, []byte{77, 0})
	}
	return 0, nil
}

func (f *fakeLinker) Leased() []string { return nil }
func (f *fakeLinker) Names() []string  { return nil }

func (f *fakeLinker) Back() error {
	f.note("back", nil)
	if _, err := os.Stat(f.dir + "/refuse"); err == nil {
		return errors.New("it does not come back")
	}
	return nil
}

func (f *fakeLinker) Remove(owner string, bridges []string) error {
	f.dir = owner
	f.note(fmt.Sprint("remove ", bridges), nil)
	return nil
}

func (f *fakeLinker) note(what string, devices []Device) {
	file, err := os.OpenFile(f.dir+"/notes", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer file.Close()
	fmt.Fprintln(file, what, devices)
}

// startLinks runs this test binary as the program, with a directory for a namespace.
func startLinks(t *testing.T) (l *Links, dir *os.File, notes func() string) {
	t.Helper()
	exe := must(os.Open("/proc/self/exe"))
	defer exe.Close()
	l, err := StartLinks(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir = must(os.Open(t.TempDir()))
	t.Cleanup(func() { dir.Close() })
	return l, dir, func() string {
		b, _ := os.ReadFile(filepath.Join(dir.Name(), "notes"))
		return string(b)
	}
}

func TestLinks(t *testing.T) {
	devices := []Device{{Name: "a", Host: "b"}, {Name: "c%d", Host: "d"}, {Name: "e", Make: "f=g"}}
	before := len(openAny())
	for _, test := range []struct {
		end  func(*Links) error
		want string
	}{
		{(*Links).Keep, "wire me [{a b } {c%d d } {e  f=g}]\n"},
		{(*Links).Close, "wire me [{a b } {c%d d } {e  f=g}]\nback []\n"},
		{func(l *Links) error { return errors.Join(l.Back(), l.Close()) }, "wire me [{a b } {c%d d } {e  f=g}]\nback []\nback []\n"},
		{func(l *Links) error { return errors.Join(l.Wait(), l.Wait(), l.Keep()) }, "wire me [{a b } {c%d d } {e  f=g}]\n"},
	} {
		l, dir, notes := startLinks(t)
		if err := l.Wire(int(dir.Fd()), "me", devices); err != nil {
			t.Fatal(err)
		}
		if err := test.end(l); err != nil {
			t.Error(err)
		}
		if got := notes(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
		dir.Close()
	}
	if after := len(openAny()); after != before {
		t.Errorf("%d descriptors leaked", after-before)
	}
}

func TestLinksFailures(t *testing.T) {
	for _, test := range []struct {
		devices []Device
		index   int
		want    string
	}{
		{[]Device{{Name: "refuse"}}, 1, "it is stuck: device or resource busy"},
		{[]Device{{Name: "crash"}}, -1, "the network helper died: panic: crash"},
		{[]Device{{Name: "garbage"}}, -1, "answer of kind 77: bad message"},
		{[]Device{{Name: "a\x00b"}}, -1, "message of kind 1 with 1 descriptors: bad message"},
	} {
		l, dir, _ := startLinks(t)
		if err := l.Wire(int(dir.Fd()), "me", test.devices); err != nil {
			t.Fatal(err)
		}
		err := l.Wait()
		e, ok := errors.AsType[*DeviceError](err)
		if !ok || e.Index != test.index || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%v: %v", test.devices, err)
		}
		_ = l.Close()
	}
}

// What could not be put back is said by whoever asks first.
func TestLinksBackFails(t *testing.T) {
	back := func(l *Links) error { return errors.Join(l.Back(), l.Close()) }
	for _, ask := range []func(*Links) error{back, (*Links).Close} {
		l, dir, _ := startLinks(t)
		must(0, os.WriteFile(filepath.Join(dir.Name(), "refuse"), nil, 0o600))
		must(0, l.Wire(int(dir.Fd()), "me", []Device{{Name: "a"}}))
		must(0, l.Wait())
		if err := ask(l); err == nil || !strings.Contains(err.Error(), "it does not come back") {
			t.Error(err)
		}
	}
}

func TestLinksWithoutProgram(t *testing.T) {
	for _, program := range []string{"", "not a program"} {
		if l, err := StartLinks(strings.NewReader(program)); err == nil {
			t.Errorf("%q runs: %v", program, l)
		}
	}
}

// TestLinksOrphaned: who started the program is killed in the middle of something.
func TestLinksOrphaned(t *testing.T) {
	l, dir, notes := startLinks(t)
	must(0, l.Wire(int(dir.Fd()), "me", []Device{{Name: "a"}}))
	l.conn.Close() // all that the program sees of our death
	for end := time.Now().Add(5 * time.Second); !strings.Contains(notes(), "back"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the devices stay away")
		}
	}
	if id, err := unix.Getsid(l.proc.PID); err == nil && id != l.proc.PID {
		t.Errorf("process %d in session %d: the terminal's interrupt would reach it", l.proc.PID, id)
	}
	_ = l.Close()
}

func TestLinksRemove(t *testing.T) {
	l, dir, notes := startLinks(t)
	must(0, l.Remove(dir.Name(), []string{"br0", "br1"}))
	if err := l.Keep(); err != nil {
		t.Error(err)
	}
	if got := notes(); got != "remove [br0 br1] []\n" {
		t.Errorf("%q", got)
	}
}
