package rootfs

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the recursion of a copy, and with it the open descriptors.
const maxDepth = 128

// copyUp copies the directory from, an O_PATH descriptor inside the container,
// into the fresh tmpfs to. The container's files may change meanwhile: every
// inode is opened by a single component without following links, and is what
// its descriptor says it is.
func copyUp(from, to int) error {
	dir, err := openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer shut(dir)
	if to, err = openat(to, ".", unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return err
	}
	defer shut(to)
	return copyDir(dir, to, maxDepth)
}

func copyDir(from, to, depth int) error {
	if depth == 0 {
		return unix.ELOOP
	}
	var buf [8192]byte
	var names []string
	for {
		n, err := call(unix.SYS_GETDENTS64, uintptr(from), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if err := copyEntry(from, to, name, depth); err != nil && err != unix.ENOENT { // gone by now
				return fact("copy", name, err)
			}
		}
	}
	return copyOwner(from, to)
}

func copyEntry(from, to int, name string, depth int) error {
	fd, err := openat(from, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(fd)
	st, err := statx(fd, "", 0)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return copySubdir(from, to, name, depth)
	case unix.S_IFREG:
		return copyFile(from, to, name)
	case unix.S_IFLNK:
		text, err := readlinkat(fd, "")
		if err != nil {
			return err
		}
		if err := symlinkat(text, to, name); err != nil {
			return err
		}
	default: // a device, FIFO or socket is made anew, never opened
		dev := unix.Mkdev(st.Rdev_major, st.Rdev_minor)
		if err := mknodat(to, name, uint32(st.Mode), dev); err != nil {
			return err
		}
	}
	made, err := openat(to, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(made)
	return fchownat(made, st.Uid, st.Gid)
}

func copySubdir(from, to int, name string, depth int) error {
	src, err := openat(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(src)
	if err := mkdirat(to, name, 0o700); err != nil {
		return err
	}
	dst, err := openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(dst)
	return copyDir(src, dst, depth-1)
}

// copyFile copies a regular file. O_NONBLOCK: it may be a FIFO since we looked.
func copyFile(from, to int, name string) error {
	src, err := openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return err
	}
	defer shut(src)
	if st, err := statx(src, "", 0); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	dst, err := openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(dst)
	for {
		n, err := call(unix.SYS_SENDFILE, uintptr(dst), uintptr(src), 0, 1<<20, 0)
		if err != nil {
			return err
		}
		if n == 0 {
			return copyOwner(src, dst)
		}
	}
}

// copyOwner copies owner, mode, extended attributes and times between open files.
// The owner comes first: its change clears set-id bits and file capabilities.
func copyOwner(from, to int) error {
	st, err := statx(from, "", 0)
	if err != nil {
		return err
	}
	if err := fchownat(to, st.Uid, st.Gid); err != nil {
		return err
	}
	if err := fchmod(to, uint32(st.Mode&0o7777)); err != nil {
		return err
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	times := [2]unix.Timespec{
		{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)},
		{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)},
	}
	_, err = call(unix.SYS_UTIMENSAT, uintptr(to), 0, uintptr(unsafe.Pointer(&times)), 0, 0)
	return err
}

// copyXattrs copies file capabilities, access control lists and what users keep there.
// The rest belongs to the filesystem below, or to the mount (security.selinux).
func copyXattrs(from, to int) error {
	list, err := flistxattr(from)
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		value, err := fgetxattr(from, name)
		if err == unix.ENODATA { // gone by now
			continue
		}
		if err == nil {
			err = fsetxattr(to, name, value)
		}
		if err != nil && err != unix.EOPNOTSUPP { // before Linux 6.6 tmpfs has no user.*
			return fact("copy", name, err)
		}
	}
	return nil
}
