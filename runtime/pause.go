package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/huskrun/husk/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// held is an existing container of which a command uses the cgroup.
type held struct {
	*entry
	rec   *record
	group *cgroups.Group
}

func (h *held) close() {
	if h.group != nil {
		h.group.Close()
	}
	h.entry.close()
}

// hold opens a container and its cgroup, which a stopped one may have lost: then group is
// nil. With lock set no other operation touches the container until close.
func (r *Runtime) hold(id string, lock bool) (h *held, err error) {
	h = &held{}
	if lock {
		h.entry, err = r.openLocked(id, false)
	} else {
		h.entry, err = r.open(id)
	}
	if err != nil {
		return nil, err
	}
	if h.rec, err = h.entry.read(); err == nil {
		h.group, err = h.rec.openGroup()
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// openGroup opens the container's cgroup; nil if it is gone.
func (rec *record) openGroup() (*cgroups.Group, error) {
	if rec.Cgroup == "" {
		return nil, &Error{
			Err:  errors.New("the container has no cgroup of its own"),
			Hint: "it was created without one, with --cgroup-manager disabled or by a user who may not make cgroups",
		}
	}
	return rec.findGroup()
}

// living refuses a container that has no process, or not yet.
func (h *held) living() error {
	switch h.rec.status(h.entry) {
	case specs.StateStopped, specs.StateCreating:
		return ErrNotRunning
	}
	if h.group == nil {
		return ErrNotRunning
	}
	return nil
}

// Pause freezes the processes of a created or running container and returns when the last
// one stands still. After an error none is frozen, also if one of SIGINT, SIGTERM and
// SIGHUP, which Pause takes over meanwhile, ended the wait. Only who is killed outright
// leaves a container that freezes on: its state may still be running, and [Runtime.Resume]
// and a forced [Runtime.Delete] work as on a paused one.
func (r *Runtime) Pause(id string) error { return wrap("pause", id, r.pause(id)) }

func (r *Runtime) pause(id string) error {
	h, err := r.hold(id, true)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.living(); err != nil {
		return err
	}
	if h.group.Frozen() && h.group.Freezes() { // and not only because a group above is frozen
		return &Error{Err: fmt.Errorf("%w: it is paused", ErrNotRunning), Hint: "husk resume lets it run on"}
	}
	stop, release := interruptible()
	defer release()
	if err := h.group.Freeze(stop); err != nil {
		return err
	}
	if !h.rec.running() {
		_ = h.group.Thaw() // what its death left over
		return ErrNotRunning
	}
	return nil
}

// Resume lets the processes of a paused container run on. Groups below its own that the
// container froze by itself stay frozen.
func (r *Runtime) Resume(id string) error { return wrap("resume", id, r.resume(id)) }

func (r *Runtime) resume(id string) error {
	h, err := r.hold(id, true)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.living(); err != nil {
		return ErrNotPaused
	}
	// After a Pause that was killed it may not be frozen yet.
	if !h.group.Freezes() && !h.group.Frozen() {
		return ErrNotPaused
	}
	return h.group.Thaw()
}

// standStill freezes the processes of a container until release is called, unless they
// are frozen anyhow. If another operation has the container's lock they run on: to thaw
// them afterwards could undo a pause.
func (e *entry) standStill(g *cgroups.Group) (release func(), err error) {
	if unix.Flock(e.fd, unix.LOCK_EX|unix.LOCK_NB) != nil || g.Freezes() || g.Frozen() {
		return func() {}, nil
	}
	stop, restore := interruptible()
	if err := g.Freeze(stop); err != nil {
		restore()
		return nil, err
	}
	return func() {
		_ = g.Thaw()
		restore()
	}, nil
}

// interruptible takes over the signals by which users and service managers end a program,
// until release is called: stop then reports the first, instead of our sudden end.
func interruptible() (stop func() error, release func()) {
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	stop = func() error {
		select {
		case s := <-signals:
			return fmt.Errorf("given up: %s", s)
		default:
			return nil
		}
	}
	return stop, func() { signal.Stop(signals) }
}
