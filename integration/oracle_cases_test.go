package integration

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/huskrun/husk/rootfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An oracleCase is a bundle, and who calls the runtime how.
type oracleCase struct {
	name     string
	edit     func(*specs.Spec)
	rootfs   []func(t *testing.T, dir string) // changes to the root file system
	caller   string                           // shell commands before the runtime's
	terminal bool
	refused  bool // not to be run, says the specification
	after    []func(t *testing.T, s seen)
}

// oracleGroups generates the bundles. Each group runs in a box.
func oracleGroups() map[string][]oracleCase {
	return map[string][]oracleCase{
		"options":     optionCases(),
		"filesystems": filesystemCases(),
		"propagation": propagationCases(),
		"namespaces":  namespaceCases(),
		"users":       userCases(),
		"rights":      rightCases(),
		"process":     processCases(),
		"paths":       pathCases(),
		"devices":     deviceCases(),
		"kernel":      kernelCases(),
		"userns":      usernsCases(),
		"hooks":       hookCases(),
		"callers":     callerCases(),
	}
}

// see makes the probe look at paths, too.
func see(s *specs.Spec, paths ...string) {
	s.Process.Args = append(s.Process.Args, paths...)
}

func mountAt(s *specs.Spec, fstype, source, target string, options ...string) {
	s.Mounts = append(s.Mounts, specs.Mount{Type: fstype, Source: source, Destination: target, Options: options})
}

// furnishSource makes what bind mounts show: a file, a directory, below one another
// mounts with options of their own.
func furnishSource(t *testing.T) {
	t.Helper()
	mount := func(dir string, flags uintptr) {
		dir = filepath.Join(oracleSource, dir)
		must(t, os.MkdirAll(dir, 0o755))
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
		must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("of the source\n"), 0o644))
		must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""))
	}
	mount("two", 0)
	mount("two/below", 0)
	mount("tree", 0)
	mount("tree/sub", unix.MS_NOSUID|unix.MS_NOATIME)
	mount("tree/sub/deep", unix.MS_RDONLY|unix.MS_NOEXEC|unix.MS_NODEV)
	for name, flags := range sourceFlags {
		mount(name, flags)
	}
	must(t, os.WriteFile(filepath.Join(oracleSource, "file"), []byte("of the source\n"), 0o644))
}

// sourceFlags are the mounts that are bound as they are, and changed.
var sourceFlags = map[string]uintptr{
	"ro":          unix.MS_RDONLY,
	"nosuid":      unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC,
	"noatime":     unix.MS_NOATIME | unix.MS_NODIRATIME,
	"strictatime": unix.MS_STRICTATIME,
}

// Words that have bundles of their own: they are no property of a mount, or not all
// take them.
var notOrdinary = strings.Fields("bind rbind remount tmpcopyup idmap ridmap defaults iversion noiversion loud silent symfollow nosymfollow rsymfollow rnosymfollow copy-symlink scratch src-nosymlinks")

// words are the options that husk knows, of one class.
func words(keep func(word string) bool) []string {
	return slices.DeleteFunc(rootfs.MountOptions(), func(w string) bool {
		return slices.Contains(notOrdinary, w) || slices.Contains(recursive(atimeWords), w) || !keep(w)
	})
}

var (
	propagationWords = strings.Fields("private rprivate shared rshared slave rslave unbindable runbindable")
	atimeChoices     = strings.Fields("noatime diratime nodiratime relatime strictatime")
	atimeTaken       = strings.Fields("atime norelatime nostrictatime")
	atimeWords       = slices.Concat(atimeChoices, atimeTaken)
	// Opposites, of which the last one counts.
	opposites = [][2]string{
		{"ro", "rw"},
		{"suid", "nosuid"},
		{"dev", "nodev"},
		{"exec", "noexec"},
		{"sync", "async"},
		{"mand", "nomand"},
		{"lazytime", "nolazytime"},
	}
)

func isPropagation(w string) bool { return slices.Contains(propagationWords, w) }

// isRecursive says whether a word is another one for a whole tree.
func isRecursive(w string) bool {
	return w[0] == 'r' && !isPropagation(w) && slices.Contains(rootfs.MountOptions(), w[1:])
}

func isPlain(w string) bool { return !isPropagation(w) && !isRecursive(w) }

// mountKinds are the ways to make a mount of the same words.
var mountKinds = map[string]func(s *specs.Spec, target string, options ...string){
	"tmpfs": func(s *specs.Spec, target string, options ...string) {
		mountAt(s, "tmpfs", "tmpfs", target, options...)
	},
	"bind": func(s *specs.Spec, target string, options ...string) {
		mountAt(s, "bind", oracleSource+"/two", target, append([]string{"bind"}, options...)...)
	},
	"rbind": func(s *specs.Spec, target string, options ...string) {
		mountAt(s, "bind", oracleSource+"/tree", target, append([]string{"rbind"}, options...)...)
	},
	"rbind-last": func(s *specs.Spec, target string, options ...string) {
		mountAt(s, "none", oracleSource+"/tree", target, append(options, "rbind")...)
	},
}

// optionCases mount everything in every way: single words, pairs whose order counts,
// and binds of mounts that have options already. One bundle has a mount for each.
func optionCases() []oracleCase {
	sets := map[string][][]string{
		"plain":        singles(words(isPlain)),
		"recursive":    singles(words(isRecursive)),
		"propagation":  singles(propagationWords),
		"atime-pairs":  pairs(atimeWords, atimeWords),
		"ratime":       singles(recursive(atimeChoices)),
		"ratime-pairs": pairs(recursive(atimeChoices), recursive(atimeChoices)),
		"ratime-taken": pairs(recursive(atimeChoices), recursive(atimeTaken)),
		"mixed-atime":  pairs(atimeWords, recursive(atimeChoices)),
		"opposites":    bothWays(opposites),
		"iversion":     bothWays([][2]string{{"iversion", "noiversion"}}),
		"symfollow":    append(bothWays([][2]string{{"symfollow", "nosymfollow"}}), singles([]string{"nosymfollow", "rsymfollow", "rnosymfollow"})...),
		"loud":         bothWays([][2]string{{"silent", "loud"}}),
		"defaults":     {{"defaults"}, {"defaults", "ro"}},
		"none":         {{}, {"ro", "nosuid", "nodev", "noexec", "noatime"}, {"ro", "shared"}, {"rro", "rslave"}},
	}
	var list []oracleCase
	for _, kind := range sortedKeys(mountKinds) {
		for _, set := range sortedKeys(sets) {
			if kind == "rbind-last" && !slices.Contains([]string{"plain", "recursive"}, set) {
				continue
			}
			list = append(list, oracleCase{name: kind + "-" + set, edit: func(s *specs.Spec) {
				for _, options := range sets[set] {
					mountKinds[kind](s, "/m/"+strings.Join(options, "+"), options...)
				}
			}})
		}
	}
	return append(list, boundAgainCases()...)
}

