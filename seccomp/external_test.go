package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// self is a compiler that runs this test binary.
func self(t testing.TB) *external {
	t.Helper()
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return External(f).(*external)
}

func TestExternal(t *testing.T) {
	c := self(t)
	profile := "compile " + strings.Repeat("x", 300_000) // more than a pipe holds
	f, err := c.Compile([]byte(profile))
	if err != nil {
		t.Fatal(err)
	}
	if want := testFilter(profile); !reflect.DeepEqual(f, want) {
		t.Errorf("got %v, want %v", f, want)
	}
}

func TestExternalComplaints(t *testing.T) {
	c := self(t)
	_, err := c.Compile([]byte("complain /linux/seccomp/a\tis wrong\n/linux/seccomp/b\tis worse\n"))
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %v", err)
	}
	for i, want := range []FieldError{{"/linux/seccomp/a", errors.New("is wrong")}, {"/linux/seccomp/b", errors.New("is worse")}} {
		var fe *FieldError
		if !errors.As(joined.Unwrap()[i], &fe) || !reflect.DeepEqual(*fe, want) {
			t.Errorf("got %v, want %v", joined.Unwrap()[i], want)
		}
	}
}

func TestExternalFailures(t *testing.T) {
	tests := []struct{ profile, want string }{
		{"complain out of order", "exit status 1: out of order"},
		{"complain /linux/seccomp/a\tx\nand then panic", "and then panic"},
		{"garbage nothing like it", "not an encoded seccomp filter"},
		{"garbage ", "not an encoded seccomp filter"},
		{"flood", "not an encoded seccomp filter"},
		{"crash", "exit status 2: panic: crash"},
	}
	c := self(t)
	for _, tt := range tests {
		_, err := c.Compile([]byte(tt.profile))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.profile, err, tt.want)
		}
	}
}

func TestExternalTimeout(t *testing.T) {
	c := self(t)
	c.timeout = 100 * time.Millisecond
	start := time.Now()
	_, err := c.Compile([]byte("hang"))
	if err == nil || !strings.Contains(err.Error(), "no answer within 100ms") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestExternalWithoutProgram(t *testing.T) {
	for _, exe := range []string{"", "not a program"} {
		if _, err := External(strings.NewReader(exe)).Compile([]byte("{}")); err == nil {
			t.Errorf("%q compiled", exe)
		}
	}
}

// What is executed can be changed by nobody who has it, or gets at it.
func TestExternalSealed(t *testing.T) {
	f, err := (&external{exe: strings.NewReader("a program")}).program()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, f := range []*os.File{f, again} {
		fd := int(f.Fd())
		_, write := unix.Pwrite(fd, []byte("x"), 0)
		_, extend := unix.Pwrite(fd, []byte("x"), 100)
		_, mapped := unix.Mmap(fd, 0, 9, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		punch := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 9)
		_, unseal := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
		for what, err := range map[string]error{"write": write, "extend": extend, "map": mapped, "truncate": f.Truncate(1), "punch": punch, "seal": unseal} {
			if !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if b, _ := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); string(b) != "a program" {
		t.Errorf("%q", b)
	}
}

// TestBuildID: every go build writes one, and go test too.
func TestBuildID(t *testing.T) {
	id := self(t).ID()
	if strings.Count(id, "/") != 3 || len(id) < 40 {
		t.Errorf("ID %q", id)
	}
	note := func(text string) string {
		number := func(v int) string { return string(binary.NativeEndian.AppendUint32(nil, uint32(v))) }
		return "\x7fELF...." + number(4) + number(len(text)) + number(4) + "Go\x00\x00" + text
	}
	tests := []struct{ head, want string }{
		{note("a/b"), "a/b"},
		{note(strings.Repeat("x", 200))[:100], ""},
		{note(strings.Repeat("x", 257)), ""},
		{note(""), ""},
		{"", ""},
		{"\x04\x00\x00\x00Go\x00\x00", ""},
		{"GNU\x00" + string(bytes.Repeat([]byte{0}, 100)), ""},
	}
	for _, tt := range tests {
		if got := goBuildID([]byte(tt.head)); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.head, got, tt.want)
		}
	}
}
