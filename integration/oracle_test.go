package integration

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestOracle runs the same bundles through husk and a reference runtime and
// compares what the probe sees. $CRUN and $RUNC name the references; without them
// those of the root that make bench keeps are taken, if it is there.
func TestOracle(t *testing.T) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			reference := referenceOf(t, name)
			box(t, func(t *testing.T) {
				must(t, os.Mkdir(oracleSource, 0o755))
				mountTmpfs(t, oracleSource) // without flags that runtimes might keep or not
				for what, edit := range oracleBundles {
					compareWith(t, reference, what, edit)
				}
			})
		})
	}
}

// referenceOf returns the command that runs a reference runtime.
func referenceOf(t *testing.T, name string) []string {
	t.Helper()
	if path := os.Getenv(strings.ToUpper(name)); path != "" {
		return []string{path}
	}
	cache := cmp.Or(os.Getenv("XDG_CACHE_HOME"), "/var/cache")
	roots, _ := filepath.Glob(cache + "/husk/peers-*/usr/*bin/" + name)
	if len(roots) == 0 {
		t.Skipf("needs $%s, the path of %s, or the root that make bench makes", strings.ToUpper(name), name)
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(roots[0])))
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", enterRoot, "sh", root, name}
}

// enterRoot runs a program of another distribution with the box's /run, where
// bundles are, and its kernel file systems.
const enterRoot = `root=$1; shift
mount --bind "$root" "$root"
for d in proc sys dev run; do mount --rbind /$d "$root/$d"; done
cd "$root"
old=$OLDPWD
pivot_root . .
umount -l .
cd "$old"
PATH=/usr/sbin:/usr/bin:/sbin:/bin exec "$@"`

// oracleSource is what bind mounts show.
const oracleSource = workRoot + "/source"

var oracleBundles = map[string]func(*specs.Spec){
	"plain": func(*specs.Spec) {},
	"user": func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7, 8}}
		s.Process.Cwd = "/tmp"
	},
	"read-only": func(s *specs.Spec) { s.Root.Readonly = true },
	"capabilities": func(s *specs.Spec) {
		caps := []string{"CAP_CHOWN", "CAP_KILL"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps, Inheritable: caps, Ambient: caps[:1]}
		s.Process.User.UID = 5
		s.Process.NoNewPrivileges = false
	},
	"limits": func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}, {Type: "RLIMIT_CORE"}}
		score := 100
		s.Process.OOMScoreAdj = &score
	},
	"mounts": func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Type: "bind", Source: oracleSource, Destination: "/host", Options: []string{"rbind", "ro", "nosuid"}},
			specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/scratch", Options: []string{"size=1m", "noexec", "mode=700"}})
	},
	"no pid namespace": func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	},
	"seccomp": func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
	},
	"sysctl": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"} },
}

func compareWith(t *testing.T, reference []string, what string, edit func(*specs.Spec)) {
	t.Helper()
	b := newBundle(t, func(s *specs.Spec) {
		edit(s)
		s.Process.Args = []string{"/probe"}
	})
	mine := b.husk("run", "c1")
	theirs := b.with(reference[0], slices.Concat(reference[1:], []string{"--root", t.TempDir(), "run", "c2"})...)
	if mine.code != 0 || theirs.code != 0 {
		t.Errorf("%s: exit %d and %d: %s%s", what, mine.code, theirs.code, mine.stderr, theirs.stderr)
		return
	}
	got, want := comparable(mine.stdout), comparable(theirs.stdout)
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("%s: only husk: %s", what, l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("%s: not husk: %s", what, l)
		}
	}
}

var (
	// Numbers, whether a file system of its own is read-only twice, and crun's ways
	// with cgroup mounts.
	numbers   = regexp.MustCompile(`\[\d+\]|^(mount) \d+ \d+ \S+| master:\d+| shared:\d+|( - sysfs sysfs) r[ow]|,nosymfollow|( - cgroup2) \S+`)
	different = regexp.MustCompile(strings.Join([]string{
		`^(clock|timens|fd|keyring|pid|ppid|pgid|sid|ns\.)`, // differ between any two
		`^dumpable`,
		`^mount .* /(proc/(acpi|kcore|keys|timer_list)|sys/firmware) `, // masks are made of other things
		`^mount \S+ \S+ \S+ \S+ / `,                                    // runc loses nosuid and nodev when it makes the root read-only
		`^umask`,                                                       // runc and crun force one, the specification says to inherit it
	}, "|"))
)

// comparable drops from the probe's lines what is never the same twice and where
// runtimes may differ.
func comparable(out string) []string {
	var list []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if different.MatchString(line) {
			continue
		}
		list = append(list, numbers.ReplaceAllString(line, "$1$2$3"))
	}
	return list
}