// boundAgainCases bind mounts that have options.
func boundAgainCases() []oracleCase {
	var list []oracleCase
	for _, name := range sortedKeys(sourceFlags) {
		list = append(list, oracleCase{name: "bind-of-" + name, edit: func(s *specs.Spec) {
			for _, o := range []string{"", "ro", "rw", "nosuid", "suid", "noatime", "relatime", "strictatime", "atime", "nodiratime", "exec", "rro", "rnosuid"} {
				options := withoutEmpty("bind", o)
				mountAt(s, "bind", oracleSource+"/"+name, "/m/"+strings.Join(options, "+"), options...)
			}
		}})
	}
	return list
}

func withoutEmpty(words ...string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

func singles(words []string) (list [][]string) {
	for _, w := range words {
		list = append(list, []string{w})
	}
	return list
}

func pairs(first, second []string) (list [][]string) {
	for _, a := range first {
		for _, b := range second {
			list = append(list, []string{a, b})
		}
	}
	return list
}

func bothWays(pairs [][2]string) (list [][]string) {
	for _, p := range pairs {
		list = append(list, []string{p[0], p[1]}, []string{p[1], p[0]})
	}
	return list
}

func recursive(words []string) (list []string) {
	for _, w := range words {
		list = append(list, "r"+w)
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// oneMount is a bundle with one mount more.
func oneMount(name, fstype, source, target string, options ...string) oracleCase {
	return oracleCase{name: name, edit: func(s *specs.Spec) {
		mountAt(s, fstype, source, target, options...)
		see(s, target)
	}}
}

// changeMount changes the options of a mount that every bundle has.
func changeMount(name, target, fstype string, options ...string) oracleCase {
	return oracleCase{name: name, edit: func(s *specs.Spec) {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == target {
				s.Mounts[i].Options, s.Mounts[i].Type = options, fstype
			}
		}
		see(s, target)
	}}
}

func withoutMount(targets ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return slices.Contains(targets, m.Destination) })
	}
}

