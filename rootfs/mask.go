package rootfs

import (
	"golang.org/x/sys/unix"
)

// setNull keeps a null device to mask files with. It lies in a tmpfs of its
// own: the container's /dev/null could be swapped for a link to anything
// (CVE-2025-31133), and root inside could chmod the host's.
func (r *Root) setNull(s *Step, fd int) (err error) {
	switch {
	case fd >= 0:
	case s.has(FlagBind):
		fd, err = s.Open(-1)
	default:
		fd, err = makeNull(s.Data)
		if err == unix.EPERM { // we live in a user namespace ourselves
			host := Step{Op: OpNull, Source: "/dev/null", Mode: unix.S_IFCHR, Dev: unix.Mkdev(1, 3)}
			fd, err = host.Open(-1)
		}
	}
	r.null = fd
	return fact("mask", "/dev/null", err)
}

// makeNull makes the tmpfs and clones the device out of it.
func makeNull(data []string) (int, error) {
	data = append(data[:len(data):len(data)], "size=4k", "nr_inodes=4", "mode=755")
	fd, err := newMount("tmpfs", "husk-null", data, attrNosuid|attrNoexec)
	if err != nil {
		return -1, err
	}
	defer shut(fd)
	if err := mknodat(fd, "null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3)); err != nil {
		return -1, err
	}
	null, err := openTree(fd, "null", unix.OPEN_TREE_CLONE)
	if err == unix.EINVAL {
		return cloneAttached(fd, "null")
	}
	return null, err
}

// cloneAttached is for Linux before 6.15, where only an attached mount can be
// cloned: for that moment it sits on the host's "/" of this mount namespace,
// where no look-up from the root comes by.
func cloneAttached(fd int, name string) (int, error) {
	slash, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer shut(slash)
	if err := moveMount(fd, slash); err != nil {
		return -1, err
	}
	node, err := openTree(fd, name, unix.OPEN_TREE_CLONE)
	if err != nil {
		return -1, err
	}
	if err := detach(fd); err != nil {
		shut(node)
		return -1, err
	}
	return node, nil
}

// detach unmounts the mount that fd is the root of. umount2(2) knows only
// names, of which "." is the one that cannot be mistaken.
func detach(fd int) error {
	cwd, err := openat(unix.AT_FDCWD, ".", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer shut(cwd)
	if err := fchdir(fd); err != nil {
		return err
	}
	if err := umount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return fchdir(cwd)
}

// mask hides a file behind the null device and a directory behind an empty
// read-only tmpfs. What is not there needs no mask.
func (r *Root) mask(s *Step) error {
	target, err := lookup(r.fd, s.Target, unix.O_PATH, 0)
	if absent(err) {
		return nil
	}
	if err != nil {
		return fact("open", s.Target, err)
	}
	defer shut(target)
	st, err := statx(target, "", 0)
	if err == nil && r.isRoot(&st) {
		err = unix.EBUSY
	}
	if err != nil {
		return fact("mask", s.Target, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = r.cover(target, &r.empty, func() (int, error) { return newEmpty(s.Data) })
	} else {
		err = r.cover(target, &r.masked, r.takeNull)
	}
	return fact("mask", s.Target, err)
}

// cover attaches a mask: the first time a new one, then clones of that.
func (r *Root) cover(target int, first *int, make func() (int, error)) error {
	if *first < 0 {
		fd, err := make()
		if err != nil {
			return err
		}
		if err := moveMount(fd, target); err != nil {
			shut(fd)
			return err
		}
		*first = fd
		return nil
	}
	fd, err := clone(*first, 0)
	if err != nil {
		return err
	}
	defer shut(fd)
	return moveMount(fd, target)
}

func (r *Root) takeNull() (int, error) {
	fd := r.null
	r.null = -1
	return fd, mountSetattr(fd, 0, &unix.MountAttr{Attr_set: attrRO | attrNosuid | attrNoexec})
}

// newEmpty makes the tmpfs for directories, as small as the kernel lets it be:
// some count the root directory as an inode.
func newEmpty(data []string) (int, error) {
	const attrs = attrRO | attrNosuid | attrNodev | attrNoexec
	data = append(data[:len(data):len(data)], "nr_blocks=1", "mode=755", "nr_inodes=1")
	fd, err := newMount("tmpfs", "husk-mask", data, attrs)
	if err != nil {
		data[len(data)-1] = "nr_inodes=2"
		return newMount("tmpfs", "husk-mask", data, attrs)
	}
	return fd, nil
}
