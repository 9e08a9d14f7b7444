package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/huskrun/husk/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// bind is a path of the host for the job.
type bind struct {
	flag, source, target string
	options              []string
}

// parseBind reads SRC[:DST[:OPTIONS]].
func parseBind(flag, text string) (bind, error) {
	part := strings.SplitN(text, ":", 3)
	source, err := filepath.Abs(part[0])
	if err != nil || part[0] == "" {
		return bind{}, bad(flag, "write it as in /srv/data:/data:ro", "%q is not SRC[:DST[:OPTIONS]]", text)
	}
	b := bind{flag: flag, source: source, target: source}
	if len(part) > 1 && part[1] != "" {
		b.target = filepath.Clean(part[1])
	}
	if !filepath.IsAbs(b.target) || b.target == "/" {
		return b, bad(flag, "write where in the job, as in /data", "%s is not an absolute path below /", b.target)
	}
	if len(part) == 3 {
		for word := range strings.SplitSeq(part[2], ",") {
			if !slices.Contains([]string{"ro", "rw", "noexec"}, word) {
				return b, bad(flag, "ro, rw and noexec are options", "unknown option %q", word)
			}
			b.options = append(b.options, word)
		}
	}
	return b, nil
}

// binds lists all of them, the workspace first.
func (b *builder) binds() (list []bind, err error) {
	w := bind{flag: "workspace", source: b.workspace, target: b.workspace}
	if b.o.ReadOnly {
		w.options = []string{"ro"}
	}
	list = append(list, w)
	for _, kind := range []struct {
		flag  string
		texts []string
	}{{"cache", b.o.Caches}, {"bind", b.o.Binds}} {
		for _, text := range kind.texts {
			m, err := parseBind(kind.flag, text)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(list, func(o bind) bool { return o.target == m.target }) {
				return nil, bad(kind.flag, "leave out one of them", "%s is given twice", m.target)
			}
			list = append(list, m)
		}
	}
	return list, nil
}

// targets lists where something of the job's own is mounted.
func (b *builder) targets() (list []string) {
	binds, _ := b.binds()
	for _, m := range binds {
		list = append(list, m.target)
	}
	for _, text := range b.o.Tmpfs {
		target, _, _ := strings.Cut(text, ":")
		list = append(list, filepath.Clean(target))
	}
	return append(list, b.homeDir())
}

// homeDir is the caller's, where it names one.
func (b *builder) homeDir() string {
	home := filepath.Clean(os.Getenv("HOME"))
	if !filepath.IsAbs(home) || home == "/" || b.foreign() && b.uid == 0 {
		return "/root"
	}
	return home
}

// mounts adds what the job may write to.
func (b *builder) mounts() error {
	binds, err := b.binds()
	if err != nil {
		return err
	}
	b.home = b.homeDir()
	if !b.foreign() {
		b.tmpfs("/tmp", "mode=1777", sizeOption(b.o.Size))
		b.tmpfs("/var/tmp", "mode=1777", sizeOption(b.o.Size))
		b.tmpfs("/run", "mode=755", "size=16m")
	}
	if b.home != b.workspace && !below(b.home, "/tmp") {
		b.tmpfs(b.home, "mode=700", sizeOption(b.o.Size), b.owner())
	}
	for i, text := range b.o.Tmpfs {
		target, size, sized := strings.Cut(text, ":")
		n := b.o.Size
		if target = filepath.Clean(target); !filepath.IsAbs(target) || target == "/" || sized && n.Set(size) != nil {
			return bad("tmpfs", "write it as in /scratch:64M", "%q is not DST[:SIZE]", text)
		}
		if slices.Contains(b.targets()[:len(binds)+i], target) {
			return bad("tmpfs", "leave out one of them", "%s is given twice", target)
		}
		b.tmpfs(target, "mode=700", sizeOption(n), b.owner())
	}
	// What holds another one comes first.
	slices.SortStableFunc(binds, func(x, y bind) int { return strings.Count(x.target, "/") - strings.Count(y.target, "/") })
	for _, m := range binds {
		if err := b.bindMount(m); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) tmpfs(on string, options ...string) {
	b.mount(specs.Mount{Destination: on, Type: "tmpfs", Source: "tmpfs", Options: append([]string{"nosuid", "nodev"}, options...)})
}

// owner makes a tmpfs the job's own.
func (b *builder) owner() string {
	return fmt.Sprintf("uid=%d,gid=%d", b.inner, b.innerGID)
}

// findWritable lists, without links, what of the host jobs may write to.
func (b *builder) findWritable() error {
	b.writable = []string{b.workspace}
	binds, err := b.binds()
	for _, m := range binds[min(1, len(binds)):] {
		if dir, err := filepath.EvalSymlinks(m.source); err == nil && !slices.Contains(m.options, "ro") {
			b.writable = append(b.writable, dir)
		}
	}
	return err
}

// landlock names what is mounted for the job to write to: the directories of the host's
// root one by one, of another root "/" itself. A job that may mount is not restricted,
// since that would forbid it.
func (b *builder) landlock() error {
	if !runtime.HasLandlock() || b.o.Seccomp != "" || slices.Contains(b.spec.Process.Capabilities.Bounding, "CAP_SYS_ADMIN") {
		return nil
	}
	var paths []string
	root := slices.IndexFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/" && m.Type == "overlay" })
	for i, m := range b.spec.Mounts[root:] {
		fixed := slices.ContainsFunc(m.Options, func(o string) bool { return o == "ro" || o == "rro" || o == "copy-symlink" })
		covered := slices.ContainsFunc(paths, func(p string) bool { return below(m.Destination, p) })
		if !fixed && !covered && (i > 0 || b.foreign()) {
			paths = append(paths, m.Destination)
		}
	}
	b.spec.Annotations[runtime.AnnotationLandlock] = strings.Join(paths, "\n")
	return nil
}

// bindMount shows a path. Where the caller is root the job is somebody else, who gets the
// rights of the owner of that path there, and what it makes is the owner's.
func (b *builder) bindMount(m bind) error {
	source, err := b.real(m.flag, m.source)
	if err != nil {
		return err
	}
	st, err := os.Stat(source)
	if err != nil {
		if m.flag != "cache" || !os.IsNotExist(err) {
			return bad(m.flag, "it has to exist", "%w", err)
		}
		b.caches = append(b.caches, source)
	} else if m.flag == "cache" && !st.IsDir() {
		return bad(m.flag, "name a directory, or give --bind", "%s is not one", m.source)
	}
	if m.flag == "bind" && !slices.Contains(m.options, "ro") {
		b.loose("--bind " + m.source)
	}
	s := specs.Mount{
		Destination: m.target, Source: source,
		Options: append([]string{"bind", "src-nosymlinks", "nosuid", "nodev"}, m.options...),
	}
	if b.uid == 0 {
		var uid, gid uint32
		if st != nil {
			owner := st.Sys().(*syscall.Stat_t)
			uid, gid = owner.Uid, owner.Gid
		}
		s.Options = append(s.Options, "idmap")
		s.UIDMappings = []specs.LinuxIDMapping{{ContainerID: uid, HostID: nobody + b.inner, Size: 1}}
		s.GIDMappings = []specs.LinuxIDMapping{{ContainerID: gid, HostID: nobody + b.innerGID, Size: 1}}
	}
	b.mount(s)
	return nil
}
