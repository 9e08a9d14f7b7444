package rootfs

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Options is what Compile must know beside the configuration.
type Options struct {
	Bundle     string // absolute; relative sources and root.path start here
	Mounts     bool   // the container gets a mount namespace of its own
	UserNS     bool   // it lives in a user namespace, new or joined
	NoPivot    bool   // do without pivot_root(2), as on an initramfs
	Privileged bool   // the parent may open_tree(2): it opens the host's side
	Entered    bool   // the child is born with the container's root as "/"
	Cgroup     string // host path of the container's cgroup directory, if known
	Guest      bool   // that is the caller's, in which the container may not write

	// Shared are the namespaces that are not the container's own: joined by their
	// path, or without one the caller's. One that is joined but owned by its user
	// namespace counts as its own.
	Shared []specs.LinuxNamespace

	// Files are husk's own, mounted after the mounts of the config.
	Files []File
}

// File is a file of the host that is bound read-only on one in the container.
type File struct {
	Field          string
	Source, Target string
	Optional       bool // where the mount point can be made, if it is missing
}

// Compile turns the mounts, devices, masks and propagation of a configuration
// into steps: those before the hooks that run between mounting and pivoting,
// and those after. It touches nothing. All mistakes are returned together, each
// a *FieldError.
func Compile(spec *specs.Spec, o Options) (before, after []Step, err error) {
	c := compiler{spec: spec, Options: o, linux: spec.Linux}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	switch {
	case spec.Root == nil || spec.Root.Path == "":
		c.fail("/root/path", "", "the path of the root filesystem is missing")
	case o.Mounts:
		c.before()
		c.after()
	default:
		c.chroot()
	}
	if len(c.errs) > 0 {
		return nil, nil, errors.Join(c.errs...)
	}
	return c.early, c.late, nil
}

type compiler struct {
	Options
	spec  *specs.Spec
	linux *specs.Linux

	early, late []Step
	errs        []error
}

func (c *compiler) fail(field, where, text string) {
	c.errs = append(c.errs, &FieldError{Field: field, Path: where, Err: errors.New(text)})
}

func at(field string, i int) string { return field + "/" + strconv.Itoa(i) }

// inside is the clean absolute form of a path in the container. The
// specification wants relative ones taken from "/".
func inside(p string) string { return path.Clean("/" + p) }

// onHost makes a host path absolute.
func (c *compiler) onHost(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(c.Bundle, p)
}

// chroot is all that can be done without a mount namespace: what would be
// mounted would be mounted on the host.
func (c *compiler) chroot() {
	const text = "needs a mount namespace of its own: add {\"type\": \"mount\"} to /linux/namespaces"
	if len(c.spec.Mounts) > 0 {
		c.fail("/mounts", "", text)
	}
	if len(c.linux.MaskedPaths) > 0 {
		c.fail("/linux/maskedPaths", "", text)
	}
	if len(c.linux.ReadonlyPaths) > 0 {
		c.fail("/linux/readonlyPaths", "", text)
	}
	if c.spec.Root.Readonly {
		c.fail("/root/readonly", "", text)
	}
	if c.linux.RootfsPropagation != "" {
		c.fail("/linux/rootfsPropagation", "", text)
	}
	if c.spec.Process != nil && c.spec.Process.Terminal {
		// No devpts of its own: the terminal comes from the host's.
		c.early = append(c.early, Step{Op: OpConsole, Field: "/process/terminal"})
	}
	c.late = append(c.late, Step{Op: OpChroot, Field: "/root/path", Source: c.onHost(c.spec.Root.Path)})
}

