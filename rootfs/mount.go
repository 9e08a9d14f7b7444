package rootfs

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const procRootInode = 1

var (
	errOnProc   = errors.New("nothing may be mounted on procfs here")
	errNotProc  = errors.New("only procfs may be mounted on /proc")
	errMissing  = errors.New("the host has no such device")
	errNoCgroup = errors.New("the host has no cgroup2 mounted")
)

// Open makes what a step needs of the host: a detached mount with its flags and
// propagation already set. The parent calls it for steps with FD; the child
// falls back on it. userns is a user namespace with the maps of IDMap.
func (s *Step) Open(userns int) (fd int, err error) {
	switch {
	case s.has(FlagNode):
		return s.openNode()
	case s.Op == OpDevice || s.Op == OpNull:
		return s.openDevice()
	case !s.has(FlagBind): // for the container to attach
		fd, err = s.filesystem(s.Data)
	default:
		fd, err = s.openBind()
	}
	if err != nil || s.IDMap == nil {
		return fd, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}
	if err := mountSetattr(fd, recursive(s.has(FlagIDRec)), &attr); err != nil {
		shut(fd)
		return -1, fact("id-map", cmp.Or(s.Source, s.Type), err)
	}
	return fd, nil
}

func (s *Step) openBind() (int, error) {
	fd, err := s.cloneSource(recursive(s.has(FlagRec)))
	if err != nil {
		return -1, fact("open_tree", s.Source, err)
	}
	if err := s.prepare(fd); err != nil {
		shut(fd)
		return -1, err
	}
	return fd, nil
}

// cloneSource clones what is to be bound. Where others may write, links to it are theirs.
func (s *Step) cloneSource(flags uint) (int, error) {
	if !s.has(FlagRealSource) {
		return openTree(unix.AT_FDCWD, s.Source, unix.OPEN_TREE_CLONE|flags)
	}
	fd, err := openat2(unix.AT_FDCWD, s.Source, &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return -1, err
	}
	defer shut(fd)
	return clone(fd, flags)
}

func (s *Step) prepare(fd int) error {
	if s.Op == OpRoot {
		st, err := statx(fd, "", 0)
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.ENOTDIR
		}
		if err != nil {
			return fact("open", s.Source, err)
		}
	}
	return fact("mount_setattr", s.Source, s.attributes(fd))
}

// attributes sets flags and propagation on a detached clone. Unless the host's
// peer group is asked for, the clone leaves it first, with all below it: were it
// still there when attached, mounts on it would show up on the host.
func (s *Step) attributes(fd int) error {
	top := unix.MountAttr{Attr_set: s.Set, Attr_clr: s.Clr}
	tree := unix.MountAttr{Propagation: unix.MS_SLAVE}
	switch p := s.Propagation &^ unix.MS_REC; {
	case p == 0:
	case s.Propagation&unix.MS_REC != 0:
		tree.Propagation = p
	case p == unix.MS_SHARED:
		tree.Propagation, top.Propagation = 0, p
	default:
		top.Propagation = p
	}
	if err := mountSetattr(fd, unix.AT_RECURSIVE, &tree); err != nil {
		return err
	}
	if err := mountSetattr(fd, 0, &top); err != nil {
		return err
	}
	return mountSetattr(fd, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: s.RSet, Attr_clr: s.RClr})
}

// openDevice clones the mount of one host device, verified by its number.
func (s *Step) openDevice() (int, error) {
	kind := "char"
	if s.Mode&unix.S_IFMT == unix.S_IFBLK {
		kind = "block"
	}
	number := strconv.Itoa(int(unix.Major(s.Dev))) + ":" + strconv.Itoa(int(unix.Minor(s.Dev)))
	// The second name finds devices that are called differently on the host.
	for _, name := range [...]string{s.Source, "/dev/" + kind + "/" + number} {
		fd, err := openTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return -1, fact("open_tree", name, err)
		}
		if s.isDevice(fd) {
			err = mountSetattr(fd, 0, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
			return fd, fact("mount_setattr", name, err)
		}
		shut(fd)
	}
	return -1, fact("open", s.Source, fmt.Errorf("%w (%s %s): %w", errMissing, kind, number, unix.ENODEV))
}

