package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counter is a Compiler that counts.
type counter struct {
	id string
	n  int
}

func (c *counter) ID() string { return c.id }

func (c *counter) Compile(profile []byte) (*Filter, error) {
	c.n++
	if strings.HasPrefix(string(profile), "bad") {
		return nil, errors.New("bad profile")
	}
	return testFilter(string(profile)), nil
}

// load loads and checks that it is the right filter, made by as many
// compilations as expected.
func load(t testing.TB, root, profile string, c *counter, compilations int) *Filter {
	t.Helper()
	before := c.n
	f, err := Load(root, []byte(profile), c)
	if err != nil {
		t.Fatal(err)
	}
	want := testFilter(profile)
	if !bytes.Equal(f.BPF, want.BPF) || f.ListenerMetadata != profile || f.Flags != want.Flags || !reflect.DeepEqual(f.Warnings[:2], want.Warnings) {
		t.Fatalf("got %v for %q", f, profile)
	}
	if c.n != before+compilations {
		t.Fatalf("%d compilations, want %d", c.n-before, compilations)
	}
	return f
}

func cacheFiles(t testing.TB, root string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, cacheDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	temps, _ := filepath.Glob(filepath.Join(root, cacheDir, ".*"))
	return append(files, temps...)
}

func TestCacheHit(t *testing.T) {
	root := t.TempDir()
	old := unix.Umask(0)
	defer unix.Umask(old)
	c := &counter{id: "one"}
	load(t, root, "p", c, 1)
	load(t, root, "p", c, 0)
	load(t, root, "q", c, 1)
	load(t, root, "p", &counter{id: "two"}, 1) // another compiler
	load(t, root, "p", c, 0)
	st, _ := os.Stat(filepath.Join(root, cacheDir))
	if st.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v", st.Mode())
	}
	files := cacheFiles(t, root)
	if len(files) != 3 {
		t.Errorf("files %q", files)
	}
	for _, name := range files {
		if st, _ := os.Stat(name); st.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
}

func TestLoadWithoutCache(t *testing.T) {
	for _, profile := range []string{"", "null", " null\n"} {
		if f, err := Load(t.TempDir(), []byte(profile), nil); f != nil || err != nil {
			t.Errorf("%q: %v, %v", profile, f, err)
		}
	}
	if _, err := Load("", []byte("{}"), nil); !errors.Is(err, ErrNoCompiler) {
		t.Error(err)
	}
	c := &counter{id: "one"}
	load(t, "", "p", c, 1)
	load(t, "", "p", c, 1)
	root := t.TempDir()
	load(t, root, "p", &counter{}, 1) // a compiler that cannot be told from others
	load(t, root, strings.Repeat("x", maxEntry), c, 1)
	if entries, _ := os.ReadDir(root); len(entries) > 0 {
		t.Error(entries)
	}
}

func TestMistakesAreNotCached(t *testing.T) {
	root, c := t.TempDir(), &counter{id: "one"}
	for range 2 {
		if _, err := Load(root, []byte("bad"), c); err == nil || err.Error() != "bad profile" {
			t.Error(err)
		}
	}
	if c.n != 2 || len(cacheFiles(t, root)) != 0 {
		t.Errorf("%d compilations, files %q", c.n, cacheFiles(t, root))
	}
}

// TestDamagedEntries: whatever happened to the file, the answer is right.
func TestDamagedEntries(t *testing.T) {
	root, c := t.TempDir(), &counter{id: "one"}
	load(t, root, "profile", c, 1)
	name := cacheFiles(t, root)[0]
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		load(t, root, "profile", c, 1)
		if now, _ := os.ReadFile(name); !bytes.Equal(now, good) {
			t.Fatalf("%s: not repaired", what)
		}
	}
	for n := range good {
		check(fmt.Sprintf("first %d bytes", n), good[:n])
		flipped := bytes.Clone(good)
		flipped[n] ^= 1 << (n % 8)
		check(fmt.Sprintf("byte %d changed", n), flipped)
	}
	check("longer", append(bytes.Clone(good), 0))
	check("twice", append(bytes.Clone(good), good...))
	check("zeros", make([]byte, len(good)))

	// A whole and correct entry, but for something else: its name is not trusted.
	load(t, root, "other", c, 1)
	for _, f := range cacheFiles(t, root) {
		if f != name {
			other, _ := os.ReadFile(f)
			check("other profile", other)
		}
	}
}

