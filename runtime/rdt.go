package runtime

import (
	"errors"
	"time"

	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// This file puts a container into its class of service (linux.intelRdt). What create
// makes in resctrl stands in the record before it is made, as with cgroups; the lock of
// resctrl is held from the look at what is there until the init is in its class, so that
// the failure of another create takes no class from under it.

// classPatience is how long others may hold the lock of resctrl.
const classPatience = 10 * time.Second

var errNoClass = errors.New("the container has no class of service: its config had no linux.intelRdt when it was created")

// lookForClass finds out what will have to be made, nil if the config does not ask.
func (c *creation) lookForClass() (u *resctrl.Use, err error) {
	rdt := c.plan.Rdt
	if rdt == nil {
		return nil, nil
	}
	if c.rdt, err = resctrl.Open(); err != nil {
		return nil, at(resctrl.Pointer, "", err)
	}
	if err = c.rdt.Lock(time.Now().Add(classPatience)); err != nil {
		return nil, at(resctrl.Pointer, "", err)
	}
	u, err = c.rdt.Look(rdt, c.entry.id)
	return u, fieldError(err)
}

func (c *creation) makeClass() error {
	if c.rdt == nil {
		return nil
	}
	return fieldError(c.rdt.Make(c.rec.Rdt, c.plan.Rdt))
}

// enterClass moves the init into its class. What it executes and makes stays there. It
// ends the lock, so that a second init (respawn.go) has to do without.
func (c *creation) enterClass() (err error) {
	if c.rec.Rdt == nil {
		return nil
	}
	f := c.rdt
	if c.rdt = nil; f == nil {
		if f, err = resctrl.Open(); err != nil {
			return at(resctrl.Pointer, "", err)
		}
	}
	defer f.Close()
	return fieldError(f.Join(c.rec.Rdt, c.proc.PID))
}

// joinClass moves a process that joins the container into its class. One that was
// removed has left the others in the default class.
func (j *joining) joinClass() error {
	if j.rec.Rdt == nil {
		return nil
	}
	f, err := resctrl.Open()
	if err == nil {
		defer f.Close()
		err = f.Join(j.rec.Rdt, j.child.PID)
	}
	if errors.Is(err, resctrl.ErrNotMounted) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		j.warn("the container's class of resctrl is gone: " + err.Error())
		return nil
	}
	return fieldError(err)
}

// leaveClass removes what the container had of resctrl. A create that failed leaves it
// as it was, too; a container that was deleted leaves a class that its config named.
func (r *Runtime) leaveClass(rec *record) error {
	if rec.Rdt == nil {
		return nil
	}
	f, err := resctrl.Open()
	if errors.Is(err, resctrl.ErrNotMounted) {
		// Its groups went with it, unless it is mounted where we cannot see it.
		r.warn(resctrl.Pointer + ": nothing was removed: " + err.Error())
		return nil
	}
	if err != nil {
		return at(resctrl.Pointer, "", err)
	}
	defer f.Close()
	if rec.Phase == phaseCreated {
		return fieldError(f.Remove(rec.Rdt))
	}
	if err := f.Lock(time.Now().Add(classPatience)); err != nil {
		r.warn(resctrl.Pointer + ": its class is left as it is: " + err.Error())
		return fieldError(f.Remove(rec.Rdt))
	}
	return fieldError(f.Undo(rec.Rdt))
}

// changeClass writes the schemas of an update, and calls then. If that fails it takes
// them back.
func (rec *record) changeClass(rdt *specs.LinuxIntelRdt, then func() error) error {
	if rdt == nil {
		return then()
	}
	if rec.Rdt == nil {
		return at(resctrl.Pointer, "", errNoClass)
	}
	f, err := resctrl.Open()
	if err != nil {
		return at(resctrl.Pointer, "", err)
	}
	defer f.Close()
	if err := f.Lock(time.Now().Add(classPatience)); err != nil {
		return at(resctrl.Pointer, "", err)
	}
	before, err := f.Change(rec.Rdt, rdt)
	if err != nil {
		return fieldError(err)
	}
	if err = then(); err != nil {
		_ = f.Restore(rec.Rdt, before) // as far as possible
	}
	return err
}