// target is an open mount point.
type target struct {
	fd   int
	st   unix.Statx_t
	made bool // it was not there before
}

// target opens the mount point of a step and makes it if it is missing.
func (r *Root) target(s *Step, dir bool) (t target, err error) {
	m := maker{root: r.fd, mode: 0o755}
	if s.has(FlagReal) {
		m.resolve = unix.RESOLVE_NO_SYMLINKS
	}
	t.fd, err = lookup(r.fd, s.Target, unix.O_PATH, m.resolve)
	if err == unix.ENOENT {
		t.made = true
		if dir {
			t.fd, err = m.mkdirAll(s.Target)
		} else {
			t.fd, err = m.create(s.Target)
		}
	}
	if err != nil {
		return t, fact("open", s.Target, err)
	}
	if t.st, err = statx(t.fd, "", 0); err == nil {
		err = t.check(s, dir)
	}
	if err != nil {
		shut(t.fd)
	}
	return t, fact("mount", s.Target, err)
}

func (t *target) check(s *Step, dir bool) error {
	if is := t.st.Mode&unix.S_IFMT == unix.S_IFDIR; dir && !is {
		return unix.ENOTDIR
	} else if !dir && is {
		return unix.EISDIR
	}
	magic, err := fsMagic(t.fd)
	if err == nil && magic == unix.PROC_SUPER_MAGIC && s.Target != "/proc" && !allowedOnProc(s.Target) {
		return errOnProc
	}
	return err
}

// mount carries out one entry of mounts.
func (r *Root) mount(s *Step, fd int) (err error) {
	dir := true
	switch {
	case s.has(FlagRemount):
		return r.remount(s)
	case s.has(FlagBind):
		if fd < 0 {
			if fd, err = s.Open(-1); err != nil {
				return err
			}
		}
		if dir, err = checkSource(s, fd); err != nil {
			shut(fd)
			return fact("bind", s.Source, err)
		}
	}
	t, err := r.target(s, dir)
	if err != nil {
		shut(fd)
		if t.made && s.has(FlagOptional) {
			return nil
		}
		return err
	}
	defer shut(t.fd)
	switch {
	case s.has(FlagScratch):
		fd, err = r.overlay(s)
	case !s.has(FlagBind):
		fd, err = s.newOn(&t, fd)
	}
	if err != nil {
		return err
	}
	return r.attach(s, fd, &t)
}

// newOn makes a filesystem for the mount point, unless the parent has made it, and
// gives a tmpfs what it is to take over from there.
func (s *Step) newOn(t *target, fd int) (_ int, err error) {
	data := s.Data
	cover := s.Type == "tmpfs" && !t.made
	// Covering /tmp must not change who may write there.
	keep := cover && !hasKey(data, "mode")
	if fd < 0 {
		if keep {
			data = append(data[:len(data):len(data)], "mode="+strconv.FormatUint(uint64(t.st.Mode&0o7777), 8))
		}
		if fd, err = s.filesystem(data); err != nil {
			return -1, err
		}
	} else if keep {
		if err := chmodRoot(fd, uint32(t.st.Mode&0o7777)); err != nil {
			shut(fd)
			return -1, fact("chmod", s.Target, err)
		}
	}
	if cover && s.has(FlagCopyUp) {
		if err := s.copyUp(t.fd, fd); err != nil {
			shut(fd)
			return -1, fact("tmpcopyup", s.Target, err)
		}
	}
	return fd, nil
}

