package rootfs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func init() {
	// cat prints files.
	probes["cat"] = func(_ *Root, args []string) error {
		for _, name := range args {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Print(string(data))
		}
		return nil
	}
	// stat prints type, permissions, owner and device number.
	probes["stat"] = func(_ *Root, args []string) error {
		for _, name := range args {
			var st unix.Stat_t
			if err := unix.Lstat(name, &st); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Printf("%s %o %d:%d %d:%d\n", name, st.Mode, st.Uid, st.Gid, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		return nil
	}
	// attached clones a null device the old way and looks at the result.
	probes["attached"] = func(r *Root, _ []string) error {
		fd, err := newMount("tmpfs", "husk-null", nil, 0)
		if err != nil {
			return err
		}
		null := Step{Mode: unix.S_IFCHR, Dev: unix.Mkdev(1, 3)}
		if err := mknodat(fd, "null", null.Mode|0o666, null.Dev); err != nil {
			return err
		}
		if fd, err = cloneAttached(fd, "null"); err != nil {
			return err
		}
		if null.isDevice(fd) {
			fmt.Println("null")
		}
		table, err := r.Proc().Read("self/mountinfo", 1<<20)
		if strings.Contains(string(table), "husk-null") {
			fmt.Println(string(table))
		}
		if wd, _ := os.Getwd(); wd != "/" {
			fmt.Println(wd)
		}
		return err
	}
	// xattrs prints extended attributes of a file.
	probes["xattrs"] = func(_ *Root, args []string) error {
		for _, name := range args[1:] {
			value := make([]byte, 100)
			n, err := unix.Getxattr(args[0], name, value)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Printf("%s %q\n", name, value[:n])
		}
		return nil
	}
	// touch tries to write, and prints the errors.
	probes["touch"] = func(_ *Root, args []string) error {
		for _, name := range args {
			err := os.WriteFile(name, nil, 0o644)
			fmt.Printf("%s %v\n", name, errnoOf(err))
		}
		return nil
	}
}

func errnoOf(err error) any {
	for err != nil {
		if e, ok := err.(unix.Errno); ok {
			return unix.ErrnoName(e)
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
	return "ok"
}

const self = "/proc/self/mountinfo"

// standard is the file system part of an ordinary configuration.
func standard() *specs.Spec {
	return &specs.Spec{
		Root: &specs.Root{Path: "rootfs", Readonly: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Process: &specs.Process{Terminal: true},
		Linux: &specs.Linux{
			MaskedPaths:   []string{"/proc/acpi", "/proc/keys", "/proc/timer_list", "/proc/no-such-thing", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/sys", "/proc/no-such-thing"},
		},
	}
}

const standardMounts = `/proc rw,relatime proc proc
/dev rw,nosuid tmpfs tmpfs
/dev/pts rw,nosuid,noexec,relatime devpts devpts
/dev/shm rw,nosuid,nodev,noexec,relatime tmpfs shm
/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue mqueue
/sys ro,nosuid,nodev,noexec,relatime sysfs sysfs
/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime cgroup2 cgroup
/dev/console rw,nosuid,noexec,relatime devpts devpts
/proc/bus ro,relatime proc proc
/proc/sys ro,relatime proc proc
/proc/acpi ro,nosuid,nodev,noexec,relatime tmpfs husk-mask
/proc/keys ro,nosuid,noexec,relatime tmpfs husk-null
/proc/timer_list ro,nosuid,noexec,relatime tmpfs husk-null
/sys/firmware ro,nosuid,nodev,noexec,relatime tmpfs husk-mask
`

func checkStandard(t *testing.T, table string) {
	t.Helper()
	var b strings.Builder
	for _, m := range parseMounts(table)[1:] {
		fmt.Fprintln(&b, m.On, m.Options, m.Type, m.Source)
	}
	want := strings.Split(standardMounts, "\n")
	got := strings.Split(b.String(), "\n")
	sortLines := cmp.Transformer("sort", func(in []string) map[string]int {
		set := map[string]int{}
		for _, line := range in {
			set[line]++
		}
		return set
	})
	if diff := cmp.Diff(want, got, sortLines); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if root := parseMounts(table)[0]; root.On != "/" || !strings.HasPrefix(root.Options, "ro,") {
		t.Errorf("root: %+v", root)
	}
}

func TestStandard(t *testing.T) {
	b := newBundle(t)
	checkStandard(t, b.must(standard(), "cat", self))
}

func TestStandardWithoutHelpOfTheParent(t *testing.T) {
	b := newBundle(t)
	b.opts.Privileged = false
	checkStandard(t, b.must(standard(), "cat", self))
}

func TestDevices(t *testing.T) {
	b := newBundle(t)
	got := b.must(standard(), "stat", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
		"/dev/ptmx", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/console")
	want := `/dev/null 20666 0:0 1:3
/dev/zero 20666 0:0 1:5
/dev/full 20666 0:0 1:7
/dev/random 20666 0:0 1:8
/dev/urandom 20666 0:0 1:9
/dev/tty 20666 0:0 5:0
/dev/ptmx 120777 0:0 0:0
/dev/fd 120777 0:0 0:0
/dev/stdin 120777 0:0 0:0
/dev/stdout 120777 0:0 0:0
/dev/stderr 120777 0:0 0:0
/dev/console 20620 0:5 136:0
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadonly(t *testing.T) {
	b := newBundle(t)
	got := b.must(standard(), "touch", "/x", "/dev/x", "/proc/sys/kernel/domainname", "/proc/keys", "/proc/acpi/x", "/sys/x")
	want := `/x EROFS
/dev/x ok
/proc/sys/kernel/domainname EROFS
/proc/keys ok
/proc/acpi/x EROFS
/sys/x EROFS
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUserNamespace(t *testing.T) {
	for _, privileged := range []bool{true, false} {
		t.Run(fmt.Sprint("parent opens ", privileged), func(t *testing.T) {
			b := newBundle(t).userns()
			b.opts.Privileged = privileged
			if !privileged { // the child must reach the bundle itself
				b.open()
			}
			table := b.must(standard(), "cat", self)
			var others []string
			for line := range strings.Lines(table) {
				m := parseMounts(line)[0]
				if m.Root == "/" && m.On != "/" && !strings.Contains(standardMounts, m.On+" ") {
					others = append(others, line)
				}
			}
			if len(others) > 0 {
				t.Errorf("strange mounts: %q", others)
			}
			if m := topMount(t, table, "/dev/null"); m.Root != "/null" || m.Type != "devtmpfs" {
				t.Errorf("/dev/null: %+v", m)
			}
			got := b.must(standard(), "stat", "/dev/null", "/dev/tty", "/dev/ptmx", "/dev/console", "/proc/keys")
			want := `/dev/null 20666 65534:65534 1:3
/dev/tty 20666 65534:65534 5:0
/dev/ptmx 120777 0:0 0:0
/dev/console 20620 0:5 136:0
/proc/keys 20666 65534:65534 1:3
`
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The way of kernels before 6.15 to a null device, which leaves no mount either.
func TestCloneAttached(t *testing.T) {
	b := newBundle(t)
	if got := b.must(&specs.Spec{}, "attached"); got != "null\n" {
		t.Errorf("%q", got)
	}
}