func TestStrangeEntries(t *testing.T) {
	name := entryName("one", []byte("p"))
	tests := []struct {
		what string
		make func(path string) error
	}{
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }},
		{"link", func(p string) error { return os.Symlink("/etc/passwd", p) }},
		{"dangling link", func(p string) error { return os.Symlink("/nowhere/x", p) }},
		{"writable by others", func(p string) error {
			b, _ := encodeEntry("one", []byte("p"), &Filter{BPF: program(errnoOf(5))})
			if err := os.WriteFile(p, b, 0o600); err != nil {
				return err
			}
			return os.Chmod(p, 0o666)
		}},
		{"sparse", func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(p, 6<<30)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			root, c := t.TempDir(), &counter{id: "one"}
			dir := filepath.Join(root, cacheDir)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tt.make(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			load(t, root, "p", c, 1)
			if tt.what != "directory" { // which rename cannot replace
				load(t, root, "p", c, 0)
			}
		})
	}
}

// TestUnusableDirectories: compiled each time, with the reason among the
// warnings, and nothing written where it should not be.
func TestUnusableDirectories(t *testing.T) {
	elsewhere := t.TempDir()
	tests := []struct {
		what, warning string
		make          func(root string) error
	}{
		{"no root", "no such file", os.RemoveAll},
		{"link", "not a directory", func(r string) error { return os.Symlink(elsewhere, filepath.Join(r, cacheDir)) }},
		{"file", "not a directory", func(r string) error { return os.WriteFile(filepath.Join(r, cacheDir), nil, 0o600) }},
		{"open to others", "is not ours alone: mode 0777", func(r string) error {
			if err := os.Mkdir(filepath.Join(r, cacheDir), 0o700); err != nil {
				return err
			}
			return os.Chmod(filepath.Join(r, cacheDir), 0o777)
		}},
		{"somebody else's", "is not ours alone: mode 0700, owner 4242", func(r string) error {
			if err := os.Mkdir(filepath.Join(r, cacheDir), 0o700); err != nil {
				return err
			}
			return os.Chown(filepath.Join(r, cacheDir), 4242, 4242)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			root, c := t.TempDir(), &counter{id: "one"}
			if err := tt.make(root); errors.Is(err, unix.EPERM) {
				t.Skip("needs root")
			} else if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				f := load(t, root, "p", c, 1)
				if len(f.Warnings) != 3 || !strings.Contains(f.Warnings[2], tt.warning) {
					t.Errorf("warnings %q, want %q", f.Warnings, tt.warning)
				}
			}
		})
	}
	if entries, _ := os.ReadDir(elsewhere); len(entries) > 0 {
		t.Error("followed a link: ", entries)
	}
}

func TestConcurrentWriters(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := &counter{id: "one"}
			for j := range 40 {
				profile := fmt.Sprint("p", (i+j)%5)
				f, err := Load(root, []byte(profile), c)
				if err != nil || f.ListenerMetadata != profile || len(f.Warnings) != 2 {
					t.Errorf("%v, %v", f, err)
				}
			}
		})
	}
	wg.Wait()
	if files := cacheFiles(t, root); len(files) != 5 {
		t.Errorf("files %q", files)
	}
}

func TestCacheIsBounded(t *testing.T) {
	root, c := t.TempDir(), &counter{id: "one"}
	for i := range maxEntries + 20 {
		load(t, root, fmt.Sprint("p", i), c, 1)
	}
	if n := len(cacheFiles(t, root)); n != maxEntries {
		t.Errorf("%d files", n)
	}
	load(t, root, fmt.Sprint("p", maxEntries+19), c, 0) // the newest stays

	root = t.TempDir()
	for i := range 12 {
		load(t, root, fmt.Sprint(i)+strings.Repeat("x", maxEntry/3), c, 1)
	}
	total := int64(0)
	for _, name := range cacheFiles(t, root) {
		st, _ := os.Stat(name)
		total += st.Size()
	}
	if total > maxTotal || total < maxTotal/2 {
		t.Errorf("%d bytes", total)
	}
}

func TestOldestGoesFirst(t *testing.T) {
	root, c := t.TempDir(), &counter{id: "one"}
	for i := range maxEntries {
		load(t, root, fmt.Sprint("p", i), c, 1)
		when := time.Now().Add(time.Duration(i-1000) * time.Second)
		if err := os.Chtimes(filepath.Join(root, cacheDir, entryName("one", []byte(fmt.Sprint("p", i)))), when, when); err != nil {
			t.Fatal(err)
		}
	}
	load(t, root, "new", c, 1)
	load(t, root, "p1", c, 0)
	load(t, root, "p0", c, 1)
}

