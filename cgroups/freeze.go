package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// freezeWait bounds [Group.Freeze] and [Group.Thaw]. A process in an
// uninterruptible system call freezes only when that ends.
const freezeWait = 10 * time.Second

// Freeze stops every process in the group and below, and returns when the last
// one stands still. If that does not happen in time all are let go again: a
// group is never left half frozen.
func (g *Group) Freeze() error { return g.freeze(time.Now().Add(freezeWait)) }

func (g *Group) freeze(deadline time.Time) error {
	err := g.setFrozen("1", deadline)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = write(g.fd, "cgroup.freeze", "0")
	}
	return err
}

// Thaw lets the processes run on.
func (g *Group) Thaw() error { return g.thaw(time.Now().Add(freezeWait)) }

func (g *Group) thaw(deadline time.Time) error {
	err := g.setFrozen("0", deadline)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("cgroup %s stays frozen because a group above it is: %w", g.path, err)
	}
	return err
}

func (g *Group) setFrozen(value string, deadline time.Time) error {
	if err := write(g.fd, "cgroup.freeze", value); err != nil {
		return &fs.PathError{Op: "write " + value + " to cgroup.freeze of cgroup", Path: g.path, Err: err}
	}
	return g.await(deadline, func(ev Events) bool { return ev.Frozen == (value == "1") }, nil)
}