func (c *compiler) before() {
	// A slave: the host's unmounts still reach the container (or the host could
	// not let go of a disk), nothing of ours reaches the host.
	if !c.Entered {
		c.early = append(c.early, Step{Op: OpPropagation, Field: "/linux/rootfsPropagation", Propagation: unix.MS_SLAVE | unix.MS_REC})
	}
	c.root()
	if len(c.linux.MaskedPaths) > 0 {
		s := Step{Op: OpNull, Field: "/linux/maskedPaths", Data: c.context()}
		if c.UserNS { // where mknod(2) is not allowed, the host's is masked with
			s = c.hostDevice(s, "/dev/null", unix.S_IFCHR, unix.Mkdev(1, 3))
		}
		c.early = append(c.early, s)
	}
	for i := range c.spec.Mounts {
		c.mount(i, &c.spec.Mounts[i])
	}
	for _, f := range c.Files {
		s := Step{
			Op: OpMount, Field: f.Field, Source: f.Source, Target: f.Target,
			Set: attrRO | attrNosuid | attrNodev | attrNoexec, Flags: FlagBind,
			FD: c.Privileged && (c.UserNS || c.Entered), // else the child gets there
		}
		if f.Optional {
			s.Flags |= FlagOptional
		}
		c.early = append(c.early, s)
	}
	if !c.boundOn("/dev") {
		c.devices()
	}
	if c.spec.Process != nil && c.spec.Process.Terminal {
		c.early = append(c.early, Step{Op: OpConsole, Field: "/process/terminal", Target: "/dev/console"})
	}
}

// root attaches the tree of root.path. It starts as a slave, so that a shared
// host mount never sees what is mounted in it; "shared" then is a peer group of
// its own, as the specification says.
func (c *compiler) root() {
	s := Step{
		Op: OpRoot, Field: "/root/path", Source: c.onHost(c.spec.Root.Path), Target: "/",
		Propagation: unix.MS_SLAVE | unix.MS_REC, Flags: FlagBind | FlagRec, FD: c.Privileged,
	}
	if c.UserNS {
		s.Flags |= FlagUserNS
	}
	if c.Entered {
		s.Flags |= FlagEntered
		s.FD = false // the parent gave it to the child at birth
	}
	if word := c.linux.RootfsPropagation; word != "" {
		p, ok := propagation(word)
		switch {
		case !ok:
			c.fail("/linux/rootfsPropagation", "", strconv.Quote(word)+" is not one of shared, slave, private, unbindable")
		case p&(unix.MS_PRIVATE|unix.MS_UNBINDABLE) != 0:
			s.Propagation = unix.MS_PRIVATE | unix.MS_REC
			if p&unix.MS_PRIVATE != 0 && c.NoPivot {
				c.fail("/linux/rootfsPropagation", "", "private does not go with --no-pivot")
			}
		}
	}
	c.early = append(c.early, s)
}

// boundOn tells whether a bind mount covers the directory.
func (c *compiler) boundOn(dir string) bool {
	return slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool {
		return inside(m.Destination) == dir &&
			(slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind"))
	})
}

func (c *compiler) after() {
	switch {
	case c.NoPivot:
		c.late = append(c.late, Step{Op: OpMove, Field: "/root/path"})
	case c.Entered:
		c.late = append(c.late, Step{Op: OpPivot, Field: "/root/path", Flags: FlagEntered})
	default:
		c.late = append(c.late, Step{Op: OpPivot, Field: "/root/path"})
	}
	c.late = append(c.late, Step{Op: OpStdio, Field: "/process"})
	for i, p := range c.linux.ReadonlyPaths {
		c.late = append(c.late, Step{Op: OpReadonly, Field: at("/linux/readonlyPaths", i), Target: c.absolute("/linux/readonlyPaths", i, p)})
	}
	for i, p := range c.linux.MaskedPaths {
		c.late = append(c.late, Step{
			Op: OpMask, Field: at("/linux/maskedPaths", i), Target: c.absolute("/linux/maskedPaths", i, p), Data: c.context(),
		})
	}
	for i := range c.early {
		if s := &c.early[i]; s.has(FlagSeal) {
			c.late = append(c.late, Step{Op: OpSeal, Field: s.Field, Target: s.Target})
		}
	}
	if c.spec.Root.Readonly {
		c.late = append(c.late, Step{Op: OpRootReadonly, Field: "/root/readonly", Target: "/"})
	}
	// Last, or our own mounts would travel through what becomes shared.
	if p, _ := propagation(c.linux.RootfsPropagation); p&(unix.MS_SHARED|unix.MS_UNBINDABLE) != 0 {
		c.late = append(c.late, Step{Op: OpRootPropagation, Field: "/linux/rootfsPropagation", Propagation: p})
	}
}

