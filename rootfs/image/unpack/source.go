package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"
	"time"

	"github.com/huskrun/husk/rootfs/image"
	"golang.org/x/sys/unix"
)

// source is where the parts of an image are found by their names.
type source interface {
	// open returns a part; the error is os.ErrNotExist if there is no such.
	open(name string) (*part, error)
}

// part is a file of an image.
type part struct {
	*io.SectionReader
	close func() error
}

// asked is a directory of the caller's, which opens the files in it.
type asked struct{ conn image.Conn }

// answerWait is how long the caller may take to open a file.
const answerWait = 30 * time.Second

func (a asked) open(name string) (*part, error) {
	if err := a.conn.Send(image.MsgPart, []byte(name)); err != nil {
		return nil, err
	}
	kind, payload, fds, err := a.conn.Recv(time.Now().Add(answerWait))
	switch {
	case err != nil:
		return nil, err
	case kind == image.MsgFailed:
		f, err := image.Decode[image.Failure](payload)
		if err == nil {
			err = &f
		}
		return nil, err
	case kind != image.MsgDone || len(fds) > 1:
		return nil, unix.EBADMSG
	case len(fds) == 0:
		return nil, os.ErrNotExist
	}
	f := os.NewFile(uintptr(fds[0]), name)
	return &part{io.NewSectionReader(f, 0, math.MaxInt64), f.Close}, nil
}

// archive is a tar file, which is read where it lies.
type archive struct {
	f     file
	parts map[string]place
}

// place is where a part is in the archive, or which other one it means: archives of
// older Dockers have links where layers are the same.
type place struct {
	offset, size int64
	link         string
}

const (
	maxParts = 1 << 16
	maxLinks = 40 // as the kernel
)

// file is what an archive is read from.
type file interface {
	io.ReadSeeker
	io.ReaderAt
}

func openArchive(f file) (source, error) {
	a := &archive{f, map[string]place{}}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) && len(a.parts) > 0 {
			return a, nil
		}
		if err != nil {
			return nil, hinted{
				fmt.Errorf("not a tar archive that can be read: %w", err),
				"an image is an OCI layout directory, an archive of one, or what docker save writes; compressed ones are to be decompressed",
			}
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			// Headers are read block by block: the file is at the data now.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.parts[name] = place{offset: at, size: h.Size}
		case tar.TypeSymlink:
			a.parts[name] = place{link: path.Join("/", path.Dir(name), h.Linkname)[1:]}
		case tar.TypeLink:
			a.parts[name] = place{link: path.Clean("/" + h.Linkname)[1:]}
		}
		if len(a.parts) > maxParts {
			return nil, fmt.Errorf("more than %d files: %w", maxParts, unix.E2BIG)
		}
	}
}

func (a *archive) open(name string) (*part, error) {
	for range maxLinks {
		p, ok := a.parts[name]
		switch {
		case !ok:
			return nil, os.ErrNotExist
		case p.link == "":
			return &part{io.NewSectionReader(a.f, p.offset, p.size), func() error { return nil }}, nil
		}
		name = p.link
	}
	return nil, fmt.Errorf("%s: %w", name, unix.ELOOP)
}

// read returns a whole part, which must not be longer than limit.
func read(src source, name string, limit int64) ([]byte, error) {
	p, err := src.open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer p.close()
	b, err := io.ReadAll(io.LimitReader(p, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = tooLarge(limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// absent says that there is no such part.
func absent(err error) bool { return errors.Is(err, os.ErrNotExist) }

// quoted lists names for an error.
func quoted(names []string) string {
	if len(names) == 0 {
		return "none has a name"
	}
	return strings.Join(names, ", ")
}
