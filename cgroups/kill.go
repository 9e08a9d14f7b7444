package cgroups

import (
	"errors"
	"io/fs"
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Kill sends SIGKILL to every process in the group and below, frozen ones and
// those being forked at this moment included. It does not wait.
func (g *Group) Kill() error {
	err := kernfs.Write(g.fd, "cgroup.kill", "1")
	if errors.Is(err, unix.EOPNOTSUPP) {
		return g.killThreaded()
	}
	if ignoreGone(err) != nil {
		return &fs.PathError{Op: "kill cgroup", Path: g.path, Err: err}
	}
	return nil
}

// KillAll kills until the group is empty: a process that enters from outside
// (CLONE_INTO_CGROUP, a write to cgroup.procs) after one kill dies by the next.
func (g *Group) KillAll(deadline time.Time) error {
	if err := g.Kill(); err != nil {
		return err
	}
	return g.await(deadline, isEmpty, g.Kill)
}

// killThreaded stands in for cgroup.kill, which threaded groups do not have.
// While the group is frozen nothing forks and no id is given out again, except
// for a process that somebody else kills at this moment.
func (g *Group) killThreaded() error {
	if err := kernfs.Write(g.fd, "cgroup.freeze", "1"); err != nil {
		return ignoreGone(err)
	}
	defer func() { _ = kernfs.Write(g.fd, "cgroup.freeze", "0") }()
	_ = g.await(time.Now().Add(time.Second), func(ev Events) bool { return ev.Frozen || !ev.Populated }, nil)
	pids, err := g.Procs()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return err
}
