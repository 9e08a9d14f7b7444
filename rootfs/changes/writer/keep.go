package writer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/huskrun/husk/rootfs/changes"
	"golang.org/x/sys/unix"
)

// keeper writes into a directory what overlay takes as an upper or lower one. It gives
// away no rights: set-id bits and capabilities of files stay behind.
type keeper struct {
	order *changes.Order
	dir   *os.File
	links names
}

func newKeeper(order *changes.Order, dir *os.File) *keeper {
	return &keeper{order: order, dir: dir, links: names{}}
}

func (k *keeper) end(bool) error { return k.dir.Close() }

// empty removes what is in a directory.
func empty(dir *os.File) error {
	if err := dir.Chdir(); err != nil {
		return err
	}
	root, err := os.OpenRoot(".")
	if err != nil {
		return err
	}
	defer root.Close()
	list, err := fs.ReadDir(root.FS(), ".")
	for _, e := range list {
		err = errors.Join(err, root.RemoveAll(e.Name()))
	}
	return err
}

func (k *keeper) write(e *changes.Entry) error {
	if e.Path == "." {
		return nil
	}
	dir, base := path.Split("./" + e.Path)
	parent, err := retry(func() (int, error) {
		return unix.Openat2(int(k.dir.Fd()), dir, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
	})
	if err == nil {
		err = k.place(e, parent, base)
		_ = unix.Close(parent)
	}
	if err != nil {
		return fmt.Errorf("/%s: %w", e.Path, err)
	}
	return nil
}

// place makes it, which must not be there, in a directory.
func (k *keeper) place(e *changes.Entry, dir int, name string) error {
	if e.Left {
		return k.finish(e, dir, name)
	}
	if e.Removed {
		return os.NewSyscallError("mknod", unix.Mknodat(dir, name, unix.S_IFCHR, 0))
	}
	if first, met := k.links.first(e); met {
		return os.NewSyscallError("link", unix.Linkat(int(k.dir.Fd()), first, dir, name, 0))
	}
	switch e.Kind() {
	case unix.S_IFDIR: // its owner and its mode may be in the way until all is in it
		return os.NewSyscallError("mkdir", unix.Mkdirat(dir, name, 0o700))
	case unix.S_IFREG:
		return k.regular(e, dir, name)
	case unix.S_IFLNK:
		if err := unix.Symlinkat(e.Link, dir, name); err != nil {
			return os.NewSyscallError("symlink", err)
		}
		return k.finish(e, dir, name)
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknodat(dir, name, e.Kind()|0o600, 0); err != nil {
			return os.NewSyscallError("mknod", err)
		}
		return k.finish(e, dir, name)
	}
	return nil // a device, which the container could not have made
}

func (k *keeper) regular(e *changes.Entry, dir int, name string) error {
	from, err := e.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return os.NewSyscallError("create", err)
	}
	to := os.NewFile(uintptr(fd), e.Path)
	err = copyHoles(to, from, e.Stat.Size)
	if err == nil {
		err = k.attributes(e, fd)
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return k.finish(e, dir, name)
}

// copyHoles copies the data, and leaves holes as holes.
func copyHoles(to, from *os.File, size int64) error {
	if err := to.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := from.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := to.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(to, io.NewSectionReader(from, data, end-data)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// attributes sets those of a file, as far as there are any where it is kept.
func (k *keeper) attributes(e *changes.Entry, fd int) error {
	all, err := e.Attributes()
	for name, value := range all {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil && err != unix.EOPNOTSUPP {
			return fmt.Errorf("setxattr %s: %w", name, err)
		}
	}
	return err
}

// finish gives it its owner, mode and time, and a directory its attributes.
func (k *keeper) finish(e *changes.Entry, dir int, name string) error {
	if e.Kind() == unix.S_IFDIR {
		if err := k.mark(e, dir, name); err != nil {
			return err
		}
	}
	if k.order.Chown {
		uid, gid := owner(k.order, e)
		if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if e.Kind() != unix.S_IFLNK { // which it is not, since we have just made it
		if err := unix.Fchmodat(dir, name, e.Mode()&0o1777, 0); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	at := []unix.Timespec{e.Stat.Atim, e.Stat.Mtim}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, name, at, unix.AT_SYMLINK_NOFOLLOW))
}

// mark sets the attributes of a directory, also that which hides what was in it before.
func (k *keeper) mark(e *changes.Entry, dir int, name string) error {
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := k.attributes(e, fd); err != nil || !e.Opaque {
		return err
	}
	err = unix.Fsetxattr(fd, "user.overlay.opaque", []byte{'y'}, 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return hinted{
			fmt.Errorf("setxattr: a directory that was replaced is marked so: %w", err),
			"keep changes on a filesystem with user.* attributes, which tmpfs has since Linux 6.6, or give --export instead",
		}
	}
	return os.NewSyscallError("setxattr", err)
}

func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}