func (c *compiler) absolute(field string, i int, p string) string {
	if !path.IsAbs(p) {
		c.fail(at(field, i), p, "must be an absolute path")
	}
	return inside(p)
}

// mount compiles one entry of mounts.
func (c *compiler) mount(i int, m *specs.Mount) {
	field := at("/mounts", i)
	s := Step{Op: OpMount, Field: field, Source: m.Source, Target: inside(m.Destination), Type: m.Type}
	if m.Destination == "" {
		c.fail(field+"/destination", "", "is missing")
		return
	}
	var super []string
	var strange []int
	for j, word := range m.Options {
		switch o, known := findOption(word); {
		case !known:
			strange = append(strange, j)
			s.Data = append(s.Data, splitData(word)...)
		case o.kind == kindSuper:
			super = append(super, word)
		default:
			s.option(word)
		}
	}
	if s.has(FlagBind) {
		c.noData(&s, m, strange)
	} else {
		s.Data = append(super, s.Data...)
	}
	switch {
	case s.has(FlagRemount):
		s.Type, s.Source, s.Flags = "", "", FlagRemount
	case s.has(FlagBind):
		c.bind(&s, m)
	default:
		c.filesystem(&s, m)
	}
	c.idMap(&s, m)
	c.label(&s)
	c.checkProc(&s)
	c.early = append(c.early, s)
}

// idMap completes an id-mapped mount. The parent makes it, also where it is a new
// filesystem: the kernel wants rights over the filesystem, which the container has
// only over its own, and ids on the filesystem that are not those of the container's
// user namespace already.
func (c *compiler) idMap(s *Step, m *specs.Mount) {
	field := s.Field + "/uidMappings"
	switch given := len(m.UIDMappings) + len(m.GIDMappings); {
	case given == 0 && !s.has(FlagIDMap):
		return
	case given == 0:
		field = s.Field + "/options"
		if !c.UserNS {
			c.fail(field, s.Target, "an id-mapped mount needs uidMappings and gidMappings, where the container has no user namespace to take them from")
		}
	case len(m.UIDMappings) == 0 || len(m.GIDMappings) == 0:
		c.fail(field, s.Target, "uidMappings and gidMappings go together")
	}
	switch {
	case s.has(FlagRemount):
		c.fail(field, s.Target, "only a new mount can be id-mapped, not one that is there")
	case !s.has(FlagBind) && ofNamespace(s.Type):
		c.fail(field, s.Target, "a "+s.Type+" filesystem cannot be id-mapped")
	case !c.Privileged:
		c.fail(field, s.Target, "an ordinary user may not make id-mapped mounts: run husk as root, or leave out the mapping")
	}
	s.Flags |= FlagIDMap
	s.FD, s.IDMap = true, &IDMap{m.UIDMappings, m.GIDMappings}
}

// ofNamespace tells whether a filesystem shows the namespaces of who mounts it. Made
// by the parent it would be the host's.
func ofNamespace(fstype string) bool {
	switch fstype {
	case "proc", "sysfs", "mqueue", "cgroup", "cgroup2":
		return true
	}
	return false
}

// IgnoredByBind says whether an option of a tmpfs, which configurations also carry to
// bind mounts, changes nothing there: mount(2) ignores it. Any other unknown option of
// a bind mount is refused. It may be a mistyped "noexec".
func IgnoredByBind(option string) bool {
	name, _, ok := strings.Cut(option, "=")
	return ok && slices.Contains([]string{"mode", "size", "nr_blocks", "nr_inodes"}, name)
}

