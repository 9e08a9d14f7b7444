package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func init() {
	// ls prints a tree.
	probes["ls"] = func(_ *Root, args []string) error {
		return filepath.WalkDir(args[0], func(p string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err := errors.Join(err, unix.Lstat(p, &st)); err != nil {
				return err
			}
			text, _ := os.Readlink(p)
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				text = string(data)
			}
			fmt.Printf("%s %o %d:%d %s\n", p, st.Mode, st.Uid, st.Gid, text)
			return nil
		})
	}
	// fds prints where the standard descriptors lead, by mount and device.
	probes["stderr"] = func(r *Root, _ []string) error {
		st, err := statx(2, "", 0)
		if err != nil {
			return err
		}
		dev, err := r.OpenFile("/dev/null", unix.O_PATH)
		if err != nil {
			return err
		}
		in, err := statx(dev, "", 0)
		fmt.Println(st.Rdev_major, st.Rdev_minor, st.Mnt_id == in.Mnt_id)
		return err
	}
	// sysctl sets a parameter and reads it back, and leaves no descriptor.
	probes["sysctl"] = func(r *Root, args []string) error {
		before, _ := filepath.Glob("/proc/self/fd/*")
		if err := r.Proc().Sysctl(args[0], args[1]); err != nil {
			return err
		}
		after, _ := filepath.Glob("/proc/self/fd/*")
		if len(before) != len(after) {
			return fmt.Errorf("descriptors: %v, then %v", before, after)
		}
		return probes["cat"](r, args[2:])
	}
	// home asks for the home directory and says how long it took.
	probes["home"] = func(r *Root, _ []string) error {
		start := time.Now()
		home, err := r.Home(1000)
		if d := time.Since(start); d > time.Second {
			return fmt.Errorf("took %v", d)
		}
		fmt.Printf("%q %v", home, err != nil)
		return nil
	}
	// handle writes through the private procfs, over which the container has
	// put other files.
	probes["handle"] = func(r *Root, _ []string) error {
		fake := "/tmp/fake"
		if err := os.WriteFile(fake, []byte("0"), 0o644); err != nil {
			return err
		}
		for _, over := range []string{"/proc/self/oom_score_adj", "/proc/thread-self/oom_score_adj", "/proc/1/oom_score_adj"} {
			if err := unix.Mount(fake, over, "", unix.MS_BIND, ""); err != nil {
				return err
			}
		}
		if err := r.Proc().Write("thread-self/oom_score_adj", "77"); err != nil {
			return err
		}
		got, err := r.Proc().Read("thread-self/oom_score_adj", 100)
		if err != nil {
			return err
		}
		covered, _ := os.ReadFile("/proc/1/oom_score_adj")
		_, sys := r.Proc().Open("sys/kernel/hostname", unix.O_RDONLY)
		_, magic := r.Proc().Open("self/root/etc", unix.O_PATH)
		link, _ := r.Proc().Readlink("self/cwd")
		fmt.Print(strings.TrimSpace(string(got)), " ", string(covered), " ", errnoOf(sys), " ", errnoOf(magic), " ", link)
		return nil
	}
	// escape applies the steps of its argument, then leaves the chroot by a
	// descriptor from before, and lists what is in sight of the host's procfs.
	probes["escape"] = func(r *Root, args []string) error {
		var after []Step
		if err := json.Unmarshal([]byte(args[0]), &after); err != nil {
			return err
		}
		out, err := openat(unix.AT_FDCWD, "/", unix.O_PATH)
		if err != nil {
			return err
		}
		for i := range after {
			if err := r.Apply(&after[i], -1); err != nil {
				return err
			}
		}
		if err := errors.Join(fchdir(out), chroot(".")); err != nil {
			return err
		}
		table, err := r.Proc().Read("self/mountinfo", 1<<20)
		ours, covered := map[string]bool{fmt.Sprint(r.id[0]): true}, map[string]bool{}
		for _, m := range parseMounts(string(table)) {
			covered[m.Parent] = covered[m.Parent] || m.Source == "husk-mask"
			ours[m.ID] = ours[m.ID] || ours[m.Parent]
		}
		for _, m := range parseMounts(string(table)) {
			if (m.Type == "proc" || m.Type == "sysfs") && !ours[m.ID] && !covered[m.ID] {
				fmt.Println("in sight:", m)
			}
		}
		if !strings.Contains(string(table), " / / ") {
			fmt.Println("nothing in sight at all")
		}
		return err
	}
	// mkdir makes directories and prints the result of each.
	probes["mkdir"] = func(r *Root, args []string) error {
		for _, p := range args {
			fd, err := r.MkdirAll(p, 0o711)
			if err != nil {
				fmt.Println(p, errnoOf(err))
				continue
			}
			st, err := statx(fd, "", 0)
			if err != nil {
				return err
			}
			fmt.Printf("%s %o\n", p, st.Mode)
		}
		return nil
	}
}

