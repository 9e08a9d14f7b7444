package runtime

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// output is a file that is written when something has come to its end. The nil one is
// written nowhere.
type output struct {
	what, path, name string
	dir              int
	room             int // a file that keeps space until then, or -1
}

// newOutput makes sure, before anything is started, that the output has a place, and
// room there for size bytes even if the disk is full by the end.
func newOutput(what, path string, size int64) (*output, error) {
	dir := filepath.Dir(path)
	fd, err := openPath(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open directory of " + what, Path: dir, Err: err}
	}
	return outputIn(fd, what, path, size)
}

// outputIn is newOutput for who has opened the directory, which the output owns then.
func outputIn(dir int, what, path string, size int64) (*output, error) {
	o := &output{what: what, path: path, name: filepath.Base(path), dir: dir, room: -1}
	var st unix.Stat_t
	err := unix.Fstatat(o.dir, o.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errors.New("it is not a regular file, which could be replaced")
	case err == nil || err == unix.ENOENT:
		err = o.reserve(size)
	}
	if err != nil {
		o.close()
		return nil, o.fail(err)
	}
	return o, nil
}

// reserve makes a file without a name, which leaves nothing behind if we are killed. To
// ask for the rights alone would miss an immutable directory, or a full disk; it has to do
// where the file system knows no such files, as not every one can reserve space.
func (o *output) reserve(size int64) (err error) {
	o.room, err = openat(o.dir, ".", unix.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err == unix.EOPNOTSUPP {
		return unix.Faccessat(o.dir, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err == nil {
		err = retryErr(func() error { return unix.Fallocate(o.room, 0, 0, size) })
	}
	if err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

func (o *output) close() {
	if o != nil {
		o.release()
		_ = unix.Close(o.dir)
	}
}

// release gives up the space that was kept.
func (o *output) release() {
	if o.room >= 0 {
		_ = unix.Close(o.room)
	}
	o.room = -1
}

// write replaces the file.
func (o *output) write(b []byte) error {
	if o == nil {
		return nil
	}
	return o.fill(func(fd int) error { return writeAll(fd, b) })
}

// fill replaces the file by what is written by who knows how.
func (o *output) fill(with func(fd int) error) error {
	o.release()
	return o.fail(replaceWith(o.dir, o.name, 0o644, false, with))
}

func (o *output) fail(err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "write " + o.what, Path: o.path, Err: err}
}
