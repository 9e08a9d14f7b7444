package rootfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Attacks by an image: what it must not reach is a directory outside, CAN, with
// a secret in it. An attack ends in a clean error or in a container that is as
// it should be, within seconds; either way CAN and the bundle are as before, no
// mount shows outside (bundle.apply looks), and the secret is not seen inside.

const sentinel = "SENTINEL-7b1e"

type victim struct {
	*bundle
	can string
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{bundle: newBundle(t)}
	v.can = v.dir + "/can"
	hostMount(t, "none", v.can, "tmpfs", 0, "")
	must(t, os.Mkdir(v.can+"/d", 0o755))
	must(t, os.WriteFile(v.can+"/secret", []byte(sentinel), 0o644))
	must(t, os.WriteFile(v.can+"/ptmx", nil, 0o644))
	return v
}

// manifest describes everything outside of the rootfs.
func (v *victim) manifest() string {
	v.t.Helper()
	var b strings.Builder
	must(v.t, filepath.WalkDir(v.dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == v.path("") {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		link, _ := os.Readlink(p)
		text := ""
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text = string(data)
		}
		fmt.Fprintln(&b, p, st.Mode, st.Uid, st.Gid, st.Rdev, st.Size, st.Mtim.Nano(), link, text)
		return nil
	}))
	return b.String()
}

func init() {
	// secret looks for the sentinel in every file.
	probes["secret"] = func(r *Root, args []string) error {
		found := filepath.WalkDir("/", func(p string, _ fs.DirEntry, err error) error {
			var on unix.Statfs_t
			if err != nil || unix.Statfs(p, &on) == nil && (on.Type == unix.PROC_SUPER_MAGIC || on.Type == unix.SYSFS_MAGIC) {
				return fs.SkipDir
			}
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW, 0)
			if err != nil {
				return nil
			}
			defer unix.Close(fd)
			var data [100]byte
			if n, _ := unix.Read(fd, data[:]); n > 0 && strings.Contains(string(data[:n]), sentinel) {
				return fmt.Errorf("the secret is in %s", p)
			}
			return nil
		})
		if found != nil {
			fmt.Println(found)
		}
		if len(args) > 0 {
			return probes[args[0]](r, args[1:])
		}
		return nil
	}
	// procwhere checks that procfs did not follow a link. The directory that it
	// is mounted on may be called otherwise by now: a mount stays with it.
	probes["procwhere"] = func(r *Root, _ []string) error {
		table, err := r.Proc().Read("self/mountinfo", 1<<20)
		for _, m := range parseMounts(string(table)) {
			if m.Type == "proc" && m.On != "/proc" && m.On != "/bad" {
				fmt.Printf("procfs is on %s\n", m.On)
			}
		}
		return err
	}
	// procfs says whether /proc is a procfs.
	probes["procfs"] = func(*Root, []string) error {
		var st unix.Statfs_t
		if err := unix.Statfs("/proc", &st); err != nil {
			return err
		}
		if st.Type != unix.PROC_SUPER_MAGIC {
			fmt.Printf("/proc is of type %#x\n", st.Type)
		}
		return nil
	}
	// nulls checks that each path is a null device.
	probes["nulls"] = func(_ *Root, args []string) error {
		for _, p := range args {
			var st unix.Stat_t
			if err := unix.Stat(p, &st); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
				fmt.Printf("%s is no null device: %o %#x\n", p, st.Mode, st.Rdev)
			}
		}
		return nil
	}
	// terminals checks that each path is a terminal.
	probes["terminal"] = func(*Root, []string) error {
		var st unix.Stat_t
		if err := unix.Lstat("/dev/console", &st); err != nil {
			return err
		}
		if unix.Major(st.Rdev) != ptsMajorMin {
			fmt.Printf("/dev/console is %#x\n", st.Rdev)
		}
		return nil
	}
}

