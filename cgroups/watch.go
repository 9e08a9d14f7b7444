package cgroups

import (
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Watch tells when something happens to the processes of a group.
type Watch struct {
	group          *Group
	events, memory int // open files; -1: there is none (yet)
	kills          uint64
}

// Watch begins to watch the group. What the kernel killed before does not count.
func (g *Group) Watch() (*Watch, error) {
	w := &Watch{group: g, events: -1, memory: -1}
	var err error
	if w.events, err = kernfs.Open(g.fd, "cgroup.events", unix.O_RDONLY); err != nil {
		return nil, g.pathError("watch", err)
	}
	w.kills, _ = w.oomKills()
	return w, nil
}

// Close ends it.
func (w *Watch) Close() {
	for _, fd := range []int{w.events, w.memory} {
		if fd >= 0 {
			kernfs.Close(fd)
		}
	}
}

// Wait returns when there may be news: at the deadline at the latest, or when pidfd (-1:
// none), such as that of a process, is readable.
func (w *Watch) Wait(deadline time.Time, pidfd int) error {
	fds := []unix.PollFd{
		{Fd: int32(w.events), Events: unix.POLLPRI},
		{Fd: int32(w.memory), Events: unix.POLLPRI},
		{Fd: int32(pidfd), Events: unix.POLLIN},
	}
	for {
		ts := unix.NsecToTimespec(int64(max(time.Until(deadline), 0)))
		if _, err := unix.Ppoll(fds, &ts, nil); err != unix.EINTR {
			return err
		}
	}
}

// News reads what has happened since it was called last: how many processes the kernel
// killed for memory, and whether one is left.
func (w *Watch) News() (oomKills uint64, populated bool, err error) {
	file, err := kernfs.ReadAll(w.events)
	if ignoreGone(err) != nil {
		return 0, false, w.group.pathError("watch", err)
	}
	populated = parseEvents(file).Populated
	if n, ok := w.oomKills(); ok {
		oomKills, w.kills = n-w.kills, n
	}
	return oomKills, populated, nil
}

// oomKills reads a counter of memory.events. The file is there once the controller is,
// which an update may enable.
func (w *Watch) oomKills() (uint64, bool) {
	if w.memory < 0 {
		fd, err := kernfs.Open(w.group.fd, "memory.events", unix.O_RDONLY)
		if err != nil {
			return 0, false
		}
		w.memory = fd
	}
	file, err := kernfs.ReadAll(w.memory)
	if err != nil {
		return 0, false
	}
	return value(file, "oom_kill")
}
