package sandbox

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/huskrun/husk/runtime"
	"golang.org/x/sys/unix"
)

// outputs makes sure that what the job changes can be kept where it shall be.
func (b *builder) outputs() error {
	if (b.o.Keep != "" || b.o.Export != "") && b.o.Unpacker == nil {
		return bad("keep", "build husk with make", "this program was built without what writes it")
	}
	return cmp.Or(b.findKeep(), b.findExport())
}

func (b *builder) findKeep() (err error) {
	if b.o.Keep == "" {
		return nil
	}
	if b.keeps, err = b.real("keep", b.o.Keep); err != nil {
		return err
	}
	if b.shared(b.keeps) {
		return bad("keep", "name a directory elsewhere", "%s is where jobs may write", b.keeps)
	}
	if err := emptyOrMissing(b.keeps); err != nil {
		return bad("keep", "name a directory that is empty, or that can be made", "%w", err)
	}
	return nil
}

func (b *builder) findExport() (err error) {
	if b.o.Export == "" {
		return nil
	}
	if b.exports, err = b.real("export", b.o.Export); err == nil && b.keeps != "" && below(b.exports, b.keeps) {
		err = bad("export", "name a file elsewhere", "%s is in the directory of --keep", b.exports)
	}
	return err
}

// emptyOrMissing says what is wrong with a directory that may have to be made.
func emptyOrMissing(path string) error {
	list, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		path = filepath.Dir(path)
	case err != nil:
		return err
	case len(list) > 0:
		return &fs.PathError{Op: "keep changes in", Path: path, Err: unix.ENOTEMPTY}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write to", Path: path, Err: err}
	}
	return nil
}

// looksAtChanges says whether anybody wants to know them.
func (j *Job) looksAtChanges() bool {
	return j.keeps != "" || j.exports != "" || j.reports()
}

// changes is what will be known of them.
func (j *Job) changes() (*runtime.Changes, error) {
	c := &runtime.Changes{
		Layers: j.overlays, Program: j.o.Unpacker, Limit: int64(j.o.Size),
		UIDMaps: j.Spec.Linux.UIDMappings, GIDMaps: j.Spec.Linux.GIDMappings,
	}
	if j.exports == "" {
		return c, nil
	}
	dir, err := openDir(filepath.Dir(j.exports))
	if err == nil {
		err = c.Export(dir, j.exports)
	}
	if err != nil {
		return nil, bad("export", "name a file that can be written", "%w", err)
	}
	return c, nil
}

// keep keeps what has been changed, or counts it.
func (j *Job) keep(c *runtime.Changes, res *Result) error {
	if j.keeps != "" || j.exports != "" {
		n, err := c.Write(j.keeps)
		if err == nil {
			res.Changed = &n
		}
		return err
	}
	if j.looksAtChanges() {
		if n, err := c.Count(); err == nil { // else it is not known
			res.Changed = &n
		}
	}
	return nil
}
