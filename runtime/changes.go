package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"time"

	"github.com/huskrun/husk/rootfs/changes"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Changes are what a container has written to its overlays with the option scratch. They
// are read when it is gone, by [CreateOptions.Scratch].
type Changes struct {
	Layers           []string    // where the overlays are mounted, in the order of their mounts
	Program          io.ReaderAt // the program that reads images, which writes changes, too
	UIDMaps, GIDMaps []specs.LinuxIDMapping
	Limit            int64 // bytes of content in an exported layer

	scratch *changes.Scratch // nil: the container was not mounted
	layer   *output
}

// Export names a file for a layer, in a directory, which is to be replaced as a whole by
// Write: what could not be is refused now. The directory belongs to the Changes.
func (c *Changes) Export(dir *os.File, path string) (err error) {
	defer dir.Close()
	c.layer, err = outputIn(dup(int(dir.Fd())), "layer", path, 4<<10)
	return err
}

// Take is for [CreateOptions.Scratch].
func (c *Changes) Take(dir *os.File) error {
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	_ = dir.Close()
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	c.scratch = &changes.Scratch{Dir: fd, Layers: c.Layers}
	return c.scratch.Mark()
}

// Close gives up the scratch, which is gone then.
func (c *Changes) Close() {
	if c.scratch != nil {
		_ = unix.Close(c.scratch.Dir)
	}
	c.layer.close()
	c.scratch, c.layer = nil, nil
}

// Count counts. A user's container may have users that are not the caller's to look at:
// then the program does.
func (c *Changes) Count() (changes.Count, error) {
	n, err := c.scratch.Count()
	if errors.Is(err, unix.EACCES) && c.Program != nil {
		n, err = c.order(&changes.Order{})
	}
	return n, err
}

// Write writes all that was changed: into a directory, which is made if it is missing, if
// keep is not empty, and to the file of Export. Nothing is left of what fails.
func (c *Changes) Write(keep string) (changes.Count, error) {
	n, err := c.write(keep)
	return n, wrap("keep changes", "", err)
}

func (c *Changes) write(keep string) (n changes.Count, err error) {
	o := &changes.Order{Keep: keep != "", Export: c.layer != nil, Limit: c.Limit}
	var fds []int
	if o.Keep {
		dir, made, failed := makeEmpty(keep)
		if failed != nil {
			return n, failed
		}
		fds = append(fds, int(dir.Fd()))
		defer func() {
			if err != nil {
				err = c.discard(dir, made, err)
			}
			_ = dir.Close()
		}()
	}
	if !o.Export {
		return c.order(o, fds...)
	}
	var told error // which has a hint
	err = c.layer.fill(func(fd int) error {
		n, told = c.order(o, append(fds, fd)...)
		return told
	})
	if told != nil {
		err = told
	}
	return n, err
}

// makeEmpty opens an empty directory, which it makes if it is missing.
func makeEmpty(path string) (dir *os.File, made bool, err error) {
	switch err := os.Mkdir(path, 0o755); {
	case err == nil:
		made = true
	case !errors.Is(err, fs.ErrExist):
		return nil, false, err
	}
	dir, err = os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, made, err
	}
	if list, err := dir.Readdirnames(1); len(list) > 0 || !errors.Is(err, io.EOF) {
		_ = dir.Close()
		return nil, made, &fs.PathError{Op: "keep changes in", Path: path, Err: unix.ENOTEMPTY}
	}
	return dir, made, nil
}

// discard has what was kept in a directory removed because of an error, and the directory
// if it was made.
func (c *Changes) discard(dir *os.File, made bool, because error) error {
	_, err := c.order(&changes.Order{Empty: true}, int(dir.Fd()))
	if err == nil && made {
		err = os.Remove(dir.Name())
	}
	if err == nil {
		return because
	}
	e := asError(because)
	e.Err = fmt.Errorf("%w; what was kept by then cannot be removed: %w", e.Err, err)
	return e
}

// changesPatience is how long the writer may go on without a word.
const changesPatience = 2 * time.Minute

// order has the program do something, unless a signal ends it first. Who is root lets it
// be root: only that one can give files to users. Anybody else's has the users of the
// container, and so may read what they keep to themselves.
func (c *Changes) order(o *changes.Order, fds ...int) (n changes.Count, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	uids, gids := c.UIDMaps, c.GIDMaps
	o.Scratch, o.Chown = *c.scratch, os.Geteuid() == 0
	o.IDs = [2][]changes.Range{seenAs(uids, o.Chown), seenAs(gids, o.Chown)}
	uids, gids = rooted(uids), rooted(gids)
	if o.Chown {
		uids, gids = nil, nil
	}
	p, err := startConfined(ctx, c.Program, uids, gids, changes.Argument)
	if err != nil {
		return n, err
	}
	defer p.Close()
	if err := p.Send(changes.MsgWrite, changes.Encode(o), append([]int{c.scratch.Dir}, fds...)...); err != nil {
		return n, fmt.Errorf("the writer of changes: %w", err)
	}
	for {
		kind, payload, extra, err := p.Recv(time.Now().Add(changesPatience))
		closeAll(extra)
		switch {
		case ctx.Err() != nil:
			return n, context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return n, &Error{Err: errors.New("the writer of changes died"), Hint: "was it killed? See the kernel's log (dmesg) for memory that ran out"}
		case err != nil:
			return n, fmt.Errorf("the writer of changes: %w", err)
		case kind == changes.MsgDone:
			return changes.Decode[changes.Count](payload)
		case kind == changes.MsgFailed:
			f, err := changes.Decode[changes.Failure](payload)
			if err != nil {
				return n, err
			}
			return n, &Error{Err: &f, Hint: f.Hint}
		}
	}
}

// seenAs are the ids of a mapping as the writer sees them.
func seenAs(maps []specs.LinuxIDMapping, outside bool) (list []changes.Range) {
	for i, m := range rooted(maps) {
		r := changes.Range{Seen: m.ContainerID, Inside: maps[i].ContainerID, Size: m.Size}
		if outside {
			r.Seen = m.HostID
		}
		list = append(list, r)
	}
	return list
}
