// Package unpack reads images and writes their layers: the unpacker's side of the
// conversation of package image.
//
// Formats and digests are read with the libraries of the OCI, and layers written by that
// of containerd, told here what to leave out and how overlay spells a whiteout.
package unpack

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/huskrun/husk/rootfs/image"
	"golang.org/x/sys/unix"
)

// Serve answers until the other end hangs up.
func Serve(conn image.Conn) error {
	unix.Umask(0)
	debug.SetMemoryLimit(maxMemory / 2) // so that little of it is garbage
	s := &server{conn: conn}
	for {
		kind, payload, fds, err := conn.Recv(time.Time{})
		if err != nil {
			return nil
		}
		files := make([]*os.File, len(fds))
		for i, fd := range fds {
			files[i] = os.NewFile(uintptr(fd), "received")
		}
		answer, err := s.answer(kind, payload, files)
		if s.img == nil || kind != image.MsgInspect { // else it keeps the image
			closeAll(files)
		}
		if kind = image.MsgDone; err != nil {
			kind, answer = image.MsgFailed, image.Encode(failure(err))
		}
		if err := conn.Send(kind, answer); err != nil {
			return err
		}
	}
}

type server struct {
	conn image.Conn
	img  *manifest
}

func (s *server) answer(kind byte, payload []byte, files []*os.File) ([]byte, error) {
	switch {
	case kind == image.MsgInspect && len(files) <= 1 && s.img == nil:
		request, err := image.Decode[image.Request](payload)
		if err != nil {
			return nil, err
		}
		src, err := s.source(files)
		if err == nil {
			s.img, err = inspect(src, &request)
		}
		if err != nil {
			return nil, err
		}
		return image.Encode(s.img.found), nil
	case kind == image.MsgLayer && len(files) > 0 && s.img != nil:
		order, err := image.Decode[image.Layer](payload)
		if err != nil {
			return nil, err
		}
		return nil, s.layer(&order, files[0], files[1:])
	case kind == image.MsgEmpty && len(files) == 1:
		return nil, empty(files[0])
	}
	return nil, fmt.Errorf("message of kind %d with %d descriptors: %w", kind, len(files), unix.EBADMSG)
}

// source is where the parts of the image are: in the file, or wherever the caller knows.
func (s *server) source(files []*os.File) (source, error) {
	if len(files) == 0 {
		return asked{s.conn}, nil
	}
	return openArchive(files[0])
}

// layer writes one, or nothing.
func (s *server) layer(order *image.Layer, into *os.File, below []*os.File) error {
	if order.Index < 0 || order.Index >= len(s.img.layers) {
		return fmt.Errorf("layer %d of %d: %w", order.Index, len(s.img.layers), unix.EBADMSG)
	}
	x := &extraction{order: order, busy: func() error { return s.conn.Send(image.MsgBusy, nil) }}
	err := s.img.layers[order.Index].extract(x, into, below)
	if err != nil {
		err = errors.Join(fmt.Errorf("layer %s: %w", s.img.layers[order.Index].diff, err), empty(into))
	}
	return err
}

// enter makes a directory the root of this process. Where a symbolic link leads, or how
// many ".." there are, is bounded by the kernel from then on.
func enter(dir *os.File) error {
	if err := dir.Chdir(); err != nil {
		return err
	}
	return os.NewSyscallError("chroot", unix.Chroot("."))
}

// empty removes what is in a directory: the caller could not where it belongs to the
// users of a mapping.
func empty(dir *os.File) error {
	if err := enter(dir); err != nil {
		return err
	}
	list, err := os.ReadDir("/")
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll("/"+e.Name()))
	}
	return err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// hinted is an error with advice.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func failure(err error) *image.Failure {
	f := &image.Failure{Text: err.Error()}
	if h, ok := errors.AsType[hinted](err); ok {
		f.Hint = h.hint
	} else if _, ok := errors.AsType[unix.Errno](err); !ok {
		f.Hint = damaged // neither the kernel nor we ourselves refused anything
	}
	return f
}

const damaged = "the image is damaged or forged: get it again from where it came from"
