package rootfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ptmxInode   = 2 // of every devpts
	ptsMajorMin = 136
	ptsMajorMax = 143
)

// console makes a terminal in the container's devpts and binds its slave side
// on Target. The slave comes from the master (TIOCGPTPEER), not from a name:
// names in /dev/pts are the container's to swap (CVE-2025-52565).
func (r *Root) console(s *Step) error {
	ptmx, err := r.openPtmx(s.Target == "")
	if err != nil {
		return err
	}
	defer shut(ptmx)
	master, err := r.Proc().reopen(ptmx, unix.O_RDWR|unix.O_NOCTTY)
	if err != nil {
		return fact("open", "/dev/pts/ptmx", err)
	}
	r.master = master
	if r.peer, err = openPeer(master); err != nil {
		return fact("open", "terminal", err)
	}
	if s.Target == "" {
		return nil
	}
	return r.bindConsole(s)
}

// openPtmx finds the multiplexer and makes sure that it is one, before it is
// opened for real.
func (r *Root) openPtmx(host bool) (fd int, err error) {
	const name = "/dev/pts/ptmx"
	if host {
		fd, err = openat(unix.AT_FDCWD, name, unix.O_PATH|unix.O_NOFOLLOW)
	} else {
		fd, err = lookup(r.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return -1, fact("open", name, err)
	}
	magic, err := fsMagic(fd)
	if err == nil {
		var st unix.Statx_t
		st, err = statx(fd, "", 0)
		node := Step{Mode: unix.S_IFCHR, Dev: unix.Mkdev(5, 2)}
		if magic != unix.DEVPTS_SUPER_MAGIC || st.Ino != ptmxInode || !node.matches(&st) {
			err = errPtmx
		}
	}
	if err != nil {
		shut(fd)
		return -1, fact("open", name, err)
	}
	return fd, nil
}

// openPeer unlocks the slave side and opens it.
func openPeer(master int) (int, error) {
	var locked int32
	if _, err := call(unix.SYS_IOCTL, uintptr(master), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&locked)), 0, 0); err != nil {
		return -1, err
	}
	peer, err := call(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0, 0)
	if err != nil {
		return -1, err
	}
	st, err := statx(peer, "", 0)
	if err == nil && (st.Rdev_major < ptsMajorMin || st.Rdev_major > ptsMajorMax) {
		err = unix.ENOTTY
	}
	if err != nil {
		shut(peer)
		return -1, err
	}
	return peer, nil
}

func (r *Root) bindConsole(s *Step) error {
	dir, name, err := r.parent(s.Target)
	if err != nil {
		return err
	}
	defer shut(dir)
	// Neither follows a link that the image put there (CVE-2026-88264).
	if err := mknodat(dir, name, unix.S_IFREG|0o600, 0); err != nil && err != unix.EEXIST {
		return fact("mknod", s.Target, err)
	}
	over, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return fact("open", s.Target, err)
	}
	defer shut(over)
	fd, err := clone(r.peer, 0)
	if err != nil {
		return fact("open_tree", "terminal", err)
	}
	defer shut(fd)
	return fact("move_mount", s.Target, moveMount(fd, over))
}

// stdio replaces descriptors 0-2 that are the host's null device by the
// container's, so that none of them leads to a mount of the host.
func (r *Root) stdio() error {
	null := Step{Mode: unix.S_IFCHR, Dev: unix.Mkdev(1, 3)}
	inside := -1
	defer func() { shut(inside) }()
	for fd := range 3 {
		if !null.isDevice(fd) {
			continue
		}
		if inside < 0 {
			var err error
			if inside, err = r.openNull(&null); inside < 0 || err != nil {
				return err
			}
		}
		if err := dup3(inside, fd, 0); err != nil {
			return fact("dup3", "/dev/null", err)
		}
	}
	return nil
}

// openNull opens the container's null device, -1 if it has none: what is called
// so may be anything, and is not opened before it is known.
func (r *Root) openNull(null *Step) (int, error) {
	fd, err := lookup(r.fd, "/dev/null", unix.O_PATH, 0)
	if err != nil {
		return -1, nil
	}
	defer shut(fd)
	if !null.isDevice(fd) {
		return -1, nil
	}
	opened, err := r.Proc().reopen(fd, unix.O_RDWR)
	return opened, fact("open", "/dev/null", err)
}