func filesystemCases() []oracleCase {
	list := []oracleCase{
		{name: "plain"},
		{name: "readonly", edit: func(s *specs.Spec) { s.Root.Readonly = true; see(s, "/", "/tmp", "/dev") }},
		{name: "no-mounts", edit: func(s *specs.Spec) {
			s.Mounts, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
			see(s, "/dev", "/proc", "/sys")
		}},
		{name: "no-dev", edit: withoutMount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")},
		{name: "no-pts", edit: withoutMount("/dev/pts")},
		{name: "no-proc", edit: withoutMount("/proc")},
		{name: "no-sys", edit: withoutMount("/sys", "/sys/fs/cgroup")},
		{name: "dev-bind", edit: func(s *specs.Spec) {
			withoutMount("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")(s)
			mountAt(s, "bind", "/dev", "/dev", "rbind", "ro")
		}},
		{name: "stacked", edit: func(s *specs.Spec) {
			mountAt(s, "tmpfs", "one", "/tmp", "size=1m")
			mountAt(s, "tmpfs", "two", "/tmp", "size=2m", "ro")
			mountAt(s, "tmpfs", "three", "/tmp/three", "size=3m")
			see(s, "/tmp")
		}},
		{name: "child-first", edit: func(s *specs.Spec) {
			mountAt(s, "tmpfs", "inner", "/tmp/inner")
			mountAt(s, "tmpfs", "outer", "/tmp")
			see(s, "/tmp")
		}},
		{name: "nested-readonly", edit: func(s *specs.Spec) {
			s.Root.Readonly = true
			mountAt(s, "tmpfs", "outer", "/tmp", "ro")
			mountAt(s, "tmpfs", "inner", "/tmp/inner", "rw")
			see(s, "/tmp")
		}},
		{name: "copied-up", edit: func(s *specs.Spec) {
			mountAt(s, "tmpfs", "tmpfs", "/var", "tmpcopyup")
			mountAt(s, "tmpfs", "tmpfs", "/etc", "tmpcopyup", "ro", "mode=700")
			see(s, "/var", "/var/deep", "/etc")
		}},
		{name: "remounted", edit: func(s *specs.Spec) {
			mountAt(s, "tmpfs", "tmpfs", "/tmp", "size=1m")
			mountAt(s, "tmpfs", "tmpfs", "/tmp", "remount", "ro", "nosuid")
			see(s, "/tmp")
		}},
		{name: "remounted-bind", edit: func(s *specs.Spec) {
			mountAt(s, "bind", oracleSource, "/tmp", "bind")
			mountAt(s, "bind", oracleSource, "/tmp", "bind", "remount", "ro", "nosuid")
			see(s, "/tmp")
		}},
		{name: "cgroup-without-namespace", edit: func(s *specs.Spec) { withoutSpace(s, specs.CgroupNamespace); see(s, "/sys/fs/cgroup/cgroup.procs") }},
		{name: "over-root", edit: func(s *specs.Spec) {
			s.Mounts = slices.Insert(s.Mounts, 0, specs.Mount{Type: "bind", Source: oracleBundle + "/rootfs", Destination: "/", Options: []string{"rbind", "nosuid"}})
		}},
		{name: "relative-source", edit: func(s *specs.Spec) {
			mountAt(s, "bind", "rootfs/var", "/tmp", "bind")
			see(s, "/tmp")
		}},
		{name: "rootfs-link", edit: func(s *specs.Spec) { s.Root.Path = "other" }, rootfs: []func(*testing.T, string){
			func(t *testing.T, dir string) {
				must(t, os.Symlink("rootfs", filepath.Join(filepath.Dir(dir), "other")))
			},
		}},
		{name: "rootfs-flags", edit: func(s *specs.Spec) { s.Root.Path = workRoot + "/rootfs" }, rootfs: []func(*testing.T, string){
			func(t *testing.T, dir string) { // on the box's /run, which has nosuid and nodev
				must(t, os.RemoveAll(workRoot+"/rootfs"))
				must(t, os.CopyFS(workRoot+"/rootfs", os.DirFS(dir)))
			},
		}},
		{name: "rootfs-absolute", edit: func(s *specs.Spec) { s.Root.Path = oracleBundle + "/rootfs" }},
	}
	list = append(list, targetCases()...)
	return append(list, dataCases()...)
}

// targetCases mount at all kinds of places.
func targetCases() []oracleCase {
	file := oracleSource + "/file"
	return []oracleCase{
		oneMount("file-on-file", "bind", file, "/etc/file", "bind", "ro"),
		oneMount("file-on-nothing", "bind", file, "/new/dir/file", "bind"),
		oneMount("dir-on-nothing", "bind", oracleSource, "/new/dir", "bind"),
		oneMount("tmpfs-on-nothing", "tmpfs", "tmpfs", "/new/dir"),
		oneMount("on-link", "tmpfs", "tmpfs", "/link"),
		oneMount("below-link", "tmpfs", "tmpfs", "/link/new"),
		oneMount("link-upwards", "tmpfs", "tmpfs", "/var/up/new"),
		oneMount("dots", "tmpfs", "tmpfs", "/var/../../tmp/./x"),
		oneMount("relative", "tmpfs", "tmpfs", "tmp/relative"),
		oneMount("slash", "tmpfs", "tmpfs", "/tmp//slash/"),
		oneMount("device", "bind", "/dev/zero", "/dev/null", "bind").wrong(),
		oneMount("device-new", "bind", "/dev/zero", "/dev/nothing", "bind", "ro"),
		oneMount("file-on-dir", "bind", file, "/tmp", "bind").wrong(),
		oneMount("dir-on-file", "bind", oracleSource, "/etc/file", "bind").wrong(),
		oneMount("no-source", "bind", "/does/not/exist", "/tmp", "bind").wrong(),
		oneMount("unknown-type", "nosuchfs", "none", "/tmp").wrong(),
		oneMount("unknown-option", "tmpfs", "tmpfs", "/tmp", "nosuchoption").wrong(),
		oneMount("idmap-without", "bind", oracleSource, "/tmp", "bind", "idmap").wrong(),
		oneMount("in-proc", "tmpfs", "tmpfs", "/proc/sys/new").wrong(),
		oneMount("on-proc", "tmpfs", "tmpfs", "/proc/bus").wrong(),
		oneMount("on-proc-file", "bind", file, "/proc/uptime", "bind"),
		oneMount("on-sys", "tmpfs", "tmpfs", "/sys/fs", "ro"),
		oneMount("no-type", "", "tmpfs", "/tmp").wrong(),
	}
}

// wrong marks a bundle that no runtime should take.
func (c oracleCase) wrong() oracleCase {
	c.refused = true
	return c
}

// unseen makes the probe look at other paths: not into a directory that is never the
// same twice.
func (c oracleCase) unseen(paths ...string) oracleCase {
	edit := c.edit
	c.edit = func(s *specs.Spec) {
		edit(s)
		s.Process.Args = append(s.Process.Args[:2:2], paths...)
	}
	return c
}

// dataCases have options for the file system itself.
func dataCases() []oracleCase {
	return []oracleCase{
		oneMount("tmpfs-data", "tmpfs", "name", "/tmp", "size=1m", "mode=1710", "uid=5", "gid=6", "nr_inodes=99"),
		oneMount("tmpfs-comma", "tmpfs", "tmpfs", "/tmp", "size=1m,mode=700"),
		oneMount("tmpfs-inherits", "tmpfs", "tmpfs", "/locked"),
		oneMount("tmpfs-percent", "tmpfs", "tmpfs", "/tmp", "size=1%"),
		oneMount("ramfs", "ramfs", "ramfs", "/tmp", "mode=711"),
		oneMount("second-proc", "proc", "proc", "/tmp", "nosuid", "ro").unseen(),
		oneMount("second-sysfs", "sysfs", "sysfs", "/tmp", "ro").unseen(),
		oneMount("second-mqueue", "mqueue", "mqueue", "/tmp", "nosuid"),
		oneMount("second-devpts", "devpts", "devpts", "/tmp", "newinstance", "gid=5", "ptmxmode=0600"),
		oneMount("cgroup2", "cgroup2", "cgroup2", "/tmp", "ro"),
		oneMount("devtmpfs", "devtmpfs", "devtmpfs", "/tmp", "ro").unseen("/tmp/kmsg", "/tmp/fuse"),
		changeMount("proc-options", "/proc", "proc", "hidepid=2", "subset=pid", "nosuid", "noexec", "nodev").unseen("/proc/cpuinfo", "/proc/self/comm"),
		changeMount("proc-readonly", "/proc", "proc", "ro").unseen("/proc/sysrq-trigger", "/proc/self/comm"),
		changeMount("sys-writable", "/sys", "sysfs", "nosuid"),
		{name: "sys-bind", edit: func(s *specs.Spec) {
			withoutMount("/sys", "/sys/fs/cgroup")(s)
			mountAt(s, "bind", "/sys", "/sys", "rbind", "ro", "rslave")
		}},
		changeMount("cgroup-writable", "/sys/fs/cgroup", "cgroup", "nosuid", "rw"),
		changeMount("cgroup-plain", "/sys/fs/cgroup", "cgroup"),
		changeMount("pts-gid", "/dev/pts", "devpts", "gid=7", "mode=0600", "newinstance", "max=3"),
		changeMount("pts-plain", "/dev/pts", "devpts"),
		changeMount("dev-readonly", "/dev", "tmpfs", "ro", "nosuid", "mode=755"),
		changeMount("dev-mode", "/dev", "tmpfs", "mode=700", "noexec"),
		changeMount("mqueue-ro", "/dev/mqueue", "mqueue", "ro"),
		changeMount("shm-ro", "/dev/shm", "tmpfs", "ro", "size=4k"),
	}
}

func propagationCases() []oracleCase {
	var list []oracleCase
	for _, p := range append([]string{""}, propagationWords...) {
		name := p
		if p == "" {
			name = "unset"
		}
		list = append(list, oracleCase{name: name, edit: func(s *specs.Spec) {
			s.Linux.RootfsPropagation = p
			for _, w := range append([]string{"rw"}, propagationWords...) {
				mountAt(s, "bind", oracleSource+"/tree", "/m/"+w, "rbind", w)
			}
			mountAt(s, "tmpfs", "tmpfs", "/m/tmpfs")
		}})
	}
	return list
}

func withoutSpace(s *specs.Spec, types ...specs.LinuxNamespaceType) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return slices.Contains(types, n.Type) })
	if slices.Contains(types, specs.UTSNamespace) {
		s.Hostname = ""
	}
}

func addSpace(s *specs.Spec, kind specs.LinuxNamespaceType, path string) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

var spaces = []specs.LinuxNamespaceType{
	specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.CgroupNamespace,
}

