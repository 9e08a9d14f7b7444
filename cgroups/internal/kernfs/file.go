// Package kernfs reads and writes the files of cgroup2 and resctrl.
//
// It works on raw descriptors rather than os.File: these files are opened, used once and
// closed, and os.File would register each with the poller.
package kernfs

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Retry repeats call while a signal interrupts it; x/sys/unix does not.
func Retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// Open opens file or group name of group dir, close-on-exec and never a symbolic link.
func Open(dir int, name string, flags int) (fd int, err error) {
	err = Retry(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// Close closes once: after EINTR the descriptor is gone too (close(2)).
func Close(fd int) { _ = unix.Close(fd) }

// Read returns the whole content of file name in group dir.
func Read(dir int, name string) (string, error) {
	fd, err := Open(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer Close(fd)
	return ReadAll(fd)
}

// ReadAll reads fd from its beginning; kernfs renders the file anew for that.
func ReadAll(fd int) (string, error) {
	var all []byte
	buf := make([]byte, 4096)
	for {
		var n int
		err := Retry(func() (err error) {
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

// Write stores value in file name of group dir by one write(2): kernfs takes
// each write as a whole command.
func Write(dir int, name, value string) error {
	fd, err := Open(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer Close(fd)
	return Retry(func() error {
		_, err := unix.Write(fd, []byte(value))
		return err
	})
}

// Gone says that err means the group itself no longer exists: kernfs answers
// ENODEV through descriptors of a removed group.
func Gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// Mkdir makes group name in group dir.
func Mkdir(dir int, name string) error {
	return Retry(func() error { return unix.Mkdirat(dir, name, 0o755) })
}

// Rmdir removes group name of group dir.
func Rmdir(dir int, name string) error {
	return Retry(func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

// Groups lists the groups directly in dir; none if it is gone.
func Groups(dir int) []string {
	return List(dir, func(kind byte, name []byte) bool {
		return kind == unix.DT_DIR && string(name) != "." && string(name) != ".."
	})
}

// List names the entries of dir that pick takes; none if dir is gone.
func List(dir int, pick func(kind byte, name []byte) bool) []string {
	var names []string
	buf := make([]byte, 8192)
	for {
		var n int
		err := Retry(func() (err error) {
			n, err = unix.Getdents(dir, buf)
			return err
		})
		if err != nil || n <= 0 {
			return names
		}
		names = appendEntries(names, buf[:n], pick)
	}
}

// appendEntries picks from a block of struct linux_dirent64 (getdents(2)): ino 8,
// off 8, reclen 2, type 1, name. The others, some fifty interface files in each
// group, are skipped without an allocation.
func appendEntries(names []string, block []byte, pick func(kind byte, name []byte) bool) []string {
	for len(block) >= 19 {
		size := int(binary.NativeEndian.Uint16(block[16:]))
		if size < 19 || size > len(block) {
			break
		}
		name, _, _ := bytes.Cut(block[19:size], []byte{0})
		if pick(block[18], name) {
			names = append(names, string(name))
		}
		block = block[size:]
	}
	return names
}