func TestAbandonedFilesAreRemoved(t *testing.T) {
	root, c := t.TempDir(), &counter{id: "one"}
	load(t, root, "p", c, 1)
	dir := filepath.Join(root, cacheDir)
	for name, age := range map[string]time.Duration{".tmp-1-a": time.Hour, ".tmp-2-b": 0} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	load(t, root, "q", c, 1)
	if _, err := os.Stat(filepath.Join(dir, ".tmp-1-a")); err == nil {
		t.Error("the abandoned file is still there")
	}
	if _, err := os.Stat(filepath.Join(dir, ".tmp-2-b")); err != nil {
		t.Error("a writer lost its file: ", err)
	}
}

// TestFullDisk: a state directory on a full filesystem of 64 KiB, or one without
// inodes, still gets its filter, and keeps working as soon as there is room.
func TestFullDisk(t *testing.T) {
	for _, options := range []string{"size=64k", "size=1m,nr_inodes=3"} {
		t.Run(options, func(t *testing.T) {
			root := t.TempDir()
			privateTmpfs(t, root, options)
			filler := filepath.Join(root, "filler")
			_ = os.WriteFile(filler, make([]byte, 1<<17), 0o600)
			_ = os.WriteFile(filler+"2", nil, 0o600)
			c := &counter{id: "one"}
			profile := strings.Repeat("p", 20_000)
			for range 2 {
				f := load(t, root, profile, c, 1)
				if len(f.Warnings) != 3 || !strings.Contains(f.Warnings[2], unix.ENOSPC.Error()) {
					t.Errorf("warnings %q", f.Warnings)
				}
			}
			if files := cacheFiles(t, root); len(files) > 0 {
				t.Errorf("left %q", files)
			}
			os.Remove(filler)
			os.Remove(filler + "2")
			load(t, root, profile, c, 1)
			load(t, root, profile, c, 0)
		})
	}
}

// privateTmpfs mounts a tmpfs that only the calling thread sees. The thread ends
// with the test, since it stays locked, and the mount with it.
func privateTmpfs(t *testing.T, path, options string) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skip("needs root: ", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

// TestSum: what the sum is for.
func TestSum(t *testing.T) {
	seen := map[uint64]string{}
	add := func(what string, b []byte) {
		s := sum(0, b)
		if old, ok := seen[s]; ok {
			t.Errorf("%s and %s have the same sum", old, what)
		}
		seen[s] = what
	}
	for n := range 40 {
		b := make([]byte, n)
		add(fmt.Sprint(n, " zeros"), b)
		for i := range n * 8 {
			b[i/8] ^= 1 << (i % 8)
			add(fmt.Sprint(n, " bytes, bit ", i), b)
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func FuzzEntry(f *testing.F) {
	good, _ := encodeEntry("one", []byte("profile"), testFilter("profile"))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(cacheMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The sum keeps random changes out, so put it right to get further.
		if len(b) > len(cacheMagic)+8 {
			fixed := append([]byte(nil), b...)
			copy(fixed, cacheMagic)
			fixSum(fixed)
			b = fixed
		}
		got, err := decodeEntry(b, "one", []byte("profile"))
		if err != nil {
			return
		}
		if len(got.BPF) == 0 || len(got.BPF)%instructionSize != 0 || len(got.BPF) > maxInstructions*instructionSize {
			t.Errorf("accepted %d bytes of program", len(got.BPF))
		}
		again, err := encodeEntry("one", []byte("profile"), got)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q decodes and encodes to %q, %v", b, again, err)
		}
	})
}

func BenchmarkLoadHit(b *testing.B) {
	profile, err := os.ReadFile("testdata/docker.json")
	if err != nil {
		b.Fatal(err)
	}
	root, c := b.TempDir(), big{}
	if _, err := Load(root, profile, c); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if f, err := Load(root, profile, c); err != nil || len(f.Warnings) > 0 {
			b.Fatal(f.Warnings, err)
		}
	}
}

// big makes filters as long as Docker's.
type big struct{}

func (big) ID() string                      { return strings.Repeat("i", 83) }
func (big) Compile([]byte) (*Filter, error) { return &Filter{BPF: make([]byte, 1400*8)}, nil }
