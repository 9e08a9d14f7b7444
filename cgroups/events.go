package cgroups

import (
	"io/fs"
	"os"
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Events is what cgroup.events says of a group and all groups below it.
type Events struct {
	Populated bool
	Frozen    bool
}

func parseEvents(file string) Events {
	populated, _ := value(file, "populated")
	frozen, _ := value(file, "frozen")
	return Events{Populated: populated == 1, Frozen: frozen == 1}
}

// Events reads the state of the group. A removed group is neither populated nor frozen.
func (g *Group) Events() (Events, error) {
	file, err := kernfs.Read(g.fd, "cgroup.events")
	if ignoreGone(err) != nil {
		return Events{}, &fs.PathError{Op: "read events of cgroup", Path: g.path, Err: err}
	}
	return parseEvents(file), nil
}

// Populated says whether a living process is in the group or below it.
func (g *Group) Populated() bool {
	ev, _ := g.Events()
	return ev.Populated
}

// Frozen says whether the group, or one above it, is frozen to the last process.
func (g *Group) Frozen() bool {
	ev, _ := g.Events()
	return ev.Frozen
}

// WaitEmpty returns when no process is left in the group or below it. At the
// deadline it gives up with a [*BusyError] that names them.
func (g *Group) WaitEmpty(deadline time.Time) error {
	return g.await(deadline, isEmpty, nil)
}

func isEmpty(ev Events) bool { return !ev.Populated }

// firstNap and lastNap bound a single poll. The kernel holds back a
// notification for up to 10 ms after the previous one of the same file
// (CGROUP_FILE_NOTIFY_MIN_INTV): a container that lives 3 ms is reported empty
// 7 ms late. So the first polls are short, and reading again is what decides.
const (
	firstNap = time.Millisecond
	lastNap  = 128 * time.Millisecond
)

// await polls cgroup.events until done says so. Again, if given, is called each
// time that a poll ends without news.
func (g *Group) await(deadline time.Time, done func(Events) bool, again func() error) error {
	fd, err := kernfs.Open(g.fd, "cgroup.events", unix.O_RDONLY)
	if err != nil {
		return g.eventsError(err)
	}
	defer kernfs.Close(fd)
	for nap := firstNap; ; nap = min(2*nap, lastNap) {
		file, err := kernfs.ReadAll(fd)
		if err != nil {
			return g.eventsError(err)
		}
		if done(parseEvents(file)) {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			pids, _ := g.Procs()
			return &BusyError{Group: g.path, PIDs: pids, Err: os.ErrDeadlineExceeded}
		}
		if pollPRI(fd, min(left, nap)) || again == nil {
			continue
		}
		if err := again(); err != nil {
			return err
		}
	}
}

// eventsError makes a vanished group a group without events: it is empty.
func (g *Group) eventsError(err error) error {
	if kernfs.Gone(err) {
		return nil
	}
	return &fs.PathError{Op: "watch events of cgroup", Path: g.path, Err: err}
}

// pollPRI waits for a change of an interface file since it was last read.
func pollPRI(fd int, d time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	ts := unix.NsecToTimespec(int64(max(d, 0)))
	n, err := unix.Ppoll(fds, &ts, nil)
	return err != nil || n > 0 // after EINTR look again: nothing is lost by that
}

// MemoryEvents reads the counters; all are zero without the memory controller.
func (g *Group) MemoryEvents() (MemoryEvents, error) {
	file, err := kernfs.Read(g.fd, "memory.events")
	if ignoreGone(err) != nil {
		return MemoryEvents{}, &fs.PathError{Op: "read memory.events of cgroup", Path: g.path, Err: err}
	}
	return parseMemoryEvents(file), nil
}

// OOMKilled says whether the kernel killed a process of the group for memory.
func (g *Group) OOMKilled() bool {
	ev, _ := g.MemoryEvents()
	return ev.OOMKill > 0
}