// noData refuses what is left for the filesystem to understand, where the mount
// is all that there is.
func (c *compiler) noData(s *Step, m *specs.Mount, strange []int) {
	for _, j := range strange {
		if IgnoredByBind(m.Options[j]) {
			continue
		}
		c.fail(at(s.Field+"/options", j), "", strconv.Quote(m.Options[j])+" is not an option of a bind mount")
	}
	s.Data = nil
}

// bind completes a bind mount, for which the type does not matter.
func (c *compiler) bind(s *Step, m *specs.Mount) {
	if m.Source == "" {
		c.fail(s.Field+"/source", "", "a bind mount needs a source")
	}
	if s.has(FlagCopyUp) {
		c.fail(s.Field+"/options", "", "tmpcopyup is for tmpfs only")
	}
	s.Source, s.Type, s.FD = c.onHost(m.Source), "", c.Privileged
	if s.has(FlagCopyLink) {
		c.copyLink(s)
	}
	if s.Target == "/proc" || s.Target == "/sys" {
		s.Flags |= FlagReal
	}
}

// copyLink makes the link that the source is, if it is one.
func (c *compiler) copyLink(s *Step) {
	s.Flags &^= FlagCopyLink
	if text, err := readlinkat(unix.AT_FDCWD, s.Source); err == nil {
		*s = Step{Op: OpSymlink, Field: s.Field, Source: text, Target: s.Target}
	}
}

// filesystem completes a mount of a filesystem type.
func (c *compiler) filesystem(s *Step, m *specs.Mount) {
	switch s.Type {
	case "":
		c.fail(s.Field+"/type", "", "is missing (or add \"bind\" to the options)")
	case "bind":
		c.fail(s.Field+"/options", "", "a mount of type bind needs the option bind or rbind")
	case "proc":
		s.Flags |= FlagReal
		c.instance(s, specs.PIDNamespace)
	case "sysfs":
		s.Flags |= FlagReal
		c.instance(s, specs.NetworkNamespace)
	case "mqueue":
		c.instance(s, specs.IPCNamespace)
	case "cgroup", "cgroup2":
		c.cgroup(s)
	case "tmpfs":
		// Later mounts may need mount points in it, so read-only comes last.
		if (s.Set|s.RSet)&attrRO != 0 {
			s.Flags |= FlagSeal
		}
	case "devpts":
		c.devpts(s)
	}
	if s.has(FlagScratch) && (s.Type != "overlay" || hasKey(s.Data, "upperdir") || !hasKey(s.Data, "lowerdir")) {
		c.fail(s.Field+"/options", "", "scratch is for an overlay with a lowerdir and without an upperdir")
	}
	if s.has(FlagRealSource) {
		c.fail(s.Field+"/options", "", "src-nosymlinks is for bind mounts only")
	}
	if s.has(FlagCopyUp) && s.Type != "tmpfs" {
		c.fail(s.Field+"/options", "", "tmpcopyup is for tmpfs only")
	}
	if set, _ := change(s.Set, s.Clr, s.RSet, s.RClr); set&attrRO != 0 && path.IsAbs(m.Source) && !s.has(FlagSeal) {
		// A read-only disk refuses a filesystem that might write. The kinds
		// without a disk are often shared: a read-only sysfs would be so for
		// every container of the same network namespace.
		s.Data = append(s.Data, "ro")
	}
	if s.Target == "/sys" {
		s.Flags |= FlagReal
	}
}

// label gives the files of a new filesystem the SELinux context of mountLabel, where it
// takes one and the options do not name another.
func (c *compiler) label(s *Step) {
	switch {
	case c.linux.MountLabel == "" || s.has(FlagBind|FlagRemount) || ofNamespace(s.Type) || hasKey(s.Data, "context"):
		return
	case c.UserNS && !s.FD && !slices.Contains([]string{"tmpfs", "ramfs", "devpts", "overlay"}, s.Type):
		return // of the others SELinux takes none that a user namespace has mounted
	}
	s.Data = append(s.Data, c.context()...)
}