func namespaceCases() []oracleCase {
	list := []oracleCase{
		{name: "mount-alone", edit: func(s *specs.Spec) {
			withoutSpace(s, specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace)
			withoutMount("/dev/mqueue")(s)
		}},
		{name: "time", edit: func(s *specs.Spec) { addSpace(s, specs.TimeNamespace, "") }},
		{name: "time-offsets", edit: func(s *specs.Spec) {
			addSpace(s, specs.TimeNamespace, "")
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1000, Nanosecs: 5}, "boottime": {Secs: 86400}}
		}},
		{name: "offsets-without", refused: true, edit: func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1000}}
		}},
		{name: "twice", refused: true, edit: func(s *specs.Spec) { addSpace(s, specs.IPCNamespace, "") }},
		{name: "unknown", refused: true, edit: func(s *specs.Spec) { addSpace(s, "nosuch", "") }},
		{name: "names", edit: func(s *specs.Spec) { s.Hostname, s.Domainname = "a-host", "a.domain" }},
		{name: "name-without", refused: true, edit: func(s *specs.Spec) { withoutSpace(s, specs.UTSNamespace); s.Hostname = "other" }},
		{name: "no-name", edit: func(s *specs.Spec) { s.Hostname = "" }},
	}
	for _, kind := range spaces {
		list = append(list, oracleCase{name: "without-" + string(kind), edit: func(s *specs.Spec) {
			withoutSpace(s, kind)
		}})
	}
	// Joined ones are others' of the same box: of a process that unshare(1) leaves.
	for _, kind := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace} {
		link := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net"}[kind]
		if link == "" {
			link = string(kind)
		}
		file := oracleSpaces + "/" + link
		list = append(list, oracleCase{name: "join-" + string(kind), rootfs: []func(*testing.T, string){joinable(link, file)}, edit: func(s *specs.Spec) {
			withoutSpace(s, kind)
			addSpace(s, kind, file)
		}})
	}
	return append(list, oracleCase{name: "join-wrong", refused: true, rootfs: []func(*testing.T, string){joinable("net", oracleSpaces+"/net")}, edit: func(s *specs.Spec) {
		withoutSpace(s, specs.IPCNamespace)
		addSpace(s, specs.IPCNamespace, oracleSpaces+"/net")
	}})
}

// joinable makes a namespace and a file that is it.
func joinable(kind, file string) func(*testing.T, string) {
	return func(t *testing.T, _ string) {
		t.Helper()
		if unix.Access(file, unix.F_OK) == nil {
			return
		}
		must(t, os.WriteFile(file, nil, 0o600))
		out, err := exec.Command("unshare", "--"+kind+"="+file, "true").CombinedOutput()
		if err != nil {
			t.Fatalf("unshare: %v: %s", err, out)
		}
	}
}

func userCases() []oracleCase {
	user := func(name string, u specs.User) oracleCase {
		return oracleCase{name: name, edit: func(s *specs.Spec) { s.Process.User = u }}
	}
	mask := func(n uint32) *uint32 { return &n }
	return []oracleCase{
		user("known", specs.User{UID: 1000, GID: 1000}),
		user("unknown", specs.User{UID: 4242, GID: 4343}),
		user("group-alone", specs.User{GID: 1000}),
		user("uid-alone", specs.User{UID: 1000}),
		user("groups", specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5, 1001, 70000}}),
		user("groups-of-root", specs.User{AdditionalGids: []uint32{0, 1, 2}}),
		user("groups-twice", specs.User{AdditionalGids: []uint32{7, 7, 7}}),
		user("highest", specs.User{UID: 1<<32 - 2, GID: 1<<32 - 2}),
		user("umask-0", specs.User{Umask: mask(0)}),
		user("umask-077", specs.User{Umask: mask(0o77)}),
		user("umask-777", specs.User{UID: 1000, Umask: mask(0o777)}),
		{name: "home-of-root", edit: func(s *specs.Spec) { s.Process.Env = []string{"PATH=/"} }},
		{name: "home-of-user", edit: func(s *specs.Spec) { s.Process.Env, s.Process.User.UID = []string{"PATH=/"}, 1000 }},
		{name: "home-of-unknown", edit: func(s *specs.Spec) { s.Process.Env, s.Process.User.UID = []string{"PATH=/"}, 4242 }},
		{name: "home-given", edit: func(s *specs.Spec) { s.Process.Env = []string{"PATH=/", "HOME=/elsewhere"} }},
		{name: "home-empty", edit: func(s *specs.Spec) { s.Process.Env = []string{"PATH=/", "HOME="} }},
	}
}