// attack runs and checks. It returns the error, if there was a clean one.
func (v *victim) attack(spec *specs.Spec, probe string, args ...string) error {
	v.t.Helper()
	before, start := v.manifest(), time.Now()
	out, err := v.run(spec, "secret", append([]string{probe}, args...)...)
	if d := time.Since(start); d > 5*time.Second {
		v.t.Errorf("took %v", d)
	}
	if diff := cmp.Diff(before, v.manifest()); diff != "" {
		v.t.Errorf("outside (-before +after):\n%s", diff)
	}
	if out != "" {
		v.t.Errorf("inside: %s", out)
	}
	return err
}

// links are ways for a symbolic link in the rootfs to mean a path outside.
func (v *victim) links(target string) []string {
	up := strings.Repeat("../", 20)
	return []string{
		target, up + target[1:], "/proc/self/root" + target, "/proc/1/cwd/" + up + target[1:],
		v.path("") + "/.." + strings.TrimPrefix(target, v.dir), "../" + strings.TrimPrefix(target, v.dir+"/"),
	}
}

func (v *victim) replace(p, link string) {
	v.t.Helper()
	must(v.t, os.RemoveAll(v.path(p)))
	v.mkdir(filepath.Dir(p), 0o755)
	must(v.t, os.Symlink(link, v.path(p)))
}

const refused = "is refused"

func TestLinksOutside(t *testing.T) {
	tty := &specs.Process{Terminal: true}
	pts := specs.Mount{Destination: "/dev/pts", Type: "devpts", Options: []string{"mode=620"}}
	sys := specs.Mount{Destination: "/sys", Type: "sysfs"}
	for _, tt := range []struct {
		name, link, target string
		want               string // "" is either
		spec               specs.Spec
	}{
		{"dev", "dev", "/d", "", specs.Spec{}},
		{"dev is the directory with ptmx", "dev", "", "", specs.Spec{}},
		{"proc", "proc", "/d", refused, specs.Spec{Mounts: []specs.Mount{procOn()}}},
		{"sys", "sys", "/d", refused, specs.Spec{Mounts: []specs.Mount{sys}}},
		{"bind on proc", "proc", "/d", refused, specs.Spec{Mounts: []specs.Mount{bind("/proc", "/proc")}}},
		{"shm", "dev/shm", "/d", "", specs.Spec{Mounts: []specs.Mount{tmpfs("/dev/shm")}}},
		{"console", "dev/console", "/new", "", specs.Spec{Mounts: []specs.Mount{pts}, Process: tty}},
		{"console on a secret", "dev/console", "/secret", "", specs.Spec{Mounts: []specs.Mount{pts}, Process: tty}},
		{"console, readonly", "dev/console", "/new", "", specs.Spec{Root: &specs.Root{Path: "rootfs", Readonly: true}, Mounts: []specs.Mount{pts}, Process: tty}},
		{"pts", "dev/pts", "/d", "", specs.Spec{Mounts: []specs.Mount{pts}, Process: tty}},
		{"ptmx", "dev/ptmx", "/ptmx", refused, specs.Spec{}},
		{"null", "dev/null", "/secret", refused, specs.Spec{}},
		{"etc", "etc", "", "", specs.Spec{Mounts: []specs.Mount{bind("/etc/hostname", "/etc/hosts")}}},
		{"hosts", "etc/hosts", "/secret", "", specs.Spec{Mounts: []specs.Mount{bind("/etc/hostname", "/etc/hosts")}}},
		{"new directory", "vol", "/d", "", specs.Spec{Mounts: []specs.Mount{tmpfs("/vol/a/b/c")}}},
		{"new file", "vol", "/d", "", specs.Spec{Mounts: []specs.Mount{bind("/etc/hostname", "/vol/a/b")}}},
		{"mask", "vol", "/secret", "", specs.Spec{Linux: &specs.Linux{MaskedPaths: []string{"/vol"}, ReadonlyPaths: []string{"/vol"}}}},
		{"device", "vol", "/d", "", specs.Spec{Linux: &specs.Linux{Devices: []specs.LinuxDevice{device("c", "/vol/null", 1, 3), device("p", "/vol/p", 0, 0)}}}},
		{"copy", "vol", "", "", specs.Spec{Mounts: []specs.Mount{tmpfs("/vol", "tmpcopyup")}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVictim(t)
			for _, link := range v.links(v.can + tt.target) {
				v.replace(tt.link, link)
				probe := "cat"
				if tt.spec.Process != nil {
					probe = "terminal"
				}
				err := v.attack(&tt.spec, probe)
				if tt.want == refused && err == nil {
					t.Errorf("-> %s: not refused", link)
				}
			}
		})
	}
}