// copyUp fills a tmpfs. A mode that was asked for is not overruled by what it covers.
func (s *Step) copyUp(from, to int) error {
	asked, err := statx(to, "", 0)
	if err != nil {
		return err
	}
	if err := copyUp(from, to); err != nil || !hasKey(s.Data, "mode") {
		return err
	}
	return chmodRoot(to, uint32(asked.Mode&0o7777))
}

// chmodRoot sets the mode of the directory that a new mount starts with.
func chmodRoot(fd int, mode uint32) error {
	dir, err := openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer shut(dir)
	return fchmod(dir, mode)
}

// attach puts a prepared mount on its mount point.
func (r *Root) attach(s *Step, fd int, t *target) error {
	over := r.isRoot(&t.st)
	if err := moveMount(fd, t.fd); err != nil {
		shut(fd)
		return fact("move_mount", s.Target, err)
	}
	if s.has(FlagSeal) {
		kept, err := openat(fd, ".", unix.O_PATH)
		if err != nil {
			return fact("open", s.Target, err)
		}
		r.seals = append(r.seals, seal{s.Field, kept})
	}
	if over {
		r.above = true
		if s.Type == "tmpfs" {
			if err := r.keepScratch(fd); err != nil {
				return fact("open", s.Target, err)
			}
		}
		return r.setRoot(fd)
	}
	shut(fd)
	return nil
}

// checkSource tells whether a bind source is a directory.
func checkSource(s *Step, fd int) (dir bool, err error) {
	st, err := statx(fd, "", 0)
	if err != nil {
		return false, err
	}
	if s.Target == "/proc" {
		if magic, err := fsMagic(fd); err != nil || magic != unix.PROC_SUPER_MAGIC || st.Ino != procRootInode {
			return false, errors.Join(errNotProc, err)
		}
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// filesystem makes a detached mount of a filesystem type.
func (s *Step) filesystem(data []string) (int, error) {
	set, _ := change(s.Set, s.Clr, s.RSet, s.RClr)
	if s.has(FlagSeal) {
		set &^= attrRO
	}
	if s.has(FlagHostCgroup) {
		return s.hostCgroup()
	}
	fd, err := newMount(s.Type, s.Source, data, set)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		fd, err = s.fallback(err)
	}
	if err != nil {
		return -1, fact("mount "+s.Type, s.Target, err)
	}
	if p := s.Propagation &^ unix.MS_REC; p != 0 && p != unix.MS_PRIVATE { // as it is born
		if err := mountSetattr(fd, 0, &unix.MountAttr{Propagation: p}); err != nil {
			shut(fd)
			return -1, fact("mount_setattr", s.Target, err)
		}
	}
	return fd, nil
}

// fallback binds the host's instance of a filesystem that the user namespace
// may not mount for want of its own cgroup, IPC, network or PID namespace.
func (s *Step) fallback(err error) (int, error) {
	switch {
	case s.has(FlagCgroup):
		fd, err := s.bindHost(s.Source, FlagBind)
		if errors.Is(err, unix.ENOENT) { // the caller's, which it does not see itself
			return newEmpty(nil)
		}
		return fd, err
	case s.has(FlagHost) && s.Type == "proc":
		return s.bindHost("/proc", FlagBind|FlagRec)
	case s.has(FlagHost) && s.Type == "sysfs":
		return s.bindHost("/sys", FlagBind|FlagRec)
	case s.has(FlagHost) && s.Type == "mqueue":
		if fd, herr := s.bindHost("/dev/mqueue", FlagBind); herr == nil {
			return fd, nil // unless the host has none
		}
	}
	return -1, err
}

// bindHost binds something of the host in the place of a filesystem. What the host has
// mounted below cannot be left behind by a user namespace; what the options forbid, they
// forbid there too: a cgroup2 below /sys is the caller's to write.
func (s *Step) bindHost(source string, flags uint64) (int, error) {
	b := Step{Op: OpMount, Source: source, Flags: flags, Set: s.Set, Clr: s.Clr}
	b.RSet, b.RClr = change(s.RSet, s.RClr, s.Set&(attrRO|attrNosuid|attrNodev|attrNoexec), 0)
	fd, err := b.Open(-1)
	if errors.Is(err, unix.EPERM) && b.Clr&attrAtime != 0 {
		// Access times may be locked, which one did not choose by naming a filesystem.
		b.Set, b.Clr = b.Set&^(attrAtime|attrNodir), b.Clr&^(attrAtime|attrNodir)
		return b.Open(-1)
	}
	return fd, err
}

// hostCgroup clones the host's cgroup2, where it is or where it is on a host
// that still uses the first version.
func (s *Step) hostCgroup() (int, error) {
	for _, dir := range [...]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		fd, err := s.bindHost(dir, FlagBind)
		if err != nil {
			return -1, err
		}
		if magic, err := fsMagic(fd); err == nil && magic == unix.CGROUP2_SUPER_MAGIC {
			return fd, nil
		}
		shut(fd)
	}
	return -1, fact("bind", "/sys/fs/cgroup", errNoCgroup)
}

