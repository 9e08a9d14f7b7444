package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A mountCase is one option and what must be seen of it inside.
type mountCase struct {
	options string // comma-separated
	with    string // words of the mount's line that must be there
	without string // words that must not
}

// commonOptions hold for every kind of mount. mountinfo shows per-mount flags
// before the hyphen and the file system's after it; both count.
var commonOptions = []mountCase{
	{"ro", "ro", "rw"},
	{"rw", "rw", "ro"},
	{"ro,rw", "rw", "ro"},
	{"nosuid", "nosuid", ""},
	{"nosuid,suid", "", "nosuid"},
	{"nodev", "nodev", ""},
	{"nodev,dev", "", "nodev"},
	{"noexec", "noexec", ""},
	{"noexec,exec", "", "noexec"},
	{"defaults", "rw relatime", ""},
	{"noatime", "noatime", "relatime"},
	{"noatime,atime", "relatime", "noatime"},
	{"relatime", "relatime", "noatime"},
	{"norelatime", "", "noatime"},
	{"strictatime", "", "relatime noatime"},
	{"strictatime,nostrictatime", "relatime", "noatime"},
	{"nodiratime", "nodiratime", ""},
	{"nodiratime,diratime", "", "nodiratime"},
	{"nosymfollow", "nosymfollow", ""},
	{"nosymfollow,symfollow", "", "nosymfollow"},
	{"private", "", "shared: master: unbindable"},
	{"rprivate", "", "shared: master: unbindable"},
	{"shared", "shared:", ""},
	{"rshared", "shared:", ""},
	{"slave", "", "unbindable"},
	{"rslave", "", "unbindable"},
	{"unbindable", "unbindable", "shared: master:"},
	{"runbindable", "unbindable", "shared: master:"},
	{"rro", "ro", ""},
	{"rro,rrw", "rw", "ro"},
	{"rnosuid", "nosuid", ""},
	{"rnosuid,rsuid", "", "nosuid"},
	{"rnodev", "nodev", ""},
	{"rnodev,rdev", "", "nodev"},
	{"rnoexec", "noexec", ""},
	{"rnoexec,rexec", "", "noexec"},
	{"rnoatime", "noatime", "relatime"},
	{"rnoatime,ratime", "", "noatime"},
	{"rrelatime", "relatime", "noatime"},
	{"rnoatime,rnorelatime", "", ""},
	{"rstrictatime", "", "relatime noatime"},
	{"rstrictatime,rnostrictatime", "relatime", ""},
	{"rnodiratime", "nodiratime", ""},
	{"rnodiratime,rdiratime", "", "nodiratime"},
	{"rnosymfollow", "nosymfollow", ""},
	{"rnosymfollow,rsymfollow", "", "nosymfollow"},
}

// tmpfsOptions go to the file system, which keeps them in its superblock.
var tmpfsOptions = []mountCase{
	{"sync", "sync", ""},
	{"sync,async", "", "sync"},
	{"dirsync", "dirsync", ""},
	{"lazytime", "lazytime", ""},
	{"lazytime,nolazytime", "", "lazytime"},
	{"silent", "rw", ""},
	{"silent,loud", "rw", ""},
	{"iversion", "rw", ""},
	{"noiversion", "rw", ""},
	{"mand", "rw", ""},
	{"nomand", "rw", ""},
	{"size=4096k", "size=4096k", ""},
	{"mode=1700", "mode=1700", ""},
	{"uid=7,gid=8", "uid=7 gid=8", ""},
	{"nr_inodes=10", "nr_inodes=10", ""},
	{"size=4096k,ro,noexec,mode=700", "size=4096k ro noexec mode=700", ""},
}

func TestMountOptionsTmpfs(t *testing.T) {
	box(t, func(t *testing.T) {
		cases := slices.Concat(commonOptions, tmpfsOptions)
		checkMounts(t, cases, func(target string) specs.Mount {
			return specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: target}
		})
	})
}

func TestMountOptionsBind(t *testing.T) {
	box(t, func(t *testing.T) {
		source := t.TempDir()
		checkMounts(t, commonOptions, func(target string) specs.Mount {
			return specs.Mount{Type: "none", Source: source, Destination: target, Options: []string{"bind"}}
		})
	})
}