// rightCases are sets of capabilities, of root and of another user, with and without
// new privileges.
func rightCases() []oracleCase {
	some := []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"}
	one := some[1:2]
	sets := map[string]*specs.LinuxCapabilities{
		"nil":            nil,
		"none":           {},
		"some":           {Bounding: some, Effective: some, Permitted: some},
		"inheritable":    {Bounding: some, Effective: some, Permitted: some, Inheritable: some},
		"ambient":        {Bounding: some, Effective: some, Permitted: some, Inheritable: some, Ambient: one},
		"bounding-alone": {Bounding: some},
		"not-bounding":   {Effective: one, Permitted: one},
		"not-effective":  {Bounding: some, Permitted: some},
		"all":            {Bounding: allCaps(), Effective: allCaps(), Permitted: allCaps()},
		"all-ambient":    {Bounding: allCaps(), Effective: allCaps(), Permitted: allCaps(), Inheritable: allCaps(), Ambient: allCaps()},
		"not-granted":    {Bounding: capsWhere(false), Effective: capsWhere(false), Permitted: capsWhere(false)},
		"ambient-alone":  {Ambient: one},
		"unknown":        {Bounding: append([]string{"CAP_NOSUCH"}, one...), Effective: one, Permitted: one},
		"lower-case":     {Bounding: []string{"cap_kill"}, Effective: []string{"cap_kill"}, Permitted: []string{"cap_kill"}},
		"more-effective": {Bounding: some, Effective: some, Permitted: one},
	}
	var list []oracleCase
	for _, name := range sortedKeys(sets) {
		for _, uid := range []uint32{0, 1000} {
			list = append(list, oracleCase{name: fmt.Sprintf("%s-uid-%d", name, uid), edit: func(s *specs.Spec) {
				s.Process.Capabilities, s.Process.User.UID = sets[name], uid
				s.Process.NoNewPrivileges = uid != 0
			}})
		}
	}
	return append(list,
		oracleCase{name: "new-privileges", edit: func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
		oracleCase{name: "no-new-privileges", edit: func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
	)
}

// allCaps are those that this machine's root has.
func allCaps() []string { return capsWhere(true) }

func capsWhere(have bool) (list []string) {
	var bounding uint64
	for _, l := range fileLines("/proc/self/status") {
		if v, ok := strings.CutPrefix(l, "CapBnd:"); ok {
			fmt.Sscanf(strings.TrimSpace(v), "%x", &bounding)
		}
	}
	for i, name := range capNames {
		if bounding>>i&1 == 1 == have {
			list = append(list, "CAP_"+name)
		}
	}
	return list
}

// capNames are in the order of their numbers.
var capNames = strings.Fields("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT " +
	"SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE " +
	"MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE")

func processCases() []oracleCase {
	process := func(name string, edit func(p *specs.Process)) oracleCase {
		return oracleCase{name: name, edit: func(s *specs.Spec) { edit(s.Process) }}
	}
	cwd := func(name, dir string) oracleCase { return process(name, func(p *specs.Process) { p.Cwd = dir }) }
	oom := func(name string, score int) oracleCase {
		return process(name, func(p *specs.Process) { p.OOMScoreAdj = &score })
	}
	sched := func(name string, s specs.Scheduler) oracleCase {
		return process(name, func(p *specs.Process) { p.Scheduler = &s })
	}
	list := []oracleCase{
		cwd("cwd-tmp", "/tmp"), cwd("cwd-new", "/new/dir"), cwd("cwd-link", "/link"), cwd("cwd-relative", "tmp").wrong(),
		cwd("cwd-file", "/etc/file").wrong(), cwd("cwd-dots", "/var/deep/.."), cwd("cwd-none", "").wrong(),
		process("cwd-locked", func(p *specs.Process) { p.Cwd, p.User.UID = "/locked", 1000 }),
		oom("oom-0", 0), oom("oom-500", 500), oom("oom-1000", 1000), oom("oom-wrong", 1001).wrong(),
		process("env-none", func(p *specs.Process) { p.Env = nil }),
		process("env-twice", func(p *specs.Process) { p.Env = []string{"PATH=/", "A=1", "A=2", "B=", "A=3"} }),
		process("env-odd", func(p *specs.Process) { p.Env = []string{"PATH=/", "WITH SPACE=a b", "E==x=", "ü=ö"} }),
		process("env-nameless", func(p *specs.Process) { p.Env = []string{"PATH=/", "=x"} }).wrong(),
		process("env-bare", func(p *specs.Process) { p.Env = []string{"PATH=/", "BARE"} }).wrong(),
		process("args-by-path", func(p *specs.Process) { p.Args[0], p.Env = "probe", []string{"PATH=/bin:/"} }),
		process("args-relative", func(p *specs.Process) { p.Args[0], p.Cwd = "./probe", "/bin" }),
		process("args-missing", func(p *specs.Process) { p.Args = []string{"/nosuch"} }).wrong(),
		process("args-none", func(p *specs.Process) { p.Args = nil }).wrong(),
		process("args-not-executable", func(p *specs.Process) { p.Args = []string{"/etc/file"} }).wrong(),
		process("rlimits-all", func(p *specs.Process) {
			for i, name := range rlimitNames {
				// Address space, data, stack and files have to be enough for the runtimes.
				soft, hard := grantable(i, uint64(1000+i)), grantable(i, 1<<40)
				if slices.Contains([]string{"FSIZE", "DATA", "STACK", "AS"}, name) {
					soft = grantable(i, 1<<33)
				}
				p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + name, Soft: soft, Hard: hard})
			}
		}),
		process("rlimits-highest", func(p *specs.Process) {
			for i, name := range rlimitNames {
				highest := grantable(i, unix.RLIM_INFINITY)
				p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + name, Soft: highest, Hard: highest})
			}
		}),
		process("rlimits-of-user", func(p *specs.Process) {
			p.User.UID = 1000
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 2000, Hard: 3000}, {Type: "RLIMIT_NPROC", Soft: 50, Hard: 60}}
		}),
		process("rlimits-soft", func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 1 << 12}}
		}),
		process("rlimits-crossed", func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 10}}
		}).wrong(),
		process("rlimits-unknown", func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOSUCH", Soft: 10, Hard: 10}}
		}).wrong(),
		process("rlimits-twice", func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 10, Hard: 10}, {Type: "RLIMIT_CORE", Soft: 5, Hard: 5}}
		}).wrong(),
		sched("sched-other", specs.Scheduler{Policy: specs.SchedOther, Nice: 5}),
		sched("sched-batch", specs.Scheduler{Policy: specs.SchedBatch, Nice: -5}),
		sched("sched-idle", specs.Scheduler{Policy: specs.SchedIdle}),
		sched("sched-reset", specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}),
		sched("sched-fifo", specs.Scheduler{Policy: specs.SchedFIFO, Priority: 7}),
		sched("sched-rr", specs.Scheduler{Policy: specs.SchedRR, Priority: 1}),
		sched("sched-deadline", specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1e6, Deadline: 1e7, Period: 1e7}),
		sched("sched-wrong", specs.Scheduler{Policy: "SCHED_NOSUCH"}).wrong(),
		sched("sched-nice-wrong", specs.Scheduler{Policy: specs.SchedOther, Nice: 20}).wrong(),
		sched("sched-priority-wrong", specs.Scheduler{Policy: specs.SchedOther, Priority: 7}).wrong(),
		{name: "terminal", terminal: true, edit: func(s *specs.Spec) { s.Process.Terminal = true; see(s, "/dev") }},
		{name: "terminal-size", terminal: true, edit: func(s *specs.Spec) {
			s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 12, Width: 34}
		}},
		{name: "terminal-of-user", terminal: true, edit: func(s *specs.Spec) {
			s.Process.Terminal, s.Process.User.UID = true, 1000
		}},
		{name: "size-without", edit: func(s *specs.Spec) { s.Process.ConsoleSize = &specs.Box{Height: 12, Width: 34} }},
	}
	for _, class := range []specs.IOPriorityClass{specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE, specs.IOPRIO_CLASS_RT} {
		list = append(list, process("io-"+strings.ToLower(string(class[len("IOPRIO_CLASS_"):])), func(p *specs.Process) {
			p.IOPriority = &specs.LinuxIOPriority{Class: class, Priority: 3}
		}))
	}
	return list
}

// grantable is a limit that this machine's root may set: without CAP_SYS_RESOURCE at
// most what it has.
func grantable(resource int, limit uint64) uint64 {
	var own unix.Rlimit
	unix.Getrlimit(resource, &own)
	return min(limit, own.Max)
}

// rlimitNames are in the order of their numbers.
var rlimitNames = strings.Fields("CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME")

func pathCases() []oracleCase {
	masked := func(name string, paths ...string) oracleCase {
		return oracleCase{name: "masked-" + name, edit: func(s *specs.Spec) { s.Linux.MaskedPaths = paths; see(s, paths...) }}
	}
	readonly := func(name string, paths ...string) oracleCase {
		return oracleCase{name: "readonly-" + name, edit: func(s *specs.Spec) { s.Linux.ReadonlyPaths = paths; see(s, paths...) }}
	}
	return []oracleCase{
		masked("none"), masked("file", "/etc/file"), masked("dir", "/var"), masked("missing", "/nosuch"), masked("below-file", "/etc/passwd/x"),
		masked("link", "/link"), masked("proc", "/proc/kcore", "/proc/timer_list", "/proc/scsi", "/proc/bus"),
		masked("device", "/dev/null"), masked("nested", "/var", "/var/deep"), masked("twice", "/etc/file", "/etc/file"),
		masked("mount", "/dev/shm"), masked("default", "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
			"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"),
		readonly("none"), readonly("file", "/etc/file"), readonly("dir", "/var"), readonly("missing", "/nosuch"),
		readonly("link", "/link"), readonly("proc", "/proc/sys", "/proc/sysrq-trigger", "/proc/irq"),
		readonly("mount", "/dev/shm", "/dev/mqueue"), readonly("nested", "/var", "/var/deep"), readonly("dev", "/dev"),
		{name: "readonly-tree", edit: func(s *specs.Spec) {
			mountAt(s, "bind", oracleSource+"/tree", "/tmp", "rbind")
			s.Linux.ReadonlyPaths = []string{"/tmp"}
			see(s, "/tmp", "/tmp/sub", "/tmp/sub/deep")
		}},
		{name: "both", edit: func(s *specs.Spec) {
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/var/deep"}, []string{"/var", "/var/deep"}
			see(s, "/var", "/var/deep")
		}},
		masked("relative", "etc/file").wrong(),
		readonly("relative", "etc/file").wrong(),
	}
}

