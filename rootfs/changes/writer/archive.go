package writer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/huskrun/husk/rootfs/changes"
	"golang.org/x/sys/unix"
)

// How a layer says that something is gone: OCI image-spec, layer.md, "Whiteouts".
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	xattr    = "SCHILY.xattr."
)

// archive writes a layer.
type archive struct {
	order *changes.Order
	file  *os.File
	tar   *tar.Writer
	links names
	size  int64
}

func newArchive(order *changes.Order, file *os.File) *archive {
	return &archive{order: order, file: file, tar: tar.NewWriter(file), links: names{}}
}

func (a *archive) end(failed bool) error {
	defer a.file.Close()
	if failed {
		return nil
	}
	return errors.Join(a.tar.Close(), os.NewSyscallError("fsync", a.file.Sync()))
}

func (a *archive) write(e *changes.Entry) error {
	dir, base := path.Split(e.Path)
	switch {
	case e.Left || e.Path == ".":
		return nil
	case strings.HasPrefix(base, whiteout):
		return hinted{
			fmt.Errorf("/%s: a layer cannot have it: what begins with %s says there that something else is gone", e.Path, whiteout),
			"have the job remove it, or give --keep instead",
		}
	case e.Removed:
		return a.header(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteout + base, ModTime: modified(e)})
	case e.Kind() == unix.S_IFSOCK: // of a process that is dead
		return nil
	}
	h := &tar.Header{Name: e.Path, Mode: int64(e.Mode()), ModTime: modified(e)}
	h.Uid, h.Gid = owner(a.order, e)
	if first, met := a.links.first(e); met {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return a.header(h)
	}
	switch e.Kind() {
	case unix.S_IFDIR:
		return a.directory(e, h)
	case unix.S_IFREG:
		return a.regular(e, h)
	case unix.S_IFLNK:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default: // a device, which the container could not have made
		return nil
	}
	return a.header(h)
}

func (a *archive) header(h *tar.Header) error {
	h.Format = tar.FormatPAX
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("/%s: %w", h.Name, err)
	}
	return nil
}

func (a *archive) directory(e *changes.Entry, h *tar.Header) error {
	h.Typeflag = tar.TypeDir
	h.Name += "/"
	err := a.attributes(e, h)
	if err == nil {
		err = a.header(h)
	}
	if err == nil && e.Opaque {
		err = a.header(&tar.Header{Typeflag: tar.TypeReg, Name: h.Name + opaque, ModTime: h.ModTime})
	}
	return err
}

func (a *archive) regular(e *changes.Entry, h *tar.Header) error {
	h.Typeflag, h.Size = tar.TypeReg, e.Stat.Size
	// Holes become zeros: a file of nothing else can claim to be as large as it likes.
	if a.size += h.Size; h.Size > a.order.Limit || a.size > a.order.Limit {
		return hinted{
			fmt.Errorf("/%s: with its %d bytes the layer would have more than the %d that could be written: files have holes: %w", e.Path, h.Size, a.order.Limit, unix.EFBIG),
			"raise --size, have the job write no files with holes, or give --keep instead",
		}
	}
	if err := a.attributes(e, h); err != nil {
		return err
	}
	if err := a.header(h); err != nil {
		return err
	}
	f, err := e.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = io.CopyN(a.tar, f, h.Size); err != nil {
		return fmt.Errorf("/%s: %w", e.Path, err)
	}
	return nil
}

func (a *archive) attributes(e *changes.Entry, h *tar.Header) error {
	all, err := e.Attributes()
	for name, value := range all {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattr+name] = string(value)
	}
	return err
}

func modified(e *changes.Entry) time.Time { return time.Unix(e.Stat.Mtim.Unix()) }
