package rootfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Root is the container's filesystem as the child builds it. All of it runs on
// one thread of one process.
type Root struct {
	fd     int       // the container's root directory
	id     [2]uint64 // its mount and inode
	at     string    // host path where it is attached while it is built
	above  bool      // it is a mount on top of the root that was attached
	null   int       // detached null device, until the first mask takes it
	masked int       // a mask in place, from which to clone the next
	empty  int       // the same for directories
	seals  []seal
	proc   *Proc
	master int
	peer   int

	scratch int // the tmpfs that was put on "/" and is covered by now, -1 without one
	layers  int // overlays that write there
}

// seal is a tmpfs that turns read-only at the end. The descriptor is the mount
// itself, so that nothing mounted or renamed meanwhile can take its place.
type seal struct {
	field string
	fd    int
}

// New returns a Root in which nothing has been done yet.
func New() *Root {
	return &Root{fd: -1, null: -1, masked: -1, empty: -1, master: -1, peer: -1, scratch: -1}
}

// Master is the master side of the container's terminal after OpConsole, -1
// before.
func (r *Root) Master() int { return r.master }

// Peer is the verified slave side of the terminal, to become descriptors 0-2.
func (r *Root) Peer() int { return r.peer }

var errOp = errors.New("unknown operation")

// Apply carries out one step. fd is what the parent opened for it, or -1; it is
// Apply's to close.
func (r *Root) Apply(s *Step, fd int) error {
	// What is made in the container has the modes that the steps say.
	defer umask(umask(0))
	switch s.Op {
	case OpPropagation:
		return propagate(s)
	case OpRoot:
		return r.attachRoot(s, fd)
	case OpNull:
		return r.setNull(s, fd)
	case OpMount:
		return r.mount(s, fd)
	case OpDevice:
		return r.device(s, fd)
	case OpSymlink:
		return r.symlink(s)
	case OpConsole:
		return r.console(s)
	case OpPivot:
		return r.pivot(s)
	case OpMove:
		return r.move(s)
	case OpChroot:
		return r.chroot(s, fd)
	case OpStdio:
		return r.stdio()
	case OpReadonly:
		return r.readonly(s)
	case OpMask:
		return r.mask(s)
	case OpSeal:
		return r.seal(s)
	case OpRootReadonly:
		return fact("mount_setattr", "/", mountSetattr(r.fd, 0, &unix.MountAttr{Attr_set: attrRO}))
	case OpRootPropagation:
		attr := unix.MountAttr{Propagation: s.Propagation &^ unix.MS_REC}
		return fact("mount_setattr", "/", mountSetattr(r.fd, recursive(s.Propagation&unix.MS_REC != 0), &attr))
	}
	return fact("apply", s.Target, errOp)
}

func recursive(yes bool) uint {
	if yes {
		return unix.AT_RECURSIVE
	}
	return 0
}

// propagate changes the propagation of all mounts of the new mount namespace.
func propagate(s *Step) error {
	fd, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fact("open", "/", err)
	}
	defer shut(fd)
	attr := unix.MountAttr{Propagation: s.Propagation &^ unix.MS_REC}
	return fact("mount_setattr", "/", mountSetattr(fd, recursive(s.Propagation&unix.MS_REC != 0), &attr))
}

// attachRoot puts the detached tree where hooks expect it: on its own path. A
// user namespace may not get there (a 0700 home); "/" will do then, it is only
// the place from which pivot_root takes it.
func (r *Root) attachRoot(s *Step, fd int) error {
	if s.has(FlagEntered) {
		return r.entered()
	}
	if fd < 0 {
		var err error
		if fd, err = s.Open(-1); err != nil {
			return err
		}
	}
	r.at = s.Source
	target, err := openat(unix.AT_FDCWD, r.at, unix.O_PATH|unix.O_DIRECTORY)
	if err == unix.EACCES && s.has(FlagUserNS) {
		r.at = "/"
		target, err = openat(unix.AT_FDCWD, r.at, unix.O_PATH|unix.O_DIRECTORY)
	}
	if err != nil {
		shut(fd)
		return fact("open", r.at, err)
	}
	defer shut(target)
	if err := moveMount(fd, target); err != nil {
		shut(fd)
		return fact("move_mount", r.at, err)
	}
	return r.setRoot(fd)
}

// setRoot makes fd the directory in which all paths start.
func (r *Root) setRoot(fd int) error {
	st, err := statx(fd, "", 0)
	if err != nil {
		shut(fd)
		return fact("stat", r.at, err)
	}
	shut(r.fd)
	r.fd, r.id = fd, [2]uint64{st.Mnt_id, st.Ino}
	return nil
}

// isRoot tells whether an inode is the container's root directory, on which a
// mount would not be seen.
func (r *Root) isRoot(st *unix.Statx_t) bool { return r.id == [2]uint64{st.Mnt_id, st.Ino} }

// entered takes "/" for what it is already.
func (r *Root) entered() error {
	r.at = "/"
	fd, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fact("open", "/", err)
	}
	return r.setRoot(fd)
}

func (r *Root) seal(s *Step) error {
	for _, k := range r.seals {
		if k.field == s.Field {
			defer shut(k.fd)
			return fact("mount_setattr", s.Target, mountSetattr(k.fd, 0, &unix.MountAttr{Attr_set: attrRO}))
		}
	}
	return fact("seal", s.Target, unix.EBADF)
}

// readonly makes a path read-only by a bind mount of itself, which keeps the
// other flags that it has. What is not there needs no protection.
func (r *Root) readonly(s *Step) error {
	target, err := lookup(r.fd, s.Target, unix.O_PATH, 0)
	if absent(err) {
		return nil
	}
	if err != nil {
		return fact("open", s.Target, err)
	}
	defer shut(target)
	st, err := statx(target, "", 0)
	if err != nil {
		return fact("stat", s.Target, err)
	}
	if r.isRoot(&st) {
		return fact("mount_setattr", s.Target, mountSetattr(r.fd, 0, &unix.MountAttr{Attr_set: attrRO}))
	}
	fd, err := clone(target, unix.AT_RECURSIVE)
	if err != nil {
		return fact("open_tree", s.Target, err)
	}
	defer shut(fd)
	if err := mountSetattr(fd, 0, &unix.MountAttr{Attr_set: attrRO}); err != nil {
		return fact("mount_setattr", s.Target, err)
	}
	return fact("move_mount", s.Target, moveMount(fd, target))
}

func absent(err error) bool { return err == unix.ENOENT || err == unix.ENOTDIR }