func hasKey(data []string, key string) bool {
	for _, word := range data {
		if rest, ok := strings.CutPrefix(word, key); ok && strings.HasPrefix(rest, "=") {
			return true
		}
	}
	return false
}

// newMount runs fsopen, fsconfig and fsmount.
func newMount(fstype, source string, data []string, attrs uint64) (int, error) {
	ctx, err := fsopen(fstype)
	if err != nil {
		return -1, err
	}
	defer shut(ctx)
	if err := configure(ctx, source, data); err != nil {
		return -1, explain(ctx, err)
	}
	if err := fscommand(ctx, unix.FSCONFIG_CMD_CREATE); err != nil {
		return -1, explain(ctx, err)
	}
	fd, err := fsmount(ctx, attrs)
	return fd, explain(ctx, err)
}

func configure(ctx int, source string, data []string) error {
	if source != "" {
		if err := fsset(ctx, "source", source); err != nil {
			return err
		}
	}
	for _, word := range data {
		var err error
		if key, value, ok := strings.Cut(word, "="); ok {
			err = fsset(ctx, key, value)
		} else {
			err = fsflag(ctx, key)
		}
		if err != nil {
			return fmt.Errorf("option %q: %w", word, err)
		}
	}
	return nil
}

// explain adds what the filesystem wrote to the context's log, which says which
// option it did not like.
func explain(ctx int, err error) error {
	if err == nil {
		return nil
	}
	var buf [256]byte
	n, rerr := read(ctx, buf[:])
	if rerr != nil || n < 3 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[2:n])))
}

// remount changes the mount that is on Target, only in what the options name.
func (r *Root) remount(s *Step) error {
	t, err := lookup(r.fd, s.Target, unix.O_PATH, 0)
	if err != nil {
		return fact("open", s.Target, err)
	}
	defer shut(t)
	if len(s.Data) > 0 {
		if err := reconfigure(t, s.Data); err != nil {
			return fact("remount", s.Target, err)
		}
	}
	top := unix.MountAttr{Attr_set: s.Set, Attr_clr: s.Clr}
	tree := unix.MountAttr{Attr_set: s.RSet, Attr_clr: s.RClr}
	if s.Propagation&unix.MS_REC != 0 {
		tree.Propagation = s.Propagation &^ unix.MS_REC
	} else {
		top.Propagation = s.Propagation
	}
	if err := mountSetattr(t, 0, &top); err != nil {
		return fact("mount_setattr", s.Target, err)
	}
	return fact("mount_setattr", s.Target, mountSetattr(t, unix.AT_RECURSIVE, &tree))
}

func reconfigure(t int, data []string) error {
	ctx, err := fspick(t)
	if err != nil {
		return err
	}
	defer shut(ctx)
	if err := configure(ctx, "", data); err != nil {
		return explain(ctx, err)
	}
	return explain(ctx, fscommand(ctx, unix.FSCONFIG_CMD_RECONFIGURE))
}
