package rootfs

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

var (
	errOther = errors.New("something else is already there")
	errPtmx  = errors.New("is not the multiplexer of a devpts")
)

// isDevice tells whether fd is the device that the step speaks of.
func (s *Step) isDevice(fd int) bool {
	st, err := statx(fd, "", 0)
	return err == nil && s.matches(&st)
}

func (s *Step) matches(st *unix.Statx_t) bool {
	return uint32(st.Mode)&unix.S_IFMT == s.Mode&unix.S_IFMT &&
		(s.Mode&unix.S_IFMT == unix.S_IFIFO || unix.Mkdev(st.Rdev_major, st.Rdev_minor) == s.Dev)
}

// parent opens the directory that a device goes into.
func (r *Root) parent(p string) (dir int, name string, err error) {
	m := maker{root: r.fd, mode: 0o755}
	dir, err = m.mkdirAll(path.Dir(p))
	return dir, path.Base(p), fact("open", path.Dir(p), err)
}

// device makes a device node. In a user namespace, ours or one that we already
// live in, it is the host's node, bound over an empty file.
func (r *Root) device(s *Step, fd int) error {
	dir, name, err := r.parent(s.Target)
	if err != nil {
		shut(fd)
		return err
	}
	defer shut(dir)
	if s.has(FlagBind) {
		return fact("bind", s.Target, s.bindDevice(dir, name, fd))
	}
	err = s.makeNode(dir, name)
	if err == unix.EPERM && s.Mode&unix.S_IFMT != unix.S_IFIFO {
		b := *s
		b.Source = s.Target
		return fact("bind", s.Target, b.bindDevice(dir, name, -1))
	}
	return fact("mknod", s.Target, err)
}

// makeNode makes the node and gives it its owner, on the inode that was made.
func (s *Step) makeNode(dir int, name string) error {
	err := mknodat(dir, name, s.Mode, s.Dev)
	if err == nil && s.UID|s.GID == 0 || err != nil && err != unix.EEXIST {
		return err
	}
	fd, oerr := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW)
	if oerr != nil {
		return oerr
	}
	defer shut(fd)
	if !s.isDevice(fd) {
		return errOther
	}
	if err != nil { // it was there, with an owner
		return nil
	}
	return fchownat(fd, s.UID, s.GID)
}

// bindDevice puts the host's device over a file, which an earlier run may have
// left behind, or a node of the same device.
func (s *Step) bindDevice(dir int, name string, fd int) error {
	if fd < 0 {
		var err error
		if fd, err = s.Open(-1); err != nil {
			return err
		}
	}
	if s.has(FlagNode) {
		var err error
		if fd, err = s.attached(fd); err != nil {
			return err
		}
	}
	defer shut(fd)
	if err := mknodat(dir, name, unix.S_IFREG|0o644, 0); err != nil && err != unix.EEXIST {
		return err
	}
	over, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(over)
	st, err := statx(over, "", 0)
	if err != nil {
		return err
	}
	if empty := st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0; !empty && !s.matches(&st) {
		return errOther
	}
	return moveMount(fd, over)
}

// symlink makes one of the links in /dev. An image may bring its own; only
// /dev/ptmx has to lead to the container's devpts.
func (r *Root) symlink(s *Step) error {
	dir, name, err := r.parent(s.Target)
	if err != nil {
		return err
	}
	defer shut(dir)
	err = symlinkat(s.Source, dir, name)
	if err == unix.EEXIST {
		err = nil
		if s.Target == "/dev/ptmx" {
			err = checkPtmx(dir, name)
		}
	}
	return fact("symlink", s.Target, err)
}

// checkPtmx accepts what works as a multiplexer: the link, or the node 5:2,
// which looks for the devpts beside it.
func checkPtmx(dir int, name string) error {
	st, err := statx(dir, name, 0)
	if err != nil {
		return err
	}
	node := Step{Mode: unix.S_IFCHR, Dev: unix.Mkdev(5, 2)}
	if node.matches(&st) {
		return nil
	}
	text, err := readlinkat(dir, name)
	if err == nil && (text == "pts/ptmx" || text == "/dev/pts/ptmx") {
		return nil
	}
	return errOther
}
