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
}

// newOutput makes sure, before anything is started, that the output has a place.
func newOutput(what, path string) (*output, error) {
	o := &output{what: what, path: path, name: filepath.Base(path)}
	dir := filepath.Dir(path)
	var err error
	if o.dir, err = openPath(dir, unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return nil, &fs.PathError{Op: "open directory of " + what, Path: dir, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstatat(o.dir, o.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errors.New("it is not a regular file, which could be replaced")
	case err == nil || err == unix.ENOENT:
		err = o.try()
	}
	if err != nil {
		o.close()
		return nil, o.fail(err)
	}
	return o, nil
}

// try makes a file without a name, which leaves nothing behind if we are killed. To ask
// for the rights alone would miss an immutable directory, or one without free inodes; it
// has to do where the file system knows no such files.
func (o *output) try() error {
	fd, err := openat(o.dir, ".", unix.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err == unix.EOPNOTSUPP {
		return unix.Faccessat(o.dir, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func (o *output) close() {
	if o != nil {
		_ = unix.Close(o.dir)
	}
}

// write replaces the file.
func (o *output) write(b []byte) error {
	if o == nil {
		return nil
	}
	return o.fail(replaceFile(o.dir, o.name, b, 0o644, false))
}

func (o *output) fail(err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "write " + o.what, Path: o.path, Err: err}
}