// The file systems of /proc and /sys only go on real directories, whatever the
// link leads to.
func TestLinkInside(t *testing.T) {
	v := newVictim(t)
	v.mkdir("bad", 0o755)
	v.replace("proc", "/bad")
	err := v.attack(&specs.Spec{Mounts: []specs.Mount{procOn()}}, "cat")
	if err == nil || !strings.Contains(err.Error(), "/mounts/0: open /proc: too many levels of symbolic links") {
		t.Error(err)
	}
	// Other types do follow links, inside.
	v.replace("x", "/bad")
	if err := v.attack(&specs.Spec{Mounts: []specs.Mount{tmpfs("/x/y")}}, "cat"); err != nil {
		t.Error(err)
	}
}

func TestLinkChain(t *testing.T) {
	v := newVictim(t)
	for i := range 60 {
		v.replace(fmt.Sprint("l", i), fmt.Sprint("l", i+1))
	}
	v.replace("l60", v.can+"/d")
	if err := v.attack(&specs.Spec{Mounts: []specs.Mount{tmpfs("/l0/x")}}, "cat"); err == nil {
		t.Error("60 links were followed")
	}
	if err := v.attack(&specs.Spec{Mounts: []specs.Mount{tmpfs("/l40/x")}}, "cat"); err != nil {
		t.Error(err)
	}
}

// A path that leads to procfs by a link is as forbidden as the path itself.
func TestMountOnProcByLink(t *testing.T) {
	v := newVictim(t)
	for link, target := range map[string]string{"a": "/proc", "b": "/proc/self", "c": "/proc/sys/kernel", "d": "proc/1"} {
		v.replace(link, target)
		for _, m := range []specs.Mount{tmpfs("/" + link), bind(v.path("tmp"), "/"+link), tmpfs("/" + link + "/attr")} {
			err := v.attack(&specs.Spec{Mounts: []specs.Mount{procOn(), m}}, "procfs")
			if err == nil {
				t.Errorf("%s on %s", m.Destination, target)
			}
		}
	}
	// A bind on /proc must come from the root of a procfs.
	for _, source := range []string{v.path("tmp"), "/proc/sys"} {
		err := v.attack(&specs.Spec{Mounts: []specs.Mount{bind(source, "/proc")}}, "cat")
		if err == nil || !strings.Contains(err.Error(), "only procfs") {
			t.Errorf("%s: %v", source, err)
		}
	}
	if err := v.attack(&specs.Spec{Mounts: []specs.Mount{procOn(), bind("/etc/hostname", "/proc/uptime")}}, "procfs"); err != nil {
		t.Error(err)
	}
}

// What is called ptmx is only opened if it is one.
func TestFalsePtmx(t *testing.T) {
	for name, make := range map[string]func(p string) error{
		"file":  func(p string) error { return os.WriteFile(p, nil, 0o666) },
		"zero":  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"ptmx":  func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))) },
		"link":  func(p string) error { return os.Symlink("/dev/pts2/ptmx", p) },
		"fifo":  func(p string) error { return unix.Mkfifo(p, 0o666) },
		"none":  func(string) error { return nil },
		"inner": func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		v := newVictim(t)
		v.mkdir("dev/pts", 0o755)
		must(t, make(v.path("dev/pts/ptmx")))
		spec := &specs.Spec{
			Process: &specs.Process{Terminal: true},
			Mounts:  []specs.Mount{{Destination: "/dev/pts2", Type: "devpts"}},
		}
		if err := v.attack(spec, "cat"); err == nil || !strings.Contains(err.Error(), "/process/terminal") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A null device that is something else is not opened in place of the host's.
