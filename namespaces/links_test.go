package namespaces

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeLinker writes down what it is asked for, next to the namespace's name.
type fakeLinker struct{ dir string }

func (f *fakeLinker) Move(fd int, devices []Device) (int, error) {
	f.dir, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	f.note("move", devices)
	switch devices[0].Host {
	case "refuse":
		return 1, fmt.Errorf("it is stuck: %w", unix.EBUSY)
	case "crash":
		panic("crash")
	case "garbage":
		unix.Write(3, []byte{77, 0})
	}
	return 0, nil
}

func (f *fakeLinker) Back() error {
	f.note("back", nil)
	if _, err := os.Stat(f.dir + "/refuse"); err == nil {
		return errors.New("it does not come back")
	}
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
	devices := []Device{{"a", "b"}, {"c", "d%d"}}
	before := len(openAny())
	for _, test := range []struct {
		end  func(*Links) error
		want string
	}{
		{(*Links).Keep, "move [{a b} {c d%d}]\n"},
		{(*Links).Close, "move [{a b} {c d%d}]\nback []\n"},
		{func(l *Links) error { return errors.Join(l.Back(), l.Close()) }, "move [{a b} {c d%d}]\nback []\nback []\n"},
		{func(l *Links) error { return errors.Join(l.Wait(), l.Wait(), l.Keep()) }, "move [{a b} {c d%d}]\n"},
	} {
		l, dir, notes := startLinks(t)
		if err := l.Move(int(dir.Fd()), devices); err != nil {
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
		{[]Device{{"refuse", "x"}}, 1, "it is stuck: device or resource busy"},
		{[]Device{{"crash", "x"}}, -1, "the network helper died: panic: crash"},
		{[]Device{{"garbage", "x"}}, -1, "answer of kind 77: bad message"},
		{[]Device{{"a\x00b", "x"}}, -1, "list of devices: bad message"},
	} {
		l, dir, _ := startLinks(t)
		if err := l.Move(int(dir.Fd()), test.devices); err != nil {
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
		must(0, l.Move(int(dir.Fd()), []Device{{"a", "b"}}))
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
	must(0, l.Move(int(dir.Fd()), []Device{{"a", "b"}}))
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

func TestDecodeDevices(t *testing.T) {
	if got, err := decodeDevices([]byte("a\x00b\x00c\x00d\x00")); err != nil || !reflect.DeepEqual(got, []Device{{"a", "b"}, {"c", "d"}}) {
		t.Error(got, err)
	}
	for _, bad := range []string{"a", "a\x00", "a\x00b", "a\x00b\x00c", "a\x00b\x00c\x00"} {
		if got, err := decodeDevices([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
