package cgroups

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Raw descriptors rather than os.File: these files are opened, used once and
// closed, and os.File would register each with the poller.

// retry repeats call while a signal interrupts it; x/sys/unix does not.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func openat(dir int, name string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// openGroup opens the group at path below the mount. The kernel refuses
// symbolic links, "..", and anything mounted into the hierarchy.
func openGroup(mount int, path string) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for range maxRetries {
		fd, err = unix.Openat2(mount, "."+path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// maxRetries bounds the repetitions of openat2, which gives up with EAGAIN when
// something on the machine was renamed while it looked.
const maxRetries = 256

// closeFD closes once: after EINTR the descriptor is gone too (close(2)).
func closeFD(fd int) { _ = unix.Close(fd) }

// read returns the whole content of file name in group dir.
func read(dir int, name string) (string, error) {
	fd, err := openat(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer closeFD(fd)
	return readAll(fd)
}

// readAll reads fd from its beginning; kernfs renders the file anew for that.
func readAll(fd int) (string, error) {
	var all []byte
	buf := make([]byte, 4096)
	for {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Pread(fd, buf, int64(len(all)))
			return err
		})
		if err != nil {
			return "", err
		}
		if n == 0 {
			return string(all), nil
		}
		all = append(all, buf[:n]...)
	}
}

// write stores value in file name of group dir by one write(2): kernfs takes
// each write as a whole command.
func write(dir int, name, value string) error {
	fd, err := openat(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return retry(func() error {
		_, err := unix.Write(fd, []byte(value))
		return err
	})
}

// gone says that err means the group itself no longer exists: kernfs answers
// ENODEV through descriptors of a removed group.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// value finds key in a flat-keyed file ("populated 1\nfrozen 0\n").
func value(file, key string) (uint64, bool) {
	n, err := strconv.ParseUint(lineOf(file, key), 10, 64)
	return n, err == nil
}

// lineOf is what follows key in the line that begins with it.
func lineOf(file, key string) string {
	for line := range strings.Lines(file) {
		if first, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); first == key {
			return rest
		}
	}
	return ""
}