func tmpfs(on string, options ...string) specs.Mount {
	return specs.Mount{Destination: on, Type: "tmpfs", Source: "tmpfs", Options: options}
}

func bind(source, on string, options ...string) specs.Mount {
	return specs.Mount{Destination: on, Source: source, Options: append([]string{"rbind"}, options...)}
}

func procOn() specs.Mount { return specs.Mount{Destination: "/proc", Type: "proc", Source: "proc"} }

func TestMountPoints(t *testing.T) {
	b := newBundle(t)
	must(t, os.Symlink("/run", b.path("var-run")))     // dangling
	must(t, os.Symlink("../../../deep", b.path("up"))) // dangling, above the root
	file := b.dir + "/file"
	must(t, os.WriteFile(file, []byte("hello"), 0o644))
	spec := &specs.Spec{Mounts: []specs.Mount{
		tmpfs("/new/deep/dir", "mode=700"),
		tmpfs("/var-run/x"),
		tmpfs("up/y"),
		tmpfs("/tmp"),
		bind(file, "/etc/hosts"),
		bind(file, "/var-run/f/g"),
	}}
	got := b.must(spec, "stat", "/new/deep", "/new/deep/dir", "/run/x", "/deep/y", "/tmp", "/etc/hosts", "/run/f/g")
	want := `/new/deep 40755 0:0 0:0
/new/deep/dir 40700 0:0 0:0
/run/x 41777 0:0 0:0
/deep/y 41777 0:0 0:0
/tmp 41777 0:0 0:0
/etc/hosts 100644 0:0 0:0
/run/f/g 100644 0:0 0:0
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := b.must(spec, "cat", "/etc/hosts", "/run/f/g"); got != "hellohello" {
		t.Errorf("%q", got)
	}
	// The mode of what is covered is kept, where none is given.
	b.mkdir("private", 0o700)
	if got := b.must(&specs.Spec{Mounts: []specs.Mount{tmpfs("/private")}}, "stat", "/private"); !strings.Contains(got, "40700") {
		t.Error(got)
	}
}

func TestMountErrors(t *testing.T) {
	b := newBundle(t)
	file := b.write("file", "x")
	for _, tt := range []struct {
		mount specs.Mount
		want  string
	}{
		{tmpfs("/file"), "not a directory"},
		{bind(file, "/tmp"), "is a directory"},
		{bind(b.dir, "/file"), "not a directory"},
		{bind(b.dir+"/none", "/tmp"), "/none: no such file or directory"},
		{tmpfs("/tmp", "zork=1"), "mount tmpfs /tmp: option \"zork=1\": invalid argument (tmpfs: Unknown parameter 'zork')"},
		{tmpfs("/tmp", "size=x"), "Bad value for 'size'"},
		{specs.Mount{Destination: "/tmp", Type: "zorkfs"}, "mount zorkfs /tmp: no such device"},
		{specs.Mount{Destination: "/tmp", Options: []string{"remount", "ro"}}, "invalid argument"}, // not a mount
		{specs.Mount{Destination: "/none", Options: []string{"remount", "ro"}}, "no such file or directory"},
	} {
		_, err := b.run(&specs.Spec{Mounts: []specs.Mount{tt.mount}}, "cat")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.mount, err, tt.want)
		}
	}
}

func TestRemount(t *testing.T) {
	b := newBundle(t)
	table := b.must(&specs.Spec{Mounts: []specs.Mount{
		procOn(), tmpfs("/tmp", "nosuid", "nodev"), tmpfs("/tmp/sub"),
		{Destination: "/tmp", Type: "tmpfs", Options: []string{"remount", "noexec", "dev", "rnoatime", "size=4096k", "rshared"}},
	}}, "cat", self)
	top, sub := topMount(t, table, "/tmp"), topMount(t, table, "/tmp/sub")
	if top.Options != "rw,nosuid,noexec,noatime" || !strings.Contains(top.Super, "size=4096k") || kinds(top.Propagation) != "shared" {
		t.Errorf("%+v", top)
	}
	if sub.Options != "rw,noatime" || kinds(sub.Propagation) != "shared" {
		t.Errorf("%+v", sub)
	}
}

// A read-only tmpfs still gets the mount points of what comes after it.
func TestSeal(t *testing.T) {
	b := newBundle(t)
	b.mkdir("tmp/old", 0o755)
	got := b.must(&specs.Spec{Mounts: []specs.Mount{
		procOn(), tmpfs("/tmp", "ro", "tmpcopyup"), tmpfs("/tmp/a/b"), tmpfs("/dev", "rro", "mode=755"), tmpfs("/tmp/late", "rro"),
	}}, "touch", "/tmp/x", "/tmp/old/x", "/tmp/a/b/x", "/dev/x", "/tmp/late/x")
	want := "/tmp/x EROFS\n/tmp/old/x EROFS\n/tmp/a/b/x ok\n/dev/x EROFS\n/tmp/late/x EROFS\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A copy keeps file capabilities, access control lists and attributes of users.
func TestCopyUpXattrs(t *testing.T) {
	for _, userns := range []bool{false, true} {
		b := newBundle(t)
		b.write("src/file", "x")
		if userns {
			b.userns() // before capabilities, which a change of owner clears
		}
		file := b.path("src/file")
		var names []string
		for name, value := range map[string]string{
			// VFS_CAP_REVISION_2, CAP_NET_RAW permitted and effective
			"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00" + strings.Repeat("\x00", 12),
			"user.note":           "hello",
			// user::rw- user:7:r-- group::r-- mask::r-- other::r--
			"system.posix_acl_access": "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x07\x00\x00\x00" +
				"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff",
		} {
			if userns && name != "user.note" {
				continue // of ids of the host
			}
			if err := unix.Setxattr(file, name, []byte(value), 0); err != nil {
				t.Logf("%s: %v", name, err)
				continue
			}
			names = append(names, name)
		}
		fd, err := newMount("tmpfs", "", nil, 0)
		must(t, err)
		dir, err := openat(fd, ".", unix.O_RDONLY)
		must(t, err)
		if unix.Fsetxattr(dir, "user.x", nil, 0) == unix.EOPNOTSUPP { // before Linux 6.6
			names = slices.DeleteFunc(names, func(n string) bool { return n == "user.note" })
		}
		shut(dir)
		shut(fd)
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		spec := &specs.Spec{Mounts: []specs.Mount{tmpfs("/src", "tmpcopyup")}}
		got := b.must(spec, "xattrs", append([]string{"/src/file"}, names...)...)
		var want strings.Builder
		for _, name := range names {
			value := make([]byte, 100)
			n, err := unix.Getxattr(file, name, value)
			must(t, err)
			fmt.Fprintf(&want, "%s %q\n", name, value[:n])
		}
		if got != want.String() {
			t.Errorf("userns %v: %s, want %s", userns, got, want.String())
		}
	}
}

func TestCopyUp(t *testing.T) {
	b := newBundle(t)
	b.mkdir("src", 0o750)
	b.write("src/a", "alpha")
	b.write("src/sub/b", strings.Repeat("beta", 1<<19))
	must(t, unix.Chmod(b.path("src/a"), 0o4711))
	must(t, unix.Chmod(b.path("src/sub"), 0o1770))
	must(t, os.Lchown(b.path("src/sub/b"), 3, 4))
	must(t, os.Symlink("/etc/none", b.path("src/link")))
	must(t, os.Lchown(b.path("src/link"), 5, 6))
	must(t, unix.Mkfifo(b.path("src/fifo"), 0o600))
	must(t, unix.Mknod(b.path("src/dev"), unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))))
	when := time.Unix(1000000000, 5)
	must(t, os.Chtimes(b.path("src/a"), when, when))
	got := b.must(&specs.Spec{Mounts: []specs.Mount{tmpfs("/src", "tmpcopyup")}}, "ls", "/src")
	want := "/src 40750 0:0 \n/src/a 104711 0:0 alpha\n/src/dev 20640 0:0 \n/src/fifo 10600 0:0 \n" +
		"/src/link 120777 5:6 /etc/none\n/src/sub 41770 0:0 \n/src/sub/b 100644 3:4 " + strings.Repeat("beta", 1<<19) + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b.write("deep/"+strings.Repeat("d/", maxDepth+1)+"f", "")
	if _, err := b.run(&specs.Spec{Mounts: []specs.Mount{tmpfs("/deep", "tmpcopyup")}}, "cat"); err == nil {
		t.Error("no limit to the depth")
	}
	if _, err := b.run(&specs.Spec{Mounts: []specs.Mount{tmpfs("/src", "tmpcopyup", "size=4k")}}, "cat"); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Error(err)
	}
}

func TestMountOverRoot(t *testing.T) {
	for _, nopivot := range []bool{false, true} {
		b := newBundle(t)
		b.opts.NoPivot = nopivot
		must(t, os.Symlink("/", b.path("slash")))
		other := b.dir + "/other"
		must(t, os.MkdirAll(other+"/proc", 0o755))
		must(t, os.WriteFile(other+"/mark", []byte("other"), 0o644))
		for _, on := range []string{"/", "/slash"} {
			spec := &specs.Spec{Root: &specs.Root{Path: "rootfs", Readonly: true}, Mounts: []specs.Mount{bind(other, on), procOn(), tmpfs("/tmp")}}
			if got := b.must(spec, "cat", "/mark"); got != "other" {
				t.Errorf("%s: %q", on, got)
			}
			if got := b.must(spec, "touch", "/x", "/tmp/x"); got != "/x EROFS\n/tmp/x ok\n" {
				t.Errorf("%s: %s", on, got)
			}
		}
	}
}

// The root of the host can be the root of a container.
func TestHostRoot(t *testing.T) {
	b := newBundle(t)
	spec := standard()
	spec.Root.Path = "/"
	if got := b.must(spec, "touch", "/husk-x", "/dev/x"); got != "/husk-x EROFS\n/dev/x ok\n" {
		t.Error(got)
	}
}

func TestReadonlyAndMaskTheRoot(t *testing.T) {
	b := newBundle(t)
	spec := &specs.Spec{Linux: &specs.Linux{ReadonlyPaths: []string{"/"}}}
	if got := b.must(spec, "touch", "/x"); got != "/x EROFS\n" {
		t.Error(got)
	}
	if _, err := b.run(&specs.Spec{Linux: &specs.Linux{MaskedPaths: []string{"/"}}}, "cat"); err == nil {
		t.Error("masked /")
	}
}

func TestNoPivot(t *testing.T) {
	for _, userns := range []bool{false, true} {
		b := newBundle(t)
		b.opts.NoPivot = true
		if userns {
			b.userns()
		}
		table := b.must(standard(), "cat", self)
		for _, m := range parseMounts(table) {
			// Only what is below the root of the process is in its table.
			if m.On == "/" && m.Root == "/" {
				t.Errorf("the host's root is in sight: %+v", m)
			}
		}
		if m := topMount(t, table, "/proc"); m.Type != "proc" {
			t.Error(m)
		}
		if got := b.must(standard(), "touch", "/x", "/../../x"); got != "/x EROFS\n/../../x EROFS\n" {
			t.Error(got)
		}
	}
}

// Who gets out of the chroot that --no-pivot is, as anybody with CAP_SYS_CHROOT
// does, finds no procfs or sysfs of the host that would let him mount new ones.
func TestNoPivotCoversHost(t *testing.T) {
	for _, userns := range []bool{false, true} {
		b := newBundle(t)
		b.opts.NoPivot = true
		if userns {
			b.userns()
		}
		spec := standard()
		before, after, err := Compile(func() *specs.Spec { spec.Root = &specs.Root{Path: "rootfs"}; return spec }(), b.opts)
		must(t, err)
		steps, err := json.Marshal(after)
		must(t, err)
		got, err := b.apply(job{Before: before, Probe: "escape", Args: []string{string(steps)}})
		must(t, err)
		if got != "" {
			t.Errorf("userns %v: %s", userns, got)
		}
	}
}

func TestHostMounts(t *testing.T) {
	const table = `20 1 8:1 / / rw - ext4 /dev/sda rw
21 20 0:5 / /proc rw,relatime - proc proc rw
22 20 0:6 / /sys rw shared:1 - sysfs sysfs rw
23 22 0:7 / /sys/fs/cgroup rw - cgroup2 none rw
24 20 0:5 / /a\040b/proc rw - proc proc rw
30 20 8:1 /r /bundle/rootfs rw - ext4 /dev/sda rw
31 30 0:9 / /bundle/rootfs/proc rw - proc proc rw
32 31 0:9 /sys /bundle/rootfs/proc/sys ro - proc proc rw
bad line
`
	want := []string{"/a b/proc", "/sys", "/proc"}
	if got := hostMounts(table, 30); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestChroot(t *testing.T) {
	b := newBundle(t)
	b.opts.Mounts = false
	b.attr.Cloneflags &^= unix.CLONE_NEWNS
	b.write("mark", "inside")
	if got := b.must(&specs.Spec{}, "cat", "/mark"); got != "inside" {
		t.Errorf("%q", got)
	}
	if got := b.must(&specs.Spec{Process: &specs.Process{Terminal: true}}, "cat", "/../mark"); got != "inside" {
		t.Errorf("%q", got)
	}
}

func device(kind, path string, major, minor int64) specs.LinuxDevice {
	return specs.LinuxDevice{Type: kind, Path: path, Major: major, Minor: minor}
}

func TestConfiguredDevices(t *testing.T) {
	b := newBundle(t)
	mode, id := os.FileMode(0o10640), uint32(7)
	null := device("c", "/dev/deep/null", 1, 3)
	null.FileMode, null.UID, null.GID = &mode, &id, &id
	must(t, unix.Mknod(b.path("dev/there"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 9))))
	spec := &specs.Spec{Linux: &specs.Linux{Devices: []specs.LinuxDevice{
		null, device("b", "/dev/there", 7, 9), device("b", "/dev/new", 7, 9),
		device("p", "/fifo", 0, 0), device("u", "/dev/zero", 1, 5),
	}}}
	for range 2 { // the second time everything is there
		got := b.must(spec, "stat", "/dev/deep/null", "/dev/there", "/dev/new", "/fifo", "/dev/zero", "/dev/full")
		want := "/dev/deep/null 20640 7:7 1:3\n/dev/there 60600 0:0 7:9\n/dev/new 60666 0:0 7:9\n" +
			"/fifo 10666 0:0 0:0\n/dev/zero 20666 0:0 1:5\n/dev/full 20666 0:0 1:7\n"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// What is there and is something else is an error and stays as it is.
func TestMismatchingDevices(t *testing.T) {
	for name, make := range map[string]func(p string) error{
		"other": func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
		"block": func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(1, 7))) },
		"link":  func(p string) error { return os.Symlink("/dev/full", p) },
		"file":  func(p string) error { return os.WriteFile(p, []byte("text"), 0o644) },
		"dir":   func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		for _, userns := range []bool{false, true} {
			b := newBundle(t)
			must(t, make(b.path("dev/full")))
			if userns {
				b.userns()
			}
			spec := &specs.Spec{Linux: &specs.Linux{Devices: []specs.LinuxDevice{device("c", "/dev/full", 1, 7)}}}
			_, err := b.run(spec, "cat")
			if err == nil || !strings.Contains(err.Error(), "something else") || !strings.Contains(err.Error(), "/linux/devices/0") {
				t.Errorf("userns %v: %s: %v", userns, name, err)
			}
		}
	}
	b := newBundle(t).userns()
	spec := &specs.Spec{Linux: &specs.Linux{Devices: []specs.LinuxDevice{device("c", "/dev/none", 4095, 77)}}}
	if _, err := b.run(spec, "cat"); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Error(err)
	}
	// A device that is called differently outside.
	spec.Linux.Devices[0] = device("c", "/dev/void", 1, 3)
	if _, err := os.Stat("/dev/char/1:3"); err == nil {
		if got := b.must(spec, "stat", "/dev/void"); !strings.Contains(got, "1:3") {
			t.Error(got)
		}
	}
}

func TestBoundDev(t *testing.T) {
	b := newBundle(t)
	must(t, os.Mkdir(b.dir+"/dev", 0o755))
	b.must(&specs.Spec{Mounts: []specs.Mount{bind("dev", "/dev")}}, "stat", "/dev")
	if names, _ := filepath.Glob(b.dir + "/dev/*"); len(names) > 0 {
		t.Errorf("made in a bind mount: %v", names)
	}
}

// The null device of the host does not stay open.
func TestStdio(t *testing.T) {
	b := newBundle(t)
	b.tty = true
	if got := b.must(standard(), "stderr"); got != "1 3 true\n" {
		t.Errorf("%q", got)
	}
}

func TestSysctl(t *testing.T) {
	b := newBundle(t)
	for _, name := range []string{"net.ipv4.ip_forward", "net/ipv4/ip_forward"} {
		if got := b.must(standard(), "sysctl", name, "1", "/proc/sys/net/ipv4/ip_forward"); got != "1\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, want := range map[string]string{
		"net.zork": "no such file", "net..x": "not the name", "net/../kernel/x": "not the name", "zork": "not the name",
	} {
		if _, err := b.run(standard(), "sysctl", name, "1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":                "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":                "net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.1/mc_forwarding": "net/ipv4/conf/eth0.1/mc_forwarding",
		"net.ipv4.conf.eth0/1.mc_forwarding": "net/ipv4/conf/eth0.1/mc_forwarding",
		"kernel.shmmax":                      "kernel/shmmax",
		"":                                   "",
		"net":                                "",
		".":                                  "",
		"/":                                  "",
		"..":                                 "",
		"net.":                               "",
		".net.x":                             "",
		"net/../x/y":                         "",
		"net/./x":                            "",
		"net.//.x":                           "",
		"net.ipv4. x":                        "",
		"net.x\n":                            "",
	} {
		if got, ok := SysctlPath(name); got != want || ok != (want != "") {
			t.Errorf("SysctlPath(%q) = %q, %v", name, got, ok)
		}
	}
}

func FuzzSysctlPath(f *testing.F) {
	for _, seed := range []string{"net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/x", "a.b/c.d", "..", "a/../b", "a..b", "/", "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, ok := SysctlPath(name)
		if !ok {
			return
		}
		if p != path.Clean(p) || strings.HasPrefix(p, "/") {
			t.Errorf("%q: %q", name, p)
		}
	})
}

func TestProcHandle(t *testing.T) {
	b := newBundle(t)
	spec := &specs.Spec{Mounts: []specs.Mount{procOn(), tmpfs("/tmp")}}
	if got := b.must(spec, "handle"); got != "77 0 ENOENT ELOOP /" {
		t.Errorf("%q", got)
	}
}

func TestMkdirAll(t *testing.T) {
	b := newBundle(t)
	b.write("file", "")
	must(t, os.Symlink("loop", b.path("loop")))
	must(t, os.Symlink("/a/link2", b.path("link")))
	must(t, os.Symlink("../x/./y/", b.path("etc/rel")))
	got := b.must(&specs.Spec{}, "mkdir", "/", "/a", "/a/b/c/", "//a/./b/d", "/link/z", "/etc/rel/w", "/file/x", "/loop/x", "/q/../r", "/..", "a/../../s")
	want := "/ 40755\n/a 40711\n/a/b/c/ 40711\n//a/./b/d 40711\n/link/z 40711\n/etc/rel/w 40711\n" +
		"/file/x ENOTDIR\n/loop/x ELOOP\n/q/../r 40711\n/.. 40755\na/../../s 40711\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, p := range []string{"a/link2/z", "x/y/w", "r", "s"} {
		if st, err := os.Lstat(b.path(p)); err != nil || !st.IsDir() {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestHome(t *testing.T) {
	b := newBundle(t)
	passwd := b.path("etc/passwd")
	for _, tt := range []struct {
		name string
		make func() error
		want string
	}{
		{"none", func() error { return nil }, `"" false`},
		{"ordinary", func() error {
			return os.WriteFile(passwd, []byte("root:x:0:0::/root:\nu:x:1000:1000::/home/u:/bin/sh"), 0o644)
		}, `"/home/u" false`},
		{"lookalikes", func() error {
			return os.WriteFile(passwd, []byte("1000:x:0:0::/a:\nx:x:01000:0::/b:\nx:x:+1000:0::/c:\nx:x: 1000:0::/d:\nshort:x:1000\n"), 0o644)
		}, `"" false`},
		{"fifo", func() error { return unix.Mkfifo(passwd, 0o644) }, `"" true`},
		{"directory", func() error { return os.Mkdir(passwd, 0o755) }, `"" true`},
		{"device", func() error { return unix.Mknod(passwd, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) }, `"" true`},
		{"link", func() error { return os.Symlink("/proc/1/environ", passwd) }, `"" true`},
		{"sparse", func() error {
			f, err := os.Create(passwd)
			if err == nil {
				defer f.Close()
				err = f.Truncate(6 << 30)
			}
			return err
		}, `"" false`},
	} {
		os.RemoveAll(passwd)
		must(t, tt.make())
		if got := b.must(&specs.Spec{}, "home"); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestCgroupFallback(t *testing.T) {
	// A user namespace without a cgroup namespace may not mount cgroup2.
	b := newBundle(t).userns()
	b.opts.Shared, b.opts.Privileged = []specs.LinuxNamespace{{Type: "cgroup"}}, false
	b.attr.Cloneflags &^= unix.CLONE_NEWCGROUP
	b.open()
	own := "/sys/fs/cgroup/husk-rootfs-test"
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { must(t, os.Remove(own)) })
	b.opts.Cgroup = own
	m := topMount(t, b.must(standard(), "cat", self), "/sys/fs/cgroup")
	if m.Type != "cgroup2" || m.Root != "/husk-rootfs-test" || !strings.HasPrefix(m.Options, "ro,nosuid,nodev,noexec") {
		t.Errorf("%+v", m)
	}
}

// A new mount of cgroup2 from the host's cgroup namespace would set the options
// of the whole hierarchy; it has to be the host's own mount.
func TestHostCgroup(t *testing.T) {
	b := newBundle(t)
	b.opts.Shared = []specs.LinuxNamespace{{Type: "cgroup"}}
	b.attr.Cloneflags &^= unix.CLONE_NEWCGROUP
	table, err := os.ReadFile(self)
	must(t, err)
	host := topMount(t, string(table), "/sys/fs/cgroup")
	if host.Type != "cgroup2" {
		t.Skip("no cgroup2")
	}
	m := topMount(t, b.must(standard(), "cat", self), "/sys/fs/cgroup")
	if m.Type != "cgroup2" || m.Source != host.Source || m.Root != host.Root || !strings.HasPrefix(m.Options, "ro,nosuid,nodev,noexec") {
		t.Errorf("%+v, on the host %+v", m, host)
	}
}

func TestHostNamespacesFallback(t *testing.T) {
	b := newBundle(t).userns()
	b.opts.Shared = []specs.LinuxNamespace{{Type: "network"}, {Type: "pid"}}
	b.attr.Cloneflags &^= unix.CLONE_NEWNET | unix.CLONE_NEWPID
	spec := standard()
	spec.Mounts = spec.Mounts[:6]
	table := b.must(spec, "cat", self)
	if m := topMount(t, table, "/sys"); m.Type != "sysfs" || !strings.HasPrefix(m.Options, "ro,nosuid") {
		t.Errorf("%+v", m)
	}
	if m := topMount(t, table, "/proc"); m.Type != "proc" {
		t.Errorf("%+v", m)
	}
}

// A plan survives any encoding of its exported fields.
func TestStepIsPlainData(t *testing.T) {
	before, _, err := Compile(standard(), Options{Bundle: "/b", Mounts: true})
	must(t, err)
	data, err := json.Marshal(before)
	must(t, err)
	var again []Step
	must(t, json.Unmarshal(data, &again))
	if diff := cmp.Diff(before, again); diff != "" {
		t.Error(diff)
	}
}