// The kernel locks what is mounted in a user namespace that does not own it;
// options of a bind mount still have to be what the config says.
func TestMountOptionsUserns(t *testing.T) {
	box(t, func(t *testing.T) {
		source := t.TempDir()
		for dir := source; dir != workRoot && dir != "/"; dir = filepath.Dir(dir) {
			os.Chmod(dir, 0o755)
		}
		checkMountsIn(t, mapped, 100000, commonOptions, func(target string) specs.Mount {
			return specs.Mount{Type: "bind", Source: source, Destination: target, Options: []string{"rbind"}}
		})
	})
}

// mapped gives a config an ordinary user namespace.
func mapped(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}

func checkMounts(t *testing.T, cases []mountCase, mount func(target string) specs.Mount) {
	t.Helper()
	checkMountsIn(t, func(*specs.Spec) {}, 0, cases, mount)
}

// checkMountsIn mounts all cases at once in one container and looks at each line.
func checkMountsIn(t *testing.T, setup func(*specs.Spec), owner int, cases []mountCase, mount func(target string) specs.Mount) {
	t.Helper()
	b := newOwnedBundle(t, owner, func(s *specs.Spec) {
		setup(s)
		for i, c := range cases {
			m := mount("/m/" + itoa(i))
			m.Options = append(m.Options, strings.Split(c.options, ",")...)
			s.Mounts = append(s.Mounts, m)
		}
		s.Process.Args = []string{"/probe", "mounts"}
	})
	seen := b.look()
	for i, c := range cases {
		line, ok := seen.mount("/m/" + itoa(i))
		if !ok {
			t.Errorf("%s: not mounted", c.options)
			continue
		}
		checkLine(t, c, line)
	}
}

func checkLine(t *testing.T, c mountCase, line string) {
	t.Helper()
	options, propagation, _, super := mountParts(line)
	words := strings.Split(options+","+super, ",")
	if slices.Contains(strings.Split(options, ","), "ro") {
		// The superblock stays writable below a read-only mount.
		words = slices.DeleteFunc(words, func(w string) bool { return w == "rw" })
	}
	has := func(w string) bool {
		if strings.HasSuffix(w, ":") || w == "unbindable" {
			return strings.Contains(propagation, w)
		}
		return slices.Contains(words, w)
	}
	for _, w := range strings.Fields(c.with) {
		if !has(w) {
			t.Errorf("%s: no %s in %q", c.options, w, line)
		}
	}
	for _, w := range strings.Fields(c.without) {
		if has(w) {
			t.Errorf("%s: %s in %q", c.options, w, line)
		}
	}
}

// Recursive attributes reach the submounts of an rbind, the others do not.
func TestMountRecursive(t *testing.T) {
	box(t, func(t *testing.T) {
		source := t.TempDir()
		must(t, os.Mkdir(filepath.Join(source, "sub"), 0o755))
		mountTmpfs(t, filepath.Join(source, "sub"))
		bind := func(target, option string) specs.Mount {
			return specs.Mount{Type: "bind", Source: source, Destination: target, Options: []string{"rbind", option}}
		}
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, bind("/plain", "ro"), bind("/rec", "rro"), bind("/noexec", "rnoexec"), bind("/atime", "rnoatime"))
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: source, Destination: "/flat", Options: []string{"bind"}})
			s.Process.Args = []string{"/probe", "mounts"}
		})
		seen := b.look()
		for target, want := range map[string]mountCase{
			"/plain/sub":  {"ro", "rw", "ro"},
			"/rec/sub":    {"rro", "ro", "rw"},
			"/noexec/sub": {"rnoexec", "noexec", ""},
			"/atime/sub":  {"rnoatime", "noatime", "relatime"},
		} {
			line, _ := seen.mount(target)
			checkLine(t, want, line)
		}
		if line, ok := seen.mount("/flat/sub"); ok {
			t.Errorf("bind is recursive: %s", line)
		}
	})
}

func TestMountRemount(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts,
				specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/m"},
				specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/m", Options: []string{"remount", "ro", "noexec"}})
			s.Process.Args = []string{"/probe", "mounts"}
		})
		line, _ := b.look().mount("/m")
		checkLine(t, mountCase{"remount", "ro noexec", "rw"}, line)
	})
}