func TestFalseNull(t *testing.T) {
	v := newVictim(t)
	v.tty = true
	must(t, os.MkdirAll(v.dir+"/dev", 0o755))
	null := v.dir + "/dev/null"
	for name, make := range map[string]func() error{
		"link to a secret": func() error { return os.Symlink("/secret", null) },
		"zero":             func() error { return unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"fifo":             func() error { return unix.Mkfifo(null, 0o666) },
	} {
		os.Remove(null)
		must(t, make())
		got := v.must(&specs.Spec{Mounts: []specs.Mount{bind("dev", "/dev"), bind(v.can+"/secret", "/secret")}}, "stderr")
		if got != "1 3 false\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// rounds is how often a race is run. A longer one: HUSK_RACE_ROUNDS=2000.
func rounds(t *testing.T) int {
	if testing.Short() {
		return 5
	}
	if n, err := strconv.Atoi(os.Getenv("HUSK_RACE_ROUNDS")); err == nil {
		return n
	}
	return 20
}

// race exchanges two names below the rootfs, as fast as it can, while f runs.
func (v *victim) race(a, b string, f func()) {
	v.t.Helper()
	var stop atomic.Bool
	done := make(chan error)
	go func() {
		for !stop.Load() {
			err := unix.Renameat2(unix.AT_FDCWD, v.path(a), unix.AT_FDCWD, v.path(b), unix.RENAME_EXCHANGE)
			if err != nil && err != unix.EBUSY && err != unix.ENOENT {
				done <- err
				return
			}
		}
		done <- nil
	}()
	f()
	stop.Store(true)
	must(v.t, <-done)
}

// The race is a race: code that looks up names twice loses it.
func TestRaceIsWon(t *testing.T) {
	v := newVictim(t)
	v.mkdir("vol/a", 0o755)
	v.replace("vol/b", v.can+"/d")
	before := v.manifest()
	v.race("vol/a", "vol/b", func() {
		for range 20000 {
			if st, err := os.Lstat(v.path("vol/a")); err != nil || !st.IsDir() {
				continue
			}
			os.Mkdir(v.path("vol/a/x"), 0o755)
			if v.manifest() != before {
				return
			}
		}
		t.Error("even careless code got away with it")
	})
}

func TestRaces(t *testing.T) {
	var masks []string
	for i := range 50 {
		masks = append(masks, fmt.Sprint("/mask/", i))
	}
	many := []specs.Mount{{Destination: "/vol", Source: "rootfs/vol", Options: []string{"rbind"}}}
	for i := range 20 {
		many = append(many, tmpfs(fmt.Sprint("/vol/a/", i)))
	}
	var copies []specs.Mount // thirty chances a round
	for i := range 30 {
		on := fmt.Sprint("/c/", i)
		copies = append(copies, bind("rootfs/vol/a", on), tmpfs(on, "tmpcopyup"))
	}
	dir := func(v *victim) { v.mkdir("vol/a", 0o755) }
	for _, tt := range []struct {
		name       string
		before     func(*victim)
		a, b, link string // link is what b leads to, below CAN; or with "=" as it is
		spec       specs.Spec
		probe      string
		args       []string
	}{
		{"missing target", dir, "vol/a", "vol/b", "/d", specs.Spec{Mounts: []specs.Mount{tmpfs("/vol/a/b/c")}}, "cat", nil},
		{"missing file", dir, "vol/a", "vol/b", "", specs.Spec{Mounts: []specs.Mount{bind("/etc/hostname", "/vol/a/b")}}, "cat", nil},
		{"volume with mounts", dir, "vol/a", "vol/b", "=/", specs.Spec{Mounts: many}, "cat", nil},
		{"volume with mounts, link up", dir, "vol/a", "vol/b", "=../../..", specs.Spec{Mounts: many}, "cat", nil},
		{"proc", nil, "proc", "bad", "", specs.Spec{Mounts: []specs.Mount{procOn()}}, "procwhere", nil},
		{"proc in a volume", func(v *victim) { v.mkdir("vol/p", 0o755) }, "proc", "bad", "=/vol/p", specs.Spec{Mounts: []specs.Mount{procOn()}}, "procwhere", nil},
		{"null", func(v *victim) {
			for _, m := range masks {
				v.write(m, "visible")
			}
			must(v.t, unix.Mknod(v.path("dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		}, "dev/null", "dev/evil", "/secret", specs.Spec{Linux: &specs.Linux{MaskedPaths: masks}}, "nulls", masks},
		{
			"console", func(v *victim) { v.write("dev/console", "") }, "dev/console", "dev/evil", "/secret",
			specs.Spec{Process: &specs.Process{Terminal: true}, Mounts: []specs.Mount{{Destination: "/dev/pts", Type: "devpts"}}},
			"cat", nil,
		},
		{"dev", nil, "dev", "evil", "", specs.Spec{}, "cat", nil},
		{
			"copied directory", func(v *victim) { v.write("vol/a/inner/secret", "harmless") }, "vol/a/inner", "vol/b", "",
			specs.Spec{Mounts: copies},
			"cat", nil,
		},
		{
			"copied file", func(v *victim) { v.write("vol/a/inner", "harmless") }, "vol/a/inner", "vol/b", "/secret",
			specs.Spec{Mounts: copies},
			"cat", nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVictim(t)
			if tt.before != nil {
				tt.before(v)
			}
			link, plain := strings.CutPrefix(tt.link, "=")
			if !plain {
				link = v.can + tt.link
			}
			v.replace(tt.b, link)
			failed := map[string]int{}
			v.race(tt.a, tt.b, func() {
				for range rounds(t) {
					err := v.attack(&tt.spec, tt.probe, tt.args...)
					failed[reason(err)]++
				}
			})
			t.Log(failed) // which ends there were, for -v
			// A killed child or a lost step is no clean error.
			for text := range failed {
				if strings.Contains(text, "signal") || strings.Contains(text, "panic") || strings.Contains(text, "bad file descriptor") {
					t.Error(text)
				}
			}
		})
	}
}

func reason(err error) string {
	if err == nil {
		return "ok"
	}
	words := strings.Split(err.Error(), ": ")
	return strings.Join(words[max(0, len(words)-2):], ": ")
}

// What was just made is swapped before it is opened.
func TestRaceForNewDirectories(t *testing.T) {
	v := newVictim(t)
	root, err := openat(unix.AT_FDCWD, v.path(""), unix.O_PATH|unix.O_DIRECTORY)
	must(t, err)
	defer shut(root)
	v.mkdir("vol", 0o755)
	before := v.manifest()
	v.race("vol/new", "vol/evil", func() {
		for range 20 * rounds(t) {
			os.RemoveAll(v.path("vol/new"))
			os.RemoveAll(v.path("vol/evil"))
			_ = os.Symlink(v.can+"/d", v.path("vol/evil")) // unless the exchange was quicker
			m := maker{root: root, mode: 0o755}
			fd, _ := m.mkdirAll("vol/new/a")
			shut(fd)
			fd, _ = m.create("vol/new/b")
			shut(fd)
		}
	})
	if diff := cmp.Diff(before, v.manifest()); diff != "" {
		t.Error(diff)
	}
}

// Busy renames elsewhere make openat2 say EAGAIN; that is not for ever.
func TestLookupGivesUp(t *testing.T) {
	v := newVictim(t)
	v.mkdir("x/a", 0o755)
	v.mkdir("x/b", 0o755)
	root, err := openat(unix.AT_FDCWD, v.path(""), unix.O_PATH|unix.O_DIRECTORY)
	must(t, err)
	defer shut(root)
	seen := map[error]int{}
	v.race("x/a", "x/b", func() {
		for range 2000 {
			fd, err := lookup(root, "x/a/../b/../../x/../etc", unix.O_PATH, 0)
			shut(fd)
			seen[err]++
		}
	})
	if seen[nil] == 0 {
		t.Errorf("%v", seen)
	}
	for err := range seen {
		if err != nil && !slices.Contains([]error{unix.EAGAIN, unix.ENOENT}, err) {
			t.Errorf("%v", seen)
		}
	}
}
