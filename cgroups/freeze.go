package cgroups

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// freezeWait bounds [Group.Freeze] and [Group.Thaw]. A process in an
// uninterruptible system call freezes only when that ends.
const freezeWait = 10 * time.Second

// Freeze stops every process in the group and below, and returns when the last
// one stands still. If that does not happen in time, or if stop (nil: never),
// which is asked now and then, returns an error, all are let go again, unless it was to be
// frozen before: a group is never left half frozen.
func (g *Group) Freeze(stop func() error) error { return g.freeze(time.Now().Add(freezeWait), stop) }

func (g *Group) freeze(deadline time.Time, stop func() error) error {
	before := g.Freezes()
	err := g.setFrozen("1", deadline, stop)
	if err != nil && !before {
		_ = kernfs.Write(g.fd, "cgroup.freeze", "0")
	}
	return err
}

// Thaw lets the processes run on. Groups below that were frozen on their own stay so. In
// a frozen group nothing can run and nothing is changed: that is an error.
func (g *Group) Thaw() error {
	if above := g.frozenAbove(); above != "" {
		return fmt.Errorf("cgroup %s is frozen because %s above it is: thaw that (write 0 to its cgroup.freeze): %w", g.path, above, unix.EBUSY)
	}
	return g.setFrozen("0", time.Now().Add(freezeWait), nil)
}

// frozenAbove names the next group above g that is to be frozen, "" if none is, or none
// that can be seen from here.
func (g *Group) frozenAbove() string {
	up := ""
	for path := g.path; path != "/"; {
		up += "../"
		path, _ = split(path)
		if isOn(g.fd, up+"cgroup.freeze") {
			return path
		}
	}
	return ""
}

func (g *Group) setFrozen(value string, deadline time.Time, stop func() error) error {
	if err := kernfs.Write(g.fd, "cgroup.freeze", value); err != nil {
		return &fs.PathError{Op: "write " + value + " to cgroup.freeze of cgroup", Path: g.path, Err: err}
	}
	return g.await(deadline, func(ev Events) bool { return ev.Frozen == (value == "1") }, stop)
}

// Freezes says whether the group itself is to be frozen. It is [Group.Frozen]
// only when its last process stands still, and also if one above it is.
func (g *Group) Freezes() bool { return isOn(g.fd, "cgroup.freeze") }

func isOn(dir int, file string) bool {
	value, _ := kernfs.Read(dir, file)
	return strings.TrimSpace(value) == "1"
}