// tmpcopyup starts a tmpfs with what the image has at that place.
func TestMountTmpcopyup(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/data", Options: []string{"tmpcopyup"}})
			s.Process.Args = []string{"/bin/sh", "-c", "cat /data/d/file; readlink /data/link; stat -c '%a %u' /data/d/file; echo new >/data/d/file; touch /data/new; /probe mounts"}
		})
		must(t, os.MkdirAll(b.rootfs("data/d"), 0o755))
		must(t, os.WriteFile(b.rootfs("data/d/file"), []byte("image\n"), 0o600))
		must(t, os.Chown(b.rootfs("data/d/file"), 12, 12))
		must(t, os.Chmod(b.rootfs("data/d/file"), 0o646))
		must(t, os.Symlink("/etc/shadow", b.rootfs("data/link")))
		out := b.must("run", "c1").stdout
		if !strings.HasPrefix(out, "image\n/etc/shadow\n646 12\n") {
			t.Errorf("inside: %.200q", out)
		}
		if line, _ := parseFacts(out).mount("/data"); !strings.Contains(line, " - tmpfs ") {
			t.Errorf("/data is %q", line)
		}
		if data, _ := os.ReadFile(b.rootfs("data/d/file")); string(data) != "image\n" {
			t.Errorf("the image was changed: %q", data)
		}
		if _, err := os.Lstat(b.rootfs("data/new")); err == nil {
			t.Error("a file of the tmpfs is in the image")
		}
	})
}

// A tmpfs without mode= takes over the mode of the directory it covers.
func TestMountTmpfsMode(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts,
				specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp"},
				specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/var", Options: []string{"mode=700"}},
				specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/etc", Options: []string{"tmpcopyup", "mode=710"}})
			s.Process.Args = []string{"/probe", "stat", "/tmp", "/var", "/etc"}
		})
		out := b.must("run", "c1").stdout
		if !strings.Contains(out, "/tmp dir 1777 ") || !strings.Contains(out, "/var dir 0700 ") || !strings.Contains(out, "/etc dir 0710 ") {
			t.Errorf("inside:\n%s", out)
		}
	})
}

// Any file system that the kernel has can be mounted.
func TestMountFilesystems(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, nil)
		for _, d := range []string{"lower", "upper", "work"} {
			must(t, os.Mkdir(filepath.Join(b.dir, d), 0o755))
		}
		must(t, os.WriteFile(filepath.Join(b.dir, "lower/file"), []byte("lower\n"), 0o644))
		overlay := "lowerdir=" + b.dir + "/lower,upperdir=" + b.dir + "/upper,workdir=" + b.dir + "/work"
		kinds := []specs.Mount{
			{Type: "ramfs", Source: "ramfs", Destination: "/k/ramfs"},
			{Type: "mqueue", Source: "mqueue", Destination: "/k/mqueue"},
			{Type: "proc", Source: "proc", Destination: "/k/proc"},
			{Type: "sysfs", Source: "sysfs", Destination: "/k/sysfs"},
			{Type: "devpts", Source: "devpts", Destination: "/k/devpts", Options: []string{"newinstance", "gid=5", "mode=620"}},
			{Type: "cgroup2", Source: "cgroup2", Destination: "/k/cgroup2"},
			{Type: "overlay", Source: "overlay", Destination: "/k/overlay", Options: strings.Split(overlay, ",")},
		}
		known, _ := os.ReadFile("/proc/filesystems")
		kinds = slices.DeleteFunc(kinds, func(m specs.Mount) bool { return !strings.Contains(string(known), "\t"+m.Type+"\n") })
		b.write(func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, kinds...)
			s.Process.Args = []string{"/bin/sh", "-c", "/probe mounts; cat /k/overlay/file"}
		})
		r := b.must("run", "c1")
		for _, m := range kinds {
			line, ok := parseFacts(r.stdout).mount(m.Destination)
			if _, _, fstype, _ := mountParts(line); !ok || fstype != m.Type {
				t.Errorf("%s: %q", m.Type, line)
			}
		}
		if strings.Contains(string(known), "\toverlay\n") && !strings.Contains(r.stdout, "\nlower\n") {
			t.Errorf("overlay is empty:\n%s", r.stdout)
		}
	})
}

// What husk says it can do in features is what it can do.
func TestMountOptionsOfFeatures(t *testing.T) {
	box(t, func(t *testing.T) {
		out := run(t, runtimePath(), "features").stdout
		list, err := lookupJSON([]byte(out), "/mountOptions")
		must(t, err)
		for _, c := range slices.Concat(commonOptions, tmpfsOptions) {
			for _, o := range strings.Split(c.options, ",") {
				if !strings.Contains(o, "=") && !strings.Contains(list, `"`+o+`"`) {
					t.Errorf("features does not list %s", o)
				}
			}
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mountTmpfs mounts a tmpfs of the host's side for the time of the test.
func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "none", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
}
