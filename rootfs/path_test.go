package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

func TestSplit(t *testing.T) {
	for in, want := range map[string][2]string{
		"/":        {"", ""},
		"":         {"", ""},
		"a":        {"", "a"},
		"/a":       {"/", "a"},
		"/a/b//":   {"/a/", "b"},
		"/a/./.":   {"/", "a"},
		"a/..":     {"a/", ".."},
		"/./":      {"", ""},
		"../a/.b/": {"../a/", ".b"},
	} {
		if dir, last := split(in); dir != want[0] || last != want[1] {
			t.Errorf("%q: %q %q", in, dir, last)
		}
	}
}

// tree makes symbolic links, files and directories from lines such as
// "a/b -> ../c", "file" and "dir/", below a directory. Names never lead out.
func tree(t *testing.T, root, text string) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		name, target, link := strings.Cut(line, " -> ")
		dir := strings.HasSuffix(name, "/")
		name = filepath.Join(root, filepath.Clean("/"+name))
		if i > 20 || strings.ContainsRune(line, 0) || name == root {
			continue
		}
		parent, err := filepath.EvalSymlinks(filepath.Dir(name))
		if err != nil && os.MkdirAll(filepath.Dir(name), 0o755) == nil {
			parent, err = filepath.Dir(name), nil
		}
		if err != nil || parent != root && !strings.HasPrefix(parent, root+"/") {
			continue // would be made outside
		}
		switch {
		case link:
			_ = os.Symlink(target, name)
		case dir:
			_ = os.MkdirAll(name, 0o755)
		default:
			_ = os.WriteFile(name, nil, 0o644)
		}
	}
}

func identity(t *testing.T, fd int) [2]uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	return [2]uint64{st.Dev, st.Ino}
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func FuzzInRoot(f *testing.F) {
	for _, seed := range [][2]string{
		{"a/b/\nl -> a/b", "l/../b"},
		{"l -> /", "l/l/l/.."},
		{"var/run -> /run", "var/run/x/y"},
		{"a -> ../../../../etc", "a/passwd"},
		{"a -> b\nb -> a", "a/x"},
		{"a/\na/b -> ../c\nc -> d/../e/", "a/b/f/.."},
		{"file", "file/x"},
		{"x/\nx/up -> ..", "x/up/up/new/../new2/./z"},
		{"p -> /proc/self/root", "p/etc"},
		{"a -> .", "a/a/a/../b//c/"},
		{"", ""},
		{"", "/"},
		{"", ".."},
		{"", "a/../../b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, p string) {
		if strings.ContainsRune(p, 0) || len(p) > 300 || len(text) > 1000 {
			return
		}
		dir := t.TempDir()
		inside := filepath.Join(dir, "root")
		must(t, os.MkdirAll(filepath.Join(dir, "etc"), 0o755))
		must(t, os.Mkdir(inside, 0o755))
		tree(t, inside, text)
		root, err := openat(unix.AT_FDCWD, inside, unix.O_PATH|unix.O_DIRECTORY)
		must(t, err)
		defer shut(root)

		// Existing paths: the same as the library of those who found the CVEs.
		fd, err := lookup(root, p, unix.O_PATH, 0)
		dirf := os.NewFile(uintptr(mustDup(t, root)), "root")
		defer dirf.Close()
		oracle, oerr := pathrs.OpenatInRoot(dirf, p)
		// It takes "" for the root, openat2(2) does not.
		if (err == nil) != (oerr == nil) && p != "" {
			t.Fatalf("lookup %v, oracle %v", err, oerr)
		}
		if err == nil {
			if oerr == nil && identity(t, fd) != identity(t, int(oracle.Fd())) {
				t.Error("not what the oracle found")
			}
			shut(fd)
		}
		if oerr == nil {
			oracle.Close()
		}

		// Missing ones are made inside, and are then found there.
		m := maker{root: root, mode: 0o755}
		made, err := m.mkdirAll(p)
		if err != nil {
			if p != "" && !errors.As(err, new(unix.Errno)) {
				t.Error(err)
			}
		} else {
			if where, err := os.Readlink(fdPath(made)); err != nil || where != inside && !strings.HasPrefix(where, inside+"/") {
				t.Errorf("made %s", where)
			}
			again, err := lookup(root, p, unix.O_PATH|unix.O_DIRECTORY, 0)
			if err != nil || identity(t, again) != identity(t, made) {
				t.Errorf("made, but not found: %v", err)
			}
			shut(again)
			shut(made)
		}
		for _, d := range []string{dir, filepath.Join(dir, "etc")} {
			names, err := os.ReadDir(d)
			if err != nil || d == dir && len(names) != 2 || d != dir && len(names) != 0 {
				t.Errorf("made outside: %v %v", names, err)
			}
		}
	})
}

func mustDup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return n
}
