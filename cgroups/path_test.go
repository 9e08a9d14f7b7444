package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestPath(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "/husk-c1"},
		{"a", "/a"},
		{"/a", "/a"},
		{"a/b", "/a/b"},
		{"/a//b/./c/", "/a/b/c"},
		{"system.slice:husk:c1", "/system.slice:husk:c1"},
		{"/kubepods/burstable/pod-1", "/kubepods/burstable/pod-1"},
		{"/...", "/..."},
		{"/ü b", "/ü b"},
	} {
		got, err := Path(c.in, "c1")
		if err != nil || got != c.want {
			t.Errorf("Path(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestPathErrors(t *testing.T) {
	for _, c := range []struct{ in, word string }{
		{"/", "root cgroup"},
		{".", "root cgroup"},
		{"..", `without it`},
		{"/a/../b", `without it`},
		{"../../a", `without it`},
		{"/a\nb", "control characters"},
		{"/a\x00b", "control characters"},
		{"/a\x7f", "control characters"},
		{"/cgroup.procs", "interface files"},
		{"/" + strings.Repeat("x", 256), "file name too long"},
		{strings.Repeat("/abcdefg", 600), "file name too long"},
	} {
		got, err := Path(c.in, "c1")
		if err == nil {
			t.Errorf("Path(%q) = %q, want an error", c.in, got)
			continue
		}
		wantError(t, err, nil, "cgroupsPath", c.word)
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"", "/", "a/b", "../x", "/a/./b//", "/a/..", "slice:prefix:name", "/cgroup.procs", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Path(in, "id")
		if err != nil {
			return
		}
		if got != filepath.Clean(got) || got[0] != '/' || got == "/" {
			t.Errorf("Path(%q) = %q is not a clean path below the root", in, got)
		}
		if in != "" && got != filepath.Clean("/"+in) {
			t.Errorf("Path(%q) = %q is not what was asked for", in, got)
		}
		for name := range strings.SplitSeq(got[1:], "/") {
			if name == ".." || len(name) > unix.NAME_MAX || strings.ContainsAny(name, "\n\x00") {
				t.Errorf("Path(%q) contains %q", in, name)
			}
		}
		again, err := Path(got, "other")
		if err != nil || again != got {
			t.Errorf("Path(%q) = %q, %v: not stable", got, again, err)
		}
	})
}

func TestPrefixes(t *testing.T) {
	if diff := cmp.Diff([]string{"/a", "/a/b", "/a/b/c"}, prefixes("/a/b/c")); diff != "" {
		t.Error(diff)
	}
}

func TestMountpoint(t *testing.T) {
	needCgroup2(t)
	if got, err := Mountpoint(); err != nil || got != "/sys/fs/cgroup" {
		t.Errorf("unified host: %q, %v", got, err)
	}
	asHybrid(t, func() {
		_, err := Mountpoint()
		wantError(t, err, errNoMount, "/sys/fs/cgroup", "mount -t cgroup2")
		if _, err := Create("/x", nil); !errors.Is(err, errNoMount) {
			t.Errorf("Create without cgroup2: %v", err)
		}
	})
	if got, err := Mountpoint(); err != nil || got != "/sys/fs/cgroup/unified" {
		t.Errorf("hybrid host: %q, %v", got, err)
	}
	path := testPath(t)
	missing := Missing(path)
	mustCreate(t, path).Close()
	if _, err := os.Stat("/sys/fs/cgroup/unified" + path); err != nil {
		t.Error(err)
	}
	must(t, Remove(path, missing))
}

func tmpfs(t *testing.T, dir string) {
	t.Helper()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}
