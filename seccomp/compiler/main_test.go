package main

import (
	"os"
	"strings"
	"testing"

	"github.com/huskrun/husk/runtime"
	"github.com/huskrun/husk/seccomp"
	"github.com/huskrun/husk/seccomp/libseccomp"
)

// TestMain: the test binary is also the program under test.
func TestMain(m *testing.M) {
	if os.Args[0] == "husk-seccomp-compiler" {
		main()
		return
	}
	os.Exit(m.Run())
}

func self(t testing.TB) seccomp.Compiler {
	t.Helper()
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return seccomp.External(f)
}

// TestSameAsInProcess: the program gives what the library gives, from memory and
// with nothing around it.
func TestSameAsInProcess(t *testing.T) {
	profile, err := os.ReadFile("../testdata/docker.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := self(t).Compile(profile)
	if err != nil {
		t.Fatal(err)
	}
	want, err := libseccomp.Compiler().Compile(profile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.BPF) != string(want.BPF) || got.Flags != want.Flags {
		t.Errorf("%d bytes, flags %#x; want %d bytes, flags %#x", len(got.BPF), got.Flags, len(want.BPF), want.Flags)
	}
}

func TestComplaints(t *testing.T) {
	tests := []struct {
		profile string
		want    []string
	}{
		{`{"defaultAction":"x","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"}]}`, []string{
			`/linux/seccomp/defaultAction: unknown action "x"`,
			"/linux/seccomp/syscalls/0/names: needs at least one system call",
		}},
		{`{"defaultAction":7}`, []string{"/linux/seccomp/defaultAction: is of the wrong type"}},
		{`{`, []string{"/linux/seccomp: unexpected EOF"}},
		{"{\"defaultAction\":\"a\\tb\\nc\"}", []string{`/linux/seccomp/defaultAction: unknown action "a\tb\nc"`}},
	}
	for _, tt := range tests {
		_, err := self(t).Compile([]byte(tt.profile))
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok || len(joined.Unwrap()) != len(tt.want) {
			t.Errorf("%s: got %v, want %q", tt.profile, err, tt.want)
			continue
		}
		for i, e := range joined.Unwrap() {
			if _, ok := e.(*seccomp.FieldError); !ok || !strings.HasPrefix(e.Error(), tt.want[i]) {
				t.Errorf("%s: got %v, want %q", tt.profile, e, tt.want[i])
			}
		}
	}
}

// TestDefaultProfile: what husk spec writes compiles on its own machine without
// a warning.
func TestDefaultProfile(t *testing.T) {
	f, err := libseccomp.Compile(runtime.DefaultSpec(false).Linux.Seccomp)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Warnings) > 0 {
		t.Error(f.Warnings)
	}
	t.Logf("%d instructions", len(f.BPF)/8)
}
