package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Image is what a container needs of one.
type Image struct {
	Digest string   // of the manifest, or of the configuration where there is none
	Layers []string // lower directories of an overlay, top first
	Config Config
}

// Store has the layers of images.
type Store struct {
	Dir string // made if it is missing

	// UIDMaps and GIDMaps are those of the containers: to them belong the files. With
	// none they belong to who the image says.
	UIDMaps, GIDMaps []specs.LinuxIDMapping

	// Start starts the unpacker, in a user namespace with these mappings. It is killed when
	// the context ends.
	Start func(context.Context) (Peer, error)

	// Limit is how many bytes one layer may unpack to, 0: DefaultLimit.
	Limit int64
}

// DefaultLimit is above all images that are met in practice, and below most disks.
const DefaultLimit = 64 << 30

// Peer is a running unpacker. Close ends it.
type Peer interface {
	Conn
	Close() error
}

// Error is a failure about an image, with advice if there is any.
type Error struct {
	Path string
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Open finds the image in a file, named by PATH or PATH:NAME, and unpacks those of its
// layers that the store does not have. It fails before anybody could use any of them, if
// the image is not what it says.
func (s *Store) Open(ctx context.Context, name string) (*Image, error) {
	file, err := find(name)
	if err != nil {
		return nil, fail(name, err)
	}
	defer file.Close()
	d, err := s.open()
	if err != nil {
		return nil, fail(s.Dir, err)
	}
	if img := d.known(file.key); img != nil {
		return img, nil
	}
	img, err := s.unpack(ctx, d, file)
	return img, fail(file.Name(), err)
}

func fail(path string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Path: path, Err: err}
	if f, ok := errors.AsType[*Failure](err); ok {
		e.Hint = f.Hint
	}
	return e
}

// file is an open image.
type file struct {
	*os.File
	ref       string
	directory bool
	key       string // that no other file has, nor the same one when it was written to: "" while it could be
}

// find opens the image that a name means. A colon may be a part of the path.
func find(name string) (*file, error) {
	path, ref := name, ""
	if _, err := os.Stat(path); err != nil {
		if i := strings.LastIndexByte(name, ':'); i > 0 && !strings.HasSuffix(name[:i], "/") {
			path, ref = splitRef(name)
		}
	}
	// O_NONBLOCK: a FIFO must not block.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	f := &file{File: os.NewFile(uintptr(fd), path), ref: ref}
	if err := f.identify(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// splitRef takes the name of an image, which may have colons, off the longest path
// that exists.
func splitRef(name string) (path, ref string) {
	for i := strings.LastIndexByte(name, ':'); i > 0; i = strings.LastIndexByte(name[:i], ':') {
		if _, err := os.Stat(name[:i]); err == nil {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

var errKind = &Failure{
	"is neither a directory nor a regular file",
	"an image is an OCI layout directory, an archive of one, or what docker save writes",
}

// identify finds out what kind of file it is, and by what to know it again.
func (f *file) identify() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		// The index names everything else by its digest.
		f.directory = true
		index, err := f.part("index.json")
		if errors.Is(err, unix.ENOENT) {
			return nil // the layout of docker save, unpacked
		}
		if err != nil {
			return err
		}
		defer unix.Close(index)
		if err := unix.Fstat(index, &st); err != nil {
			return fmt.Errorf("stat: %w", err)
		}
	default:
		return errKind
	}
	f.key = key(&st, f.ref)
	return nil
}

// part opens a file in a directory. The image must not lead out of it.
func (f *file) part(name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := retry(func() (int, error) { return unix.Openat2(int(f.Fd()), name, &how) })
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("is not a regular file")
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	return fd, nil
}

// retry repeats a system call that a signal, or a rename elsewhere, interrupted.
func retry[T any](call func() (T, error)) (v T, err error) {
	for range 256 {
		if v, err = call(); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return v, err
}
