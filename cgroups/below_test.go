package cgroups

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

func TestBelow(t *testing.T) {
	g := testGroup(t)
	inner := mustCreate(t, g.path+"/a/b")
	neighbour := mustCreate(t, g.path+"/a-neighbour")
	a, err := g.Below("a")
	must(t, err)
	defer a.Close()
	for in, want := range map[string]string{"": a.path, "/": a.path, ".": a.path, "b": inner.path, "/b/": inner.path, "./b": inner.path} {
		b, err := a.Below(in)
		if err != nil || b.path != want {
			t.Errorf("%q: %v, %v", in, b, err)
			continue
		}
		b.Close()
	}
	_, name := split(neighbour.path)
	for in, words := range map[string]string{
		"..": `".."`, "../" + name: `".."`, "b/../../" + name: `".."`, "b\n": "control characters",
		"cgroup.procs": "interface files", "c": "no such file", strings.TrimPrefix(name, "a"): "no such file",
	} {
		b, err := a.Below(in)
		if err == nil {
			t.Errorf("%q opened %s", in, b.path)
			continue
		}
		wantError(t, err, nil, words)
	}
	// Something mounted into the group is not a part of it.
	tmpfs(t, "/sys/fs/cgroup"+inner.path)
	_, err = a.Below("b")
	wantError(t, err, unix.EXDEV)
}

func FuzzBelow(f *testing.F) {
	for _, s := range []string{"", "/", "a/b", "../x", "/a/./b//", "/a/..", "cgroup.procs", "a\nb", "....", "a\x00b"} {
		f.Add(s)
	}
	dir := f.TempDir()
	fd, err := kernfs.Open(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	must(f, err)
	f.Cleanup(func() { kernfs.Close(fd) })
	must(f, os.MkdirAll(dir+"/a/b", 0o755))
	must(f, os.Symlink("/", dir+"/l"))
	g := &Group{fd: fd, path: "/fake"}
	f.Fuzz(func(t *testing.T, in string) {
		b, err := g.Below(in)
		if err != nil {
			return
		}
		defer b.Close()
		switch b.path {
		case "/fake", "/fake/a", "/fake/a/b":
		default:
			t.Errorf("%q opened %s", in, b.path)
		}
	})
}

// TestDelegated asks as another user from within groups that are delegated or not.
func TestDelegated(t *testing.T) {
	g := testGroup(t)
	const user = 4711
	slice := mustCreate(t, g.path+"/slice")
	scope := mustCreate(t, slice.path+"/scope")
	ask := func(what string) string {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperEnv+"="+what)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			UseCgroupFD: true, CgroupFD: scope.FD(),
			Credential: &syscall.Credential{Uid: user, Gid: user},
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if own, err := Own(); err != nil || own == scope.path {
		t.Errorf("own cgroup: %q, %v", own, err)
	}
	if got := ask("delegated"); !strings.Contains(got, "Delegate=yes") || !strings.Contains(got, scope.path) {
		t.Errorf("not delegated: %q", got)
	}
	if got := ask("create:" + slice.path + "/x"); !strings.Contains(got, "create cgroup "+slice.path+"/x: permission denied") || !strings.Contains(got, "Delegate=yes") {
		t.Error(got)
	}
	must(t, scope.Delegate(user))
	if got := ask("delegated"); got != scope.path {
		t.Errorf("own group delegated: %q", got)
	}
	must(t, slice.Delegate(user))
	if got := ask("delegated"); got != slice.path {
		t.Errorf("the one above delegated too: %q", got)
	}

	// There groups can be made, with the controllers that are passed on.
	got := ask("create")
	if !strings.Contains(got, "made "+slice.path+"/husk-made <nil>") {
		t.Error(got)
	}
	if list := readFile(t, "/sys/fs/cgroup"+g.path+"/cgroup.controllers"); !strings.Contains(list, "hugetlb") &&
		!strings.Contains(got, `controller "hugetlb" is not available in cgroup /: the group above does not pass it on`) {
		t.Error(got)
	}
}

func TestOwnErrors(t *testing.T) {
	for file, want := range map[string]error{
		"":                             errNoMount,
		"3:cpu:/x\n1:name=systemd:/\n": errNoMount,
		"0::/../../other\n":            errOutside,
		"0::/gone (deleted)\n":         errOutside,
	} {
		if _, err := parseOwn(file); !errors.Is(err, want) {
			t.Errorf("%q: %v", file, err)
		}
	}
	for file, want := range map[string]string{"0::/\n": "/", "5:x:/y\n0::/a:b/c d\n": "/a:b/c d", "0::/..x\n": "/..x"} {
		if got, err := parseOwn(file); err != nil || got != want {
			t.Errorf("%q: %q %v", file, got, err)
		}
	}
}