func (c *compiler) context() []string {
	if c.linux.MountLabel == "" {
		return nil
	}
	return []string{"context=" + c.linux.MountLabel}
}

// shared tells whether a namespace is not new, and the path by which it is joined.
func (c *compiler) shared(kind specs.LinuxNamespaceType) (path string, shared bool) {
	for _, n := range c.Shared {
		if n.Type == kind {
			return n.Path, true
		}
	}
	return "", false
}

// instance has a filesystem that shows a namespace mounted by somebody who may: of a
// namespace that it does not own, a user namespace may not. So the parent does, in
// there. Where that may not either, the host's mount must do.
func (c *compiler) instance(s *Step, kind specs.LinuxNamespaceType) {
	where, shared := c.shared(kind)
	if !shared {
		return
	}
	if where == "" {
		s.Flags |= FlagHost
	}
	if !c.UserNS || !c.Privileged {
		return
	}
	s.FD = true
	switch {
	case where == "":
	case kind == specs.PIDNamespace: // entered by no thread, but named by an option since Linux 6.17
		s.Data = append(s.Data, "pidns="+where)
	default:
		s.Within = specs.LinuxNamespace{Type: kind, Path: where}
	}
}

// cgroup mounts the unified hierarchy. Without a cgroup namespace that it owns, a
// user namespace is not allowed to, and gets a bind mount of its cgroup. Root is
// allowed to, but in the host's cgroup namespace a new mount would set the options
// of the hierarchy itself: the host would lose its nsdelegate and
// memory_recursiveprot.
func (c *compiler) cgroup(s *Step) {
	s.Type, s.Source = "cgroup2", cmp.Or(s.Source, "cgroup")
	where, shared := c.shared(specs.CgroupNamespace)
	switch {
	case !shared:
	case where != "" && (!c.UserNS || c.Privileged):
		c.instance(s, specs.CgroupNamespace)
	case !c.UserNS:
		s.Flags |= FlagHostCgroup
		s.FD = c.Entered // the child does not see the host's
	case c.Cgroup != "":
		s.Source, s.Flags = c.Cgroup, s.Flags|FlagCgroup
		if c.Guest {
			s.Set, s.Clr = change(s.Set, s.Clr, attrRO, 0)
		}
	}
}

// devpts drops gid= (mostly 5, tty) when the user namespace has no such group:
// the kernel would refuse the mount.
func (c *compiler) devpts(s *Step) {
	if !c.UserNS || len(c.linux.GIDMappings) == 0 {
		return
	}
	s.Data = slices.DeleteFunc(s.Data, func(word string) bool {
		text, ok := strings.CutPrefix(word, "gid=")
		gid, err := strconv.ParseUint(text, 10, 32)
		return ok && err == nil && !slices.ContainsFunc(c.linux.GIDMappings, func(m specs.LinuxIDMapping) bool {
			return gid >= uint64(m.ContainerID) && gid < uint64(m.ContainerID)+uint64(m.Size)
		})
	})
}

// checkProc refuses mounts that would let the container forge what is read from
// /proc (CVE-2019-16884 and its kin). Apply repeats it with descriptors, for
// paths that lead there by a symbolic link.
func (c *compiler) checkProc(s *Step) {
	switch {
	case s.Target == "/proc":
		if s.Type != "proc" && !s.has(FlagBind|FlagRemount) {
			c.fail(s.Field+"/destination", "/proc", "only procfs may be mounted here")
		}
	case strings.HasPrefix(s.Target, "/proc/") && !allowedOnProc(s.Target):
		c.fail(s.Field+"/destination", s.Target, "nothing may be mounted here: it could hide or forge what /proc says")
	}
}

// allowedOnProc lists what such as lxcfs replaces with a container's view.
func allowedOnProc(target string) bool {
	switch target {
	case "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
		"/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
		"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled":
		return true
	}
	return false
}
