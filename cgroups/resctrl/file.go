package resctrl

import (
	"golang.org/x/sys/unix"
)

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
	return fd, err
}

func mkdirat(dir int, name string) error {
	return retry(func() error { return unix.Mkdirat(dir, name, 0o755) })
}

// rmdir removes a group. One that is gone is no error.
func rmdir(dir int, name string) error {
	err := retry(func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
	if err == unix.ENOENT || err == unix.ENODEV {
		return nil
	}
	return err
}

// write writes text by one call, which the kernel takes as one command.
func write(dir int, name, text string) error {
	fd, err := openat(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error {
		_, err := unix.Write(fd, []byte(text))
		return err
	})
}

// read returns the whole content of a file.
func read(dir int, name string) (string, error) {
	fd, err := openat(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var all []byte
	for buf := make([]byte, 4096); ; {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Read(fd, buf)
			return err
		})
		if err != nil || n == 0 {
			return string(all), err
		}
		all = append(all, buf[:n]...)
	}
}

// names lists what is in a directory; nothing if it is not there.
func names(dir int, name string) (list []string) {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for buf := make([]byte, 4096); ; {
		var n int
		err := retry(func() (err error) {
			n, err = unix.ReadDirent(fd, buf)
			return err
		})
		if err != nil || n == 0 {
			return list
		}
		_, _, list = unix.ParseDirent(buf[:n], -1, list) // without . and ..
	}
}
