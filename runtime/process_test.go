package runtime

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env  []string
		home string
		want []string
	}{
		{[]string{"A=1", "B=2", "A=3"}, "", []string{"B=2", "A=3"}},
		{[]string{"A=1", "AB=2"}, "/root", []string{"A=1", "AB=2", "HOME=/root"}},
		{[]string{"HOME=", "A=1"}, "", []string{"HOME=", "A=1"}},
		{[]string{"HOME=/x"}, "", []string{"HOME=/x"}},
		{nil, "/", []string{"HOME=/"}},
	} {
		if got := environment(c.env, c.home); !slices.Equal(got, c.want) {
			t.Errorf("%q %q: %q", c.env, c.home, got)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		name, path string
		want       []string
	}{
		{"/bin/sh", "/x", []string{"/bin/sh"}},
		{"./sh", "/x", []string{"./sh"}},
		{"sh", "/a:/b", []string{"/a/sh", "/b/sh"}},
		{"sh", ":/b", []string{"./sh", "/b/sh"}},
	} {
		if got := candidates(c.name, c.path); !slices.Equal(got, c.want) {
			t.Errorf("%s %s: %q", c.name, c.path, got)
		}
	}
}

func TestExecError(t *testing.T) {
	const lost, found = "/nowhere/sh", "/proc/self/exe"
	for _, c := range []struct {
		name, want string
		files      []string
		answers    []unix.Errno
	}{
		{"sh", `exec: "sh": executable file not found in $PATH`, []string{lost}, []unix.Errno{unix.ENOENT}},
		{"sh", `exec: "sh": executable file not found in $PATH`, []string{lost, lost}, []unix.Errno{unix.ENOENT, unix.ENOTDIR}},
		{"sh", "exec /nowhere/sh: permission denied", []string{lost, lost}, []unix.Errno{unix.EACCES, unix.ENOENT}},
		{lost, "exec /nowhere/sh: no such file or directory", []string{lost}, []unix.Errno{unix.ENOENT}},
		{lost, "exec /nowhere/sh: not a directory", []string{lost}, []unix.Errno{unix.ENOTDIR}},
		{"sh", "exec /proc/self/exe: its interpreter: no such file or directory", []string{found}, []unix.Errno{unix.ENOENT}},
	} {
		if got := execError(c.name, c.files, c.answers).Error(); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
}

func TestSearchPath(t *testing.T) {
	if p, home := searchPath([]string{"PATH=/a", "HOME=/h", "PATH=/b"}); p != "/b" || !home {
		t.Error(p, home)
	}
	if p, home := searchPath([]string{"HOME="}); p == "" || !home {
		t.Error(p, home)
	}
}

func TestCapMask(t *testing.T) {
	if m := capMask([]string{"CAP_CHOWN", "CAP_NOPE", "CAP_CHECKPOINT_RESTORE"}); m != 1|1<<unix.CAP_CHECKPOINT_RESTORE {
		t.Errorf("%x", m)
	}
	if len(capNames) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names, the kernel headers have %d", len(capNames), unix.CAP_LAST_CAP+1)
	}
	if s := capList(capMask([]string{"CAP_KILL", "CAP_BPF"})); s != "kill,bpf" {
		t.Error(s)
	}
}

func TestCloseAllBut(t *testing.T) {
	// Far above what the test itself has open.
	for _, fd := range []int{900, 901, 902} {
		if err := unix.Dup3(2, fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	if err := closeAllBut(900, 901); err != nil {
		t.Fatal(err)
	}
	for fd, open := range map[int]bool{900: false, 901: true, 902: false} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); (err == nil) != open {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
	_ = unix.Close(901)
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		field string
		err   error
		want  int
	}{
		{"/process/args/0", unix.ENOENT, 127},
		{"/process/args/0", &notFoundError{"x", unix.ENOENT}, 127},
		{"/process/args/0", unix.EACCES, 126},
		{"/process/args/0", unix.ENOEXEC, 126},
		{"/mounts/0", unix.ENOENT, 0},
	} {
		if got := exitCode(c.field, c.err); got != c.want {
			t.Errorf("%s %v: %d", c.field, c.err, got)
		}
	}
}