func deviceCases() []oracleCase {
	mode := func(n os.FileMode) *os.FileMode { return &n }
	id := func(n uint32) *uint32 { return &n }
	device := func(name string, devices ...specs.LinuxDevice) oracleCase {
		return oracleCase{name: name, edit: func(s *specs.Spec) {
			s.Linux.Devices = devices
			for _, d := range devices {
				see(s, d.Path)
			}
		}}
	}
	rule := func(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	rules := func(name string, rules ...specs.LinuxDeviceCgroup) oracleCase {
		return oracleCase{name: "rules-" + name, edit: func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Devices: rules}
			s.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: mode(0o666)},
				{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: mode(0o666)},
				{Path: "/dev/loop0", Type: "b", Major: 7, Minor: 0, FileMode: mode(0o666)},
			}
			see(s, "/dev")
		}}
	}
	return []oracleCase{
		{name: "default", edit: func(s *specs.Spec) { see(s, "/dev", "/dev/pts") }},
		device("char", specs.LinuxDevice{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: mode(0o666), UID: id(0), GID: id(0)}),
		device("block", specs.LinuxDevice{Path: "/dev/loop0", Type: "b", Major: 7, Minor: 0, FileMode: mode(0o600)}),
		device("unbuffered", specs.LinuxDevice{Path: "/dev/u", Type: "u", Major: 1, Minor: 3, FileMode: mode(0o600)}),
		device("fifo", specs.LinuxDevice{Path: "/dev/fifo", Type: "p", FileMode: mode(0o640)}),
		device("owner", specs.LinuxDevice{Path: "/dev/owned", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o640), UID: id(1000), GID: id(1001)}),
		device("no-mode", specs.LinuxDevice{Path: "/dev/plain", Type: "c", Major: 1, Minor: 5}),
		device("type-in-mode", specs.LinuxDevice{Path: "/dev/mode", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o20666)}),
		device("setuid", specs.LinuxDevice{Path: "/dev/mode", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o4755)}),
		device("deep", specs.LinuxDevice{Path: "/dev/a/b/c", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o666)}),
		device("outside", specs.LinuxDevice{Path: "/var/zero", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o666)}),
		device("default-again", specs.LinuxDevice{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: mode(0o600), UID: id(3)}),
		device("default-other", specs.LinuxDevice{Path: "/dev/null", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o666)}),
		device("on-file", specs.LinuxDevice{Path: "/etc/file", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o666)}).wrong(),
		device("unknown-type", specs.LinuxDevice{Path: "/dev/x", Type: "x", Major: 1, Minor: 5}).wrong(),
		device("relative", specs.LinuxDevice{Path: "dev/x", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o666)}).wrong(),
		device("link", specs.LinuxDevice{Path: "/link/zero", Type: "c", Major: 1, Minor: 5, FileMode: mode(0o666)}),
		rules("none"),
		rules("deny-all", rule(false, "", -1, -1, "rwm")),
		rules("allow-one", rule(false, "a", -1, -1, "rwm"), rule(true, "c", 1, 11, "rw")),
		rules("allow-read", rule(false, "", -1, -1, "rwm"), rule(true, "c", 1, 11, "r")),
		rules("allow-major", rule(false, "", -1, -1, "rwm"), rule(true, "c", 10, -1, "rwm")),
		rules("allow-all", rule(true, "a", -1, -1, "rwm")),
		rules("allow-block", rule(false, "", -1, -1, "rwm"), rule(true, "b", -1, -1, "rwm")),
		rules("deny-one", rule(true, "a", -1, -1, "rwm"), rule(false, "c", 1, 11, "rwm")),
		rules("deny-write", rule(true, "a", -1, -1, "rwm"), rule(false, "c", 1, 11, "w")),
		rules("separate", rule(false, "a", -1, -1, "rwm"), rule(true, "c", 1, 11, "r"), rule(true, "c", 1, 11, "w")),
		rules("last-wins", rule(false, "a", -1, -1, "rwm"), rule(true, "c", 1, 11, "rwm"), rule(false, "c", 1, 11, "rwm")),
	}
}

// kernelCases are what else /linux sets: sysctl, seccomp, cgroups, personality.
func kernelCases() []oracleCase {
	sysctl := func(name string, values map[string]string) oracleCase {
		return oracleCase{name: "sysctl-" + name, edit: func(s *specs.Spec) {
			s.Linux.Sysctl = values
			for key := range values {
				see(s, "/proc/sys/"+strings.ReplaceAll(key, ".", "/"))
			}
			slices.Sort(s.Process.Args[2:])
		}}
	}
	policy := func(name, mode, nodes string, flags ...specs.MemoryPolicyFlagType) oracleCase {
		return oracleCase{name: "memory-" + name, edit: func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(mode), Nodes: nodes, Flags: flags}
		}}
	}
	group := func(name, path string, r *specs.LinuxResources) oracleCase {
		return oracleCase{name: "cgroup-" + name, edit: func(s *specs.Spec) {
			s.Linux.CgroupsPath, s.Linux.Resources = path, r
			withoutSpace(s, specs.CgroupNamespace)
			for _, file := range []string{"hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "cgroup.freeze", "cgroup.type", "cgroup.max.depth"} {
				see(s, "/sys/fs/cgroup/oracle/huge/"+file)
			}
		}}
	}
	list := []oracleCase{
		sysctl("net", map[string]string{"net.ipv4.ip_forward": "1", "net.core.somaxconn": "99", "net.ipv4.ip_local_port_range": "2000 3000"}),
		sysctl("ipc", map[string]string{"kernel.shmmax": "123456", "kernel.msgmax": "9000", "kernel.sem": "10 20 30 40", "fs.mqueue.msg_max": "20"}),
		sysctl("uts", map[string]string{"kernel.domainname": "of.sysctl"}),
		sysctl("slashes", map[string]string{"net/ipv4/ip_forward": "1"}),
		sysctl("hostname", map[string]string{"kernel.hostname": "other"}).wrong(),
		sysctl("machine", map[string]string{"vm.swappiness": "3"}).wrong(),
		sysctl("missing", map[string]string{"net.nosuch": "1"}).wrong(),
		sysctl("upwards", map[string]string{"net/../vm/swappiness": "1"}).wrong(),
		{name: "sysctl-without-net", refused: true, edit: func(s *specs.Spec) {
			withoutSpace(s, specs.NetworkNamespace)
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		}},
		{name: "sysctl-without-ipc", refused: true, edit: func(s *specs.Spec) {
			withoutSpace(s, specs.IPCNamespace)
			s.Linux.Sysctl = map[string]string{"kernel.msgmax": "9000"}
		}},
		group("default", "", nil), group("absolute", "/oracle/a/b", nil), group("relative", "oracle/c", nil),
		group("slashes", "/oracle//d/", nil),
		group("hugetlb", "/oracle/huge", &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}),
		{name: "personality", edit: func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} }},
		{name: "personality-32", edit: func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }},
		{name: "personality-wrong", refused: true, edit: func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }},
		policy("default", "MPOL_DEFAULT", ""), policy("bind", "MPOL_BIND", "0"), policy("interleave", "MPOL_INTERLEAVE", "0"),
		policy("preferred", "MPOL_PREFERRED", "0", "MPOL_F_STATIC_NODES"), policy("local", "MPOL_LOCAL", ""),
		policy("unknown", "MPOL_NOSUCH", "0").wrong(), policy("without-nodes", "MPOL_BIND", "").wrong(),
		{name: "annotations", edit: func(s *specs.Spec) { s.Annotations = map[string]string{"com.example.key": "value", "empty": ""} }},
	}
	return append(list, seccompCases()...)
}

