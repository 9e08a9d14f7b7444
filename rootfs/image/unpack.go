package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// unpacking is one conversation with the unpacker. The store is locked.
type unpacking struct {
	store *Store
	shelf *shelf
	file  *file
	peer  Peer
}

// unpack has the unpacker look at the image and write the layers that are missing.
func (s *Store) unpack(ctx context.Context, d *shelf, f *file) (img *Image, err error) {
	lock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if img := d.known(f.key); img != nil {
		return img, nil // somebody else was faster
	}
	u := &unpacking{store: s, shelf: d, file: f}
	if u.peer, err = s.Start(ctx); err != nil {
		return nil, err
	}
	defer u.peer.Close()
	found, err := u.run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // it was killed for that
	}
	if err != nil {
		return nil, err
	}
	return d.image(found), d.remember(f.key, found)
}

func (u *unpacking) run() (*Found, error) {
	if err := u.tidy(); err != nil {
		return nil, err
	}
	found, err := u.inspect()
	if err != nil {
		return nil, err
	}
	return found, u.layers(found.Chains)
}

// layers has those written that are missing. They get their names when all are there.
func (u *unpacking) layers(chains []string) (err error) {
	var paths, fresh []string
	defer func() {
		for _, path := range fresh {
			_ = u.discard(path) // or whoever unpacks next does
		}
	}()
	for i, chain := range chains {
		if u.shelf.has(chain) {
			paths = append(paths, u.shelf.layer(chain))
			continue
		}
		fresh = append(fresh, u.shelf.unfinished+"/"+strconv.Itoa(i))
		paths = append(paths, fresh[len(fresh)-1]+"/fs")
		if err := u.layer(i, paths); err != nil {
			return err
		}
	}
	for i, chain := range chains {
		if there := u.shelf.layer(chain); there != paths[i] {
			if err := os.Rename(filepath.Dir(paths[i]), filepath.Dir(there)); err != nil {
				return err
			}
		}
	}
	fresh = nil
	return nil
}

// tidy removes what others have left that were killed: they held the lock that we have.
func (u *unpacking) tidy() error {
	list, err := os.ReadDir(u.shelf.unfinished)
	for _, e := range list {
		err = errors.Join(err, u.discard(u.shelf.unfinished+"/"+e.Name()))
	}
	return err
}

// discard removes an unfinished layer, the files of which are not ours to remove.
func (u *unpacking) discard(path string) error {
	dir, err := openDir(path + "/fs")
	if err == nil {
		_, err = u.ask(MsgEmpty, nil, int(dir.Fd()))
		dir.Close()
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(path))
}

func (u *unpacking) inspect() (*Found, error) {
	var image []int
	if !u.file.directory {
		image = []int{int(u.file.Fd())}
	}
	b, err := u.ask(MsgInspect, Encode(Request{Ref: u.file.ref, Arch: goruntime.GOARCH}), image...)
	if err != nil {
		return nil, err
	}
	found, err := Decode[Found](b)
	if err == nil && (len(found.Chains) == 0 || !isDigests(append(slices.Clone(found.Chains), found.Digest))) {
		err = errors.New("the unpacker's answer makes no sense")
	}
	return &found, err
}

// layer has one written into the last directory, which is made, above the others.
func (u *unpacking) layer(i int, paths []string) error {
	files := paths[i]
	err := errors.Join(os.Mkdir(filepath.Dir(files), 0o711), os.Mkdir(files, 0o755))
	if err == nil { // the caller's umask is not the containers' matter
		err = errors.Join(os.Chmod(filepath.Dir(files), 0o711), os.Chown(files, u.shelf.root[0], u.shelf.root[1]), os.Chmod(files, 0o755))
	}
	if err != nil {
		return err
	}
	var fds []int
	for _, path := range slices.Backward(paths) {
		dir, err := openDir(path)
		if err != nil {
			return err
		}
		defer dir.Close()
		fds = append(fds, int(dir.Fd()))
	}
	order := Layer{Index: i, Limit: u.store.Limit}
	if order.Limit == 0 {
		order.Limit = DefaultLimit
	}
	for k, maps := range [][]specs.LinuxIDMapping{u.store.UIDMaps, u.store.GIDMaps} {
		for _, m := range maps {
			order.IDs[k] = append(order.IDs[k], Range{m.ContainerID, m.Size})
		}
	}
	_, err = u.ask(MsgLayer, Encode(order), fds...)
	return err
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// busyWait is how long the unpacker may go on without a word.
const busyWait = 2 * time.Minute

// ask has the unpacker do something, and serves it meanwhile.
func (u *unpacking) ask(kind byte, payload []byte, fds ...int) ([]byte, error) {
	if err := u.peer.Send(kind, payload, fds...); err != nil {
		return nil, fmt.Errorf("the unpacker: %w", err)
	}
	for {
		kind, payload, fds, err := u.peer.Recv(time.Now().Add(busyWait))
		for _, fd := range fds {
			unix.Close(fd) // it has no reason to send any
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, &Failure{"the unpacker died", "was it killed? See the kernel's log (dmesg) for memory that ran out"}
		case err != nil:
			return nil, fmt.Errorf("the unpacker: %w", err)
		case kind == MsgBusy:
		case kind == MsgPart && u.file.directory:
			if err := u.part(string(payload)); err != nil {
				return nil, err
			}
		case kind == MsgDone:
			return payload, nil
		case kind == MsgFailed:
			f, err := Decode[Failure](payload)
			if err == nil {
				err = &f
			}
			return nil, err
		default:
			return nil, fmt.Errorf("the unpacker sent a message of kind %d: %w", kind, unix.EBADMSG)
		}
	}
}

// part hands over a file of an image that is a directory.
func (u *unpacking) part(name string) error {
	fd, err := u.file.part(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return u.peer.Send(MsgDone, nil)
	case err != nil:
		return u.peer.Send(MsgFailed, Encode(&Failure{Text: err.Error()}))
	}
	defer unix.Close(fd)
	return u.peer.Send(MsgDone, nil, fd)
}
