package runtime

import (
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// retry repeats a system call that a signal interrupted: x/sys/unix does not.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

func retryErr(call func() error) error {
	_, err := retry(func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// openat opens a file close-on-exec; the last component may not be a symbolic link.
func openat(dir int, name string, flags int, mode uint32) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NOCTTY, mode)
	})
}

// openPath opens a path that a user gave, following symbolic links.
func openPath(path string, flags int) (int, error) {
	return retry(func() (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0) })
}

// prctl is raw: see namespaces.Pin.
func prctl(option int, arg2, arg3 uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, uintptr(option), arg2, arg3, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func unlinkat(dir int, name string, flags int) error {
	return retryErr(func() error { return unix.Unlinkat(dir, name, flags) })
}

// dup returns another descriptor for the same file, -1 if there is none to be had.
func dup(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// replaceFile writes name in dir so that a reader, or a crash, sees the old content or
// the new: a temporary file, then rename.
func replaceFile(dir int, name string, b []byte, mode uint32, durable bool) error {
	return replaceWith(dir, name, mode, durable, func(fd int) error { return writeAll(fd, b) })
}

// replaceWith is replaceFile for who fills the new file himself.
func replaceWith(dir int, name string, mode uint32, durable bool, fill func(fd int) error) (err error) {
	tmp := "." + name + ".tmp" + strconv.Itoa(os.Getpid())
	fd, err := openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = unlinkat(dir, tmp, 0)
		}
	}()
	err = fill(fd)
	if err == nil && durable {
		err = retryErr(func() error { return unix.Fsync(fd) })
	}
	if e := unix.Close(fd); err == nil && e != unix.EINTR {
		err = e
	}
	if err != nil {
		return err
	}
	if err = retryErr(func() error { return unix.Renameat(dir, tmp, dir, name) }); err == nil && durable {
		err = retryErr(func() error { return unix.Fsync(dir) })
	}
	return err
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Write(fd, b) })
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// readAll reads the rest of a file of at most limit bytes.
func readAll(fd, limit int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > int64(limit) {
		return nil, unix.EFBIG
	}
	b := make([]byte, 0, max(st.Size+1, 512)) // files of procfs say that they are empty
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, 4096)
		}
		n, err := retry(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if err != nil || n == 0 {
			return b, err
		}
		if b = b[:len(b)+n]; len(b) > limit {
			return nil, unix.EFBIG
		}
	}
}

// readDir lists the directory dir through a descriptor of its own.
func readDir(dir int) ([]string, error) {
	fd, err := openat(dir, ".", dirFlags, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 8192)
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil || n == 0 {
			return names, os.NewSyscallError("getdents64", err)
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