func seccompCases() []oracleCase {
	errno := func(n uint) *uint { return &n }
	filter := func(name string, f specs.LinuxSeccomp) oracleCase {
		return oracleCase{name: "seccomp-" + name, edit: func(s *specs.Spec) { s.Linux.Seccomp = &f }}
	}
	deny := []specs.LinuxSyscall{{Names: []string{"mkdir", "rmdir", "keyctl"}, Action: specs.ActErrno}}
	native := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	return []oracleCase{
		filter("allow", specs.LinuxSeccomp{DefaultAction: specs.ActAllow}),
		filter("errno", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: deny}),
		filter("errno-ret", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"keyctl"}, Action: specs.ActErrno, ErrnoRet: errno(uint(unix.ENOTTY))},
		}}),
		filter("log", specs.LinuxSeccomp{DefaultAction: specs.ActLog}),
		filter("architectures", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: native, Syscalls: deny}),
		filter("arguments", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"getpriority"}, Action: specs.ActErrno, ErrnoRet: errno(5), Args: []specs.LinuxSeccompArg{{Index: 0, Value: 0, Op: specs.OpEqualTo}}},
			{Names: []string{"prctl"}, Action: specs.ActErrno, ErrnoRet: errno(5), Args: []specs.LinuxSeccompArg{{Index: 0, Value: 0xff, ValueTwo: unix.PR_GET_KEEPCAPS, Op: specs.OpMaskedEqual}}},
		}}),
		filter("flag-log", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, Syscalls: deny}),
		filter("flag-spec", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}, Syscalls: deny}),
		filter("flag-tsync", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, Syscalls: deny}),
		filter("flags-empty", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{}, Syscalls: deny}),
		filter("unknown-call", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"nosuchcall", "mkdir"}, Action: specs.ActErrno}}}),
		filter("unknown-action", specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NOSUCH"}).wrong(),
		filter("unknown-arch", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_NOSUCH"}}).wrong(),
		filter("unknown-flag", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NOSUCH"}}).wrong(),
		filter("errno-on-allow", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdir"}, Action: specs.ActKillProcess, ErrnoRet: errno(5)},
		}}).wrong(),
		filter("no-names", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActErrno}}}).wrong(),
		{name: "seccomp-privileged", edit: func(s *specs.Spec) {
			s.Process.NoNewPrivileges, s.Process.User.UID = false, 1000
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: deny}
		}},
	}
}

func usernsCases() []oracleCase {
	space := func(name string, m []specs.LinuxIDMapping, edit func(*specs.Spec)) oracleCase {
		return oracleCase{name: name, edit: func(s *specs.Spec) {
			addSpace(s, specs.UserNamespace, "")
			s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
			if edit != nil {
				edit(s)
			}
		}, rootfs: []func(*testing.T, string){func(t *testing.T, dir string) {
			if len(m) > 0 {
				must(t, chownTree(dir, int(m[0].HostID)))
			}
		}}}
	}
	whole := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	same := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 1 << 31}}
	parts := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1}, {ContainerID: 1, HostID: 1, Size: 999}, {ContainerID: 1000, HostID: 5000, Size: 1000}}
	single := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1}}
	list := []oracleCase{
		space("plain", whole, nil),
		space("identity", same, nil),
		space("parts", parts, nil),
		space("single", single, withGid0),
		space("user", whole, func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5, 6}}
		}),
		space("readonly", whole, func(s *specs.Spec) { s.Root.Readonly = true; see(s, "/", "/tmp") }),
		space("devices", whole, func(s *specs.Spec) {
			mode := os.FileMode(0o640)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode}}
			see(s, "/dev", "/dev/pts")
		}),
		space("sysctl", whole, func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"}
			see(s, "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax")
		}),
		space("sysctl-of-user", whole, func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"user.max_net_namespaces": "7"}
			see(s, "/proc/sys/user/max_net_namespaces")
		}),
		space("capabilities", whole, func(s *specs.Spec) {
			all := allCaps()
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all, Ambient: all}
			s.Process.User.UID, s.Process.NoNewPrivileges = 1, false
		}),
		space("seccomp", whole, func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
		}),
		space("time", whole, func(s *specs.Spec) {
			addSpace(s, specs.TimeNamespace, "")
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 4000}}
		}),
		space("oom", whole, func(s *specs.Spec) { score := 300; s.Process.OOMScoreAdj = &score }),
		space("rlimits", whole, func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 1 << 12}}
		}),
		space("no-network", whole, func(s *specs.Spec) { withoutSpace(s, specs.NetworkNamespace) }),
		space("no-cgroup", whole, func(s *specs.Spec) { withoutSpace(s, specs.CgroupNamespace) }),
		space("no-ipc", whole, func(s *specs.Spec) {
			withoutSpace(s, specs.IPCNamespace)
			withoutMount("/dev/mqueue")(s)
		}),
		space("no-pid", whole, func(s *specs.Spec) { withoutSpace(s, specs.PIDNamespace) }),
		space("cgroup-writable", whole, func(s *specs.Spec) {
			for i := range s.Mounts {
				if s.Mounts[i].Type == "cgroup" {
					s.Mounts[i].Options = []string{"rw", "nosuid"}
				}
			}
			see(s, "/sys/fs/cgroup")
		}),
		space("unmapped-user", single, func(s *specs.Spec) { withGid0(s); s.Process.User.UID = 5 }).wrong(),
		space("no-mappings", nil, nil).wrong(),
		{name: "mappings-without", refused: true, edit: func(s *specs.Spec) { s.Linux.UIDMappings, s.Linux.GIDMappings = whole, whole }},
		{name: "terminal", terminal: true, edit: func(s *specs.Spec) {
			addSpace(s, specs.UserNamespace, "")
			s.Linux.UIDMappings, s.Linux.GIDMappings = whole, whole
			s.Process.Terminal, s.Process.User.UID = true, 7
			see(s, "/dev/pts", "/dev/console")
		}, rootfs: []func(*testing.T, string){func(t *testing.T, dir string) { must(t, chownTree(dir, 100000)) }}},
	}
	for _, kind := range []string{"bind", "rbind", "tmpfs"} {
		mappings := map[string][]specs.LinuxIDMapping{"own": {{ContainerID: 0, HostID: 100500, Size: 100}}, "same": nil}
		for _, name := range sortedKeys(mappings) {
			m := mappings[name]
			for _, word := range []string{"idmap", "ridmap"} {
				list = append(list, space(word+"-"+kind+"-"+name, whole, func(s *specs.Spec) {
					mountKinds[kind](s, "/m", word)
					s.Mounts[len(s.Mounts)-1].UIDMappings, s.Mounts[len(s.Mounts)-1].GIDMappings = m, m
					see(s, "/m", "/m/file", "/m/sub/file", "/m/below/file")
				}))
			}
		}
		list = append(list, space("mounts-"+kind, whole, func(s *specs.Spec) {
			for _, o := range []string{"dev", "ro", "nosuid", "noexec", "noatime", "rro", "rnosuid", "slave", "shared"} {
				mountKinds[kind](s, "/m/"+o, o)
			}
		}))
	}
	for _, name := range sortedKeys(sourceFlags) {
		for _, o := range []string{"", "ro", "nosuid", "rw", "suid", "relatime", "noatime"} {
			list = append(list, space("locked-"+name+"-"+cmp.Or(o, "none"), whole, func(s *specs.Spec) {
				mountAt(s, "bind", oracleSource+"/"+name, "/tmp", withoutEmpty("bind", o)...)
			}))
		}
	}
	return list
}

