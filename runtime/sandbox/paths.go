package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What lies in the workspace, or in another directory of the host that jobs may write to,
// an earlier job may have put there, or one that runs at the same time. A link is where
// it can have us open what it may not open itself. So links on the way to what a flag names
// are followed up to such a directory, and not behind it.

// maxLinks is how many are followed, as by the kernel.
const maxLinks = 40

// real returns the path, without links, that a flag names. What is missing at its end
// stays as it is.
func (b *builder) real(flag, name string) (string, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return "", bad(flag, "", "%w", err)
	}
	done, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		next := filepath.Join(done, rest[0])
		rest = rest[1:]
		text, err := os.Readlink(next)
		switch {
		case os.IsNotExist(err):
			return filepath.Join(append([]string{next}, rest...)...), nil
		case err != nil: // not a link, or one that will fail when it is used
			done = next
			continue
		case b.shared(done) || strange(next):
			return "", bad(flag, "name where it leads to", "%s: %s is a symbolic link that a job or another user may have made", name, next)
		}
		if links++; links > maxLinks {
			return "", bad(flag, "", "%w", &fs.PathError{Op: "open", Path: name, Err: unix.ELOOP})
		}
		if filepath.IsAbs(text) {
			done = "/"
		}
		rest = append(strings.Split(text, "/"), rest...)
	}
	return done, nil
}

// strange says whether a link is somebody else's, in a directory like /tmp. The kernel does
// not follow those either (fs.protected_symlinks).
func strange(link string) bool {
	dir, err := os.Stat(filepath.Dir(link))
	if err != nil || dir.Mode()&os.ModeSticky == 0 || dir.Mode()&0o002 == 0 {
		return false
	}
	st, err := os.Lstat(link)
	if err != nil {
		return true
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	return owner != dir.Sys().(*syscall.Stat_t).Uid && int(owner) != os.Geteuid()
}

// shared says whether a path without links is in a directory that jobs may write to.
func (b *builder) shared(path string) bool {
	return slices.ContainsFunc(b.writable, func(dir string) bool { return below(path, dir) })
}

// maxShared bounds what is read that a job may have written.
const maxShared = 1 << 20

// open opens a file that a flag names, to be read.
func (b *builder) open(flag, name string) (file *os.File, shared bool, err error) {
	path, err := b.real(flag, name)
	if err != nil {
		return nil, false, err
	}
	if shared = b.shared(path); shared {
		file, err = openReal(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	} else {
		file, err = os.Open(name)
	}
	if err != nil {
		return nil, shared, bad(flag, "name a file that can be read", "%w", err)
	}
	if st, err := file.Stat(); shared && (err != nil || !st.Mode().IsRegular() || st.Size() > maxShared) {
		_ = file.Close()
		return nil, shared, bad(flag, "name another one", "%s, where jobs may write, is not a file of at most %d MiB", name, maxShared>>20)
	}
	return file, shared, nil
}

// openReal opens a path that real has returned, on which there is still no link.
func openReal(path string, flags int, mode uint32) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if err != unix.EINTR {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// openDir opens a directory, to be used as one.
func openDir(path string) (*os.File, error) { return openReal(path, unix.O_PATH|unix.O_DIRECTORY, 0) }

// makeDir makes a directory, and those above it, at a path that real has returned.
func makeDir(path string) error {
	dir, err := openDir(path)
	if err == nil {
		return dir.Close()
	}
	if !os.IsNotExist(err) {
		return err
	}
	above := filepath.Dir(path)
	if err := makeDir(above); err != nil {
		return err
	}
	if dir, err = openDir(above); err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mkdirat(int(dir.Fd()), filepath.Base(path), 0o700); err != nil && err != unix.EEXIST {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}
