package rootfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wrappers below are raw: the child has one thread, counted against its own
// pids limit, and an ordinary Syscall lets the Go scheduler start another one
// when it takes long. They also restart on EINTR, which x/sys/unix does not.

// call runs a system call until it is not interrupted. The directive keeps what
// the pointers behind the arguments refer to alive and in place.
//
//go:uintptrescapes
func call(nr, a, b, c, d, e uintptr) (int, error) {
	for {
		r, _, errno := unix.RawSyscall6(nr, a, b, c, d, e, 0)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
			continue
		}
		return -1, errno
	}
}

// cstr makes a C string. It ends at the first NUL of s; validation has refused
// configurations with NUL bytes long before.
func cstr(s string) unsafe.Pointer {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return unsafe.Pointer(&b[0])
}

func openTree(dir int, path string, flags uint) (int, error) {
	return call(unix.SYS_OPEN_TREE, uintptr(dir), uintptr(cstr(path)), uintptr(flags|unix.OPEN_TREE_CLOEXEC), 0, 0)
}

// clone makes a detached, private-to-us copy of the mount that fd is on, with
// fd's inode as its root.
func clone(fd int, flags uint) (int, error) {
	return openTree(fd, "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH|flags)
}

func moveMount(from, to int) error {
	_, err := call(unix.SYS_MOVE_MOUNT, uintptr(from), uintptr(cstr("")), uintptr(to), uintptr(cstr("")),
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return err
}

func mountSetattr(fd int, flags uint, attr *unix.MountAttr) error {
	if *attr == (unix.MountAttr{}) {
		return nil
	}
	_, err := call(unix.SYS_MOUNT_SETATTR, uintptr(fd), uintptr(cstr("")), uintptr(flags|unix.AT_EMPTY_PATH),
		uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	return err
}

func fsopen(name string) (int, error) {
	return call(unix.SYS_FSOPEN, uintptr(cstr(name)), unix.FSOPEN_CLOEXEC, 0, 0, 0)
}

func fspick(fd int) (int, error) {
	return call(unix.SYS_FSPICK, uintptr(fd), uintptr(cstr("")), unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH, 0, 0)
}

func fsset(fd int, key, value string) error {
	_, err := call(unix.SYS_FSCONFIG, uintptr(fd), unix.FSCONFIG_SET_STRING, uintptr(cstr(key)), uintptr(cstr(value)), 0)
	return err
}

func fsflag(fd int, key string) error {
	_, err := call(unix.SYS_FSCONFIG, uintptr(fd), unix.FSCONFIG_SET_FLAG, uintptr(cstr(key)), 0, 0)
	return err
}

func fscommand(fd int, cmd uintptr) error {
	_, err := call(unix.SYS_FSCONFIG, uintptr(fd), cmd, 0, 0, 0)
	return err
}

func fsmount(fd int, attrs uint64) (int, error) {
	return call(unix.SYS_FSMOUNT, uintptr(fd), unix.FSMOUNT_CLOEXEC, uintptr(attrs), 0, 0)
}

func openat2(dir int, path string, how *unix.OpenHow) (int, error) {
	how.Flags |= unix.O_CLOEXEC
	return call(unix.SYS_OPENAT2, uintptr(dir), uintptr(cstr(path)), uintptr(unsafe.Pointer(how)), unix.SizeofOpenHow, 0)
}

func openat(dir int, path string, flags int) (int, error) {
	return call(unix.SYS_OPENAT, uintptr(dir), uintptr(cstr(path)), uintptr(flags|unix.O_CLOEXEC), 0, 0)
}

func statx(fd int, path string, flags int) (st unix.Statx_t, err error) {
	_, err = call(unix.SYS_STATX, uintptr(fd), uintptr(cstr(path)), uintptr(flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH),
		unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, uintptr(unsafe.Pointer(&st)))
	return st, err
}

// fsMagic is the type of the filesystem that fd is on.
func fsMagic(fd int) (int64, error) {
	var st unix.Statfs_t
	_, err := call(unix.SYS_FSTATFS, uintptr(fd), uintptr(unsafe.Pointer(&st)), 0, 0, 0)
	return int64(st.Type), err
}

func mkdirat(dir int, name string, mode uint32) error {
	_, err := call(unix.SYS_MKDIRAT, uintptr(dir), uintptr(cstr(name)), uintptr(mode), 0, 0)
	return err
}

func mknodat(dir int, name string, mode uint32, dev uint64) error {
	_, err := call(unix.SYS_MKNODAT, uintptr(dir), uintptr(cstr(name)), uintptr(mode), uintptr(dev), 0)
	return err
}

func symlinkat(text string, dir int, name string) error {
	_, err := call(unix.SYS_SYMLINKAT, uintptr(cstr(text)), uintptr(dir), uintptr(cstr(name)), 0, 0)
	return err
}

// readlinkat returns the text of a symbolic link; "" as name reads fd's own.
func readlinkat(fd int, name string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := call(unix.SYS_READLINKAT, uintptr(fd), uintptr(cstr(name)), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func fchownat(fd int, uid, gid uint32) error {
	_, err := call(unix.SYS_FCHOWNAT, uintptr(fd), uintptr(cstr("")), uintptr(uid), uintptr(gid), unix.AT_EMPTY_PATH)
	return err
}

// fchmodat is for what is known not to be a link.
func fchmodat(dir int, name string, mode uint32) error {
	_, err := call(unix.SYS_FCHMODAT, uintptr(dir), uintptr(cstr(name)), uintptr(mode), 0, 0)
	return err
}

func fchmod(fd int, mode uint32) error {
	_, err := call(unix.SYS_FCHMOD, uintptr(fd), uintptr(mode), 0, 0, 0)
	return err
}

// flistxattr returns the names of a file's extended attributes, each with a NUL.
func flistxattr(fd int) ([]byte, error) {
	n, err := call(unix.SYS_FLISTXATTR, uintptr(fd), 0, 0, 0, 0)
	if n <= 0 {
		return nil, err
	}
	b := make([]byte, n)
	n, err = call(unix.SYS_FLISTXATTR, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(n), 0, 0)
	return b[:max(n, 0)], err
}

func fgetxattr(fd int, name string) ([]byte, error) {
	n, err := call(unix.SYS_FGETXATTR, uintptr(fd), uintptr(cstr(name)), 0, 0, 0)
	if n <= 0 {
		return nil, err
	}
	b := make([]byte, n)
	n, err = call(unix.SYS_FGETXATTR, uintptr(fd), uintptr(cstr(name)), uintptr(unsafe.Pointer(&b[0])), uintptr(n), 0)
	return b[:max(n, 0)], err
}

func fsetxattr(fd int, name string, value []byte) error {
	_, err := call(unix.SYS_FSETXATTR, uintptr(fd), uintptr(cstr(name)), uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), 0)
	return err
}

func fchdir(fd int) error {
	_, err := call(unix.SYS_FCHDIR, uintptr(fd), 0, 0, 0, 0)
	return err
}

func chdir(path string) error {
	_, err := call(unix.SYS_CHDIR, uintptr(cstr(path)), 0, 0, 0, 0)
	return err
}

func chroot(path string) error {
	_, err := call(unix.SYS_CHROOT, uintptr(cstr(path)), 0, 0, 0, 0)
	return err
}

func pivotRoot(root, old string) error {
	_, err := call(unix.SYS_PIVOT_ROOT, uintptr(cstr(root)), uintptr(cstr(old)), 0, 0, 0)
	return err
}

func umount(path string, flags int) error {
	_, err := call(unix.SYS_UMOUNT2, uintptr(cstr(path)), uintptr(flags), 0, 0, 0)
	return err
}

func umask(mask int) int {
	old, _, _ := unix.RawSyscall(unix.SYS_UMASK, uintptr(mask), 0, 0)
	return int(old)
}

func read(fd int, b []byte) (int, error) {
	return call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0)
}

func write(fd int, b []byte) (int, error) {
	return call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0)
}

func dup3(from, to, flags int) error {
	_, err := call(unix.SYS_DUP3, uintptr(from), uintptr(to), uintptr(flags), 0, 0)
	return err
}

// shut closes a descriptor. Never retried: on Linux it is closed after EINTR.
func shut(fd int) {
	if fd >= 0 {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	}
}

func unshare(flags uintptr) error {
	_, err := call(unix.SYS_UNSHARE, flags, 0, 0, 0, 0)
	return err
}

func setns(fd int, flag uintptr) error {
	_, err := call(unix.SYS_SETNS, uintptr(fd), flag, 0, 0, 0)
	return err
}