// withGid0 leaves nothing that needs another mapping than that of 0.
func withGid0(s *specs.Spec) {
	for i := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(o string) bool { return strings.HasPrefix(o, "gid=") })
	}
}

// hookCases have a hook of each kind that writes down what it sees.
func hookCases() []oracleCase {
	probe := oracleBundle + "/rootfs/probe"
	hook := func(kind string, i int, env ...string) specs.Hook {
		path, file := probe, oracleHooks
		if kind == "startContainer" {
			path, file = "/probe", "/hooks"
		}
		return specs.Hook{Path: path, Args: []string{"hook", "hook", file, fmt.Sprintf("%s-%d", kind, i)}, Env: env}
	}
	add := func(h *specs.Hooks, kind string, hooks ...specs.Hook) {
		lists := map[string]*[]specs.Hook{
			"prestart": &h.Prestart, "createRuntime": &h.CreateRuntime, "createContainer": &h.CreateContainer,
			"startContainer": &h.StartContainer, "poststart": &h.Poststart, "poststop": &h.Poststop,
		}
		*lists[kind] = hooks
	}
	var list []oracleCase
	kinds := strings.Fields("prestart createRuntime createContainer startContainer poststart poststop")
	for _, kind := range kinds {
		list = append(list, oracleCase{name: kind, edit: func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{}
			add(s.Hooks, kind, hook(kind, 1, "A=1", "B=2"), hook(kind, 2))
		}})
		if kind == "poststart" {
			continue // whether the process has said something by then is chance
		}
		list = append(list, oracleCase{name: kind + "-fails", refused: kind != "poststop", edit: func(s *specs.Spec) {
			h := hook(kind, 1)
			h.Args = []string{"hook", "nosuchtopic"}
			s.Hooks = &specs.Hooks{}
			add(s.Hooks, kind, h, hook(kind, 2))
			s.Hooks.Poststop = append(s.Hooks.Poststop, hook("poststop", 9))
		}})
	}
	list = append(list, oracleCase{name: "startContainer-of-user", edit: func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7}}
		s.Process.Cwd = "/tmp"
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"keyctl"}, Action: specs.ActErrno}}}
		h := hook("startContainer", 1, "A=1")
		h.Args[2] = "/tmp/hooks"
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{h}}
	}})
	return append(list, oracleCase{name: "all", edit: func(s *specs.Spec) {
		s.Annotations = map[string]string{"of.the": "container"}
		s.Hooks = &specs.Hooks{}
		for _, kind := range kinds {
			add(s.Hooks, kind, hook(kind, 1, "KIND="+kind))
		}
	}})
}

// callerCases are plain bundles of callers that are special: what of it gets through?
func callerCases() []oracleCase {
	caller := func(name, commands string) oracleCase { return oracleCase{name: name, caller: commands} }
	return []oracleCase{
		caller("umask", "umask 027"),
		caller("umask-none", "umask 0"),
		caller("descriptors", "exec 5</etc/passwd 9</dev/null"),
		caller("ignores-hup", "trap '' HUP"),
		caller("ignores-pipe", "trap '' PIPE INT QUIT USR1"),
		caller("nice", "renice 5 $$ >/dev/null"),
		caller("affinity", "taskset -pc 0 $$ >/dev/null"),
		caller("limits", "ulimit -c 0; ulimit -n 512; ulimit -S -s 4096"),
		caller("oom", "echo 250 >/proc/self/oom_score_adj; choom -n 250 -p $$ >/dev/null"),
		caller("scheduler", "chrt -b -p 0 $$ >/dev/null"),
		caller("io", "ionice -c 2 -n 6 -p $$"),
		caller("personality", "set -- setarch -R \"$@\""),
		caller("environment", "set -- env LEAK=1 NOTIFY=2 \"$@\""),
		caller("no-new-privileges", "set -- setpriv --no-new-privs \"$@\""),
		caller("bounding", "set -- setpriv --bounding-set -sys_time,-net_raw \"$@\""),
		caller("groups", "set -- setpriv --groups 7,8 --regid 0 \"$@\""),
		caller("elsewhere", "cd /; set -- \"$@\"; set -- sh -c 'cd "+oracleBundle+"; exec \"$@\"' sh \"$@\""),
		caller("coredump-filter", "echo 0x7f >/proc/$$/coredump_filter"),
		caller("ambient", "set -- setpriv --inh-caps +kill --ambient-caps +kill \"$@\""),
	}
}
