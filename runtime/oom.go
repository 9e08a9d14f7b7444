package runtime

import (
	"errors"
	"fmt"
	"math"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// outOfMemory explains the death of a process of group g by the kernel's OOM killer; it
// returns nil if that has killed none. Limits, if known, tell which field is to blame.
func outOfMemory(who string, g *cgroups.Group, limits []cgroups.Limit) error {
	if g == nil || !g.OOMKilled() {
		return nil
	}
	s, err := g.Stats()
	if err != nil || s.Memory == nil {
		return nil
	}
	m, peak := s.Memory, ""
	if m.Peak != nil {
		peak = fmt.Sprintf(", its peak was %d", *m.Peak)
	}
	if m.Events.OOM == 0 || m.Limit == math.MaxUint64 {
		return &Error{
			Err:  fmt.Errorf("%s was killed by the kernel for want of memory, though not by a limit of the container%s", who, peak),
			Hint: "a cgroup above the container's reached its memory.max, or the machine has no memory left",
		}
	}
	field := "/linux/resources/memory/limit"
	for _, l := range limits {
		if l.File == "memory.max" {
			field = l.Field
		}
	}
	return &Error{
		Field: field, Err: fmt.Errorf("%s was killed by the memory limit of %d bytes%s", who, m.Limit, peak),
		Hint: "raise the limit, or let the container swap (/linux/resources/memory/swap)",
	}
}

// outOfMemory is asked of a container that is only known by its record.
func (rec *record) outOfMemory() error {
	g, err := cgroups.Open(rec.Cgroup)
	if rec.Cgroup == "" || err != nil {
		return nil
	}
	defer g.Close()
	return outOfMemory("the container's init", g, nil)
}

// mourn warns of a process that was not killed by anybody who would know why.
func (c *creation) mourn(info siginfo) {
	if info.signal != int(unix.SIGKILL) {
		return
	}
	if err := outOfMemory("the process", c.group, c.plan.Limits); err != nil {
		c.warn(wrap("run", c.rec.ID, err).Error())
	}
}

// died replaces errDied by its cause if that was the memory limit.
func (rec *record) died(err error) error {
	if !errors.Is(err, errDied) {
		return err
	}
	rec.awaitDeath()
	if oom := rec.outOfMemory(); oom != nil {
		return oom
	}
	return err
}
