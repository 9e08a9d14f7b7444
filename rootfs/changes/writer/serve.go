// Package writer writes what package changes reads: into a directory, or a layer of an
// image. It is part of a program of its own, since what knows tar archives would cost
// every start of husk.
package writer

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/huskrun/husk/rootfs/changes"
	"golang.org/x/sys/unix"
)

// Serve carries out the one order that comes.
func Serve(conn changes.Conn) error {
	unix.Umask(0)
	kind, payload, fds, err := conn.Recv(time.Time{})
	if err != nil {
		return nil
	}
	var answer []byte
	order, err := changes.Decode[changes.Order](payload)
	if err == nil && kind != changes.MsgWrite {
		err = fmt.Errorf("message of kind %d: %w", kind, unix.EBADMSG)
	}
	if err == nil {
		var n changes.Count
		n, err = write(conn, &order, fds)
		answer = changes.Encode(n)
	}
	if kind = changes.MsgDone; err != nil {
		kind, answer = changes.MsgFailed, changes.Encode(failure(err))
	}
	return conn.Send(kind, answer)
}

// sink is what entries are written to.
type sink interface {
	write(e *changes.Entry) error
	end(failed bool) error
}

func write(conn changes.Conn, order *changes.Order, fds []int) (n changes.Count, err error) {
	var sinks []sink
	take := func(want bool) (*os.File, bool) {
		if !want || len(fds) == 0 {
			return nil, false
		}
		f := os.NewFile(uintptr(fds[0]), "received")
		fds = fds[1:]
		return f, true
	}
	scratch, ok := take(true)
	if !ok {
		return n, unix.EBADMSG
	}
	order.Dir = int(scratch.Fd())
	if dir, ok := take(order.Empty); ok {
		return n, empty(dir)
	}
	if dir, ok := take(order.Keep); ok {
		sinks = append(sinks, newKeeper(order, dir))
	}
	if file, ok := take(order.Export); ok {
		sinks = append(sinks, newArchive(order, file))
	}
	told := time.Now()
	err = order.Walk(func(e *changes.Entry) error {
		if time.Since(told) > busyEvery {
			told = time.Now()
			if err := conn.Send(changes.MsgBusy, nil); err != nil {
				return err
			}
		}
		for _, s := range sinks {
			if err := s.write(e); err != nil {
				return err
			}
		}
		return nil
	})
	for _, s := range sinks {
		err = errors.Join(err, s.end(err != nil))
	}
	if err == nil {
		n, err = order.Count()
	}
	return n, err
}

// busyEvery is how often the caller hears that there is progress.
const busyEvery = 5 * time.Second

// names finds the name that a file was first met under, if it has several.
type names map[uint64]string

func (n names) first(e *changes.Entry) (name string, met bool) {
	if e.Stat.Nlink < 2 || e.Kind() == unix.S_IFDIR {
		return "", false
	}
	if name, met = n[e.Stat.Ino]; !met {
		n[e.Stat.Ino] = e.Path
	}
	return name, met
}

// owner are the ids that a file has in the container.
func owner(order *changes.Order, e *changes.Entry) (uid, gid int) {
	return inside(order.IDs[0], e.Stat.Uid), inside(order.IDs[1], e.Stat.Gid)
}

func inside(ids []changes.Range, id uint32) int {
	for _, r := range ids {
		if n := id - r.Seen; id >= r.Seen && n < r.Size {
			return int(r.Inside + n)
		}
	}
	return int(id)
}

// hinted is an error with advice.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func failure(err error) *changes.Failure {
	f := &changes.Failure{Text: err.Error()}
	if h, ok := errors.AsType[hinted](err); ok {
		f.Hint = h.hint
	}
	return f
}
