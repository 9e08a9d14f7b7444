package runtime

import (
	"errors"
	"fmt"
	"math"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// outOfMemory explains the death of a process of ours in group g by the kernel's OOM
// killer; it returns nil if that has killed none. Limits, if known, tell which field is to
// blame.
func outOfMemory(who string, g *cgroups.Group, limits []cgroups.Limit) error {
	if g == nil || !g.OOMKilled() {
		return nil
	}
	s, err := g.Stats()
	if err != nil {
		return nil
	}
	return memoryError(s, limits, func(limit string, _ uint64) string { return who + " was killed by " + limit })
}

// memoryError blames the limit that a group of stats s reached, or one above it, if the
// kernel has killed a process for it; text is told which, and how many it has killed.
func memoryError(s *cgroups.Stats, limits []cgroups.Limit, text func(limit string, kills uint64) string) error {
	if s == nil || s.Memory == nil || s.Memory.Events.OOMKill == 0 {
		return nil
	}
	m, peak := s.Memory, ""
	if m.Peak != nil {
		peak = fmt.Sprintf("; its peak was %d", *m.Peak)
	}
	if m.Events.OOM == 0 || m.Limit == math.MaxUint64 {
		return &Error{
			Err:  errors.New(text("a memory limit above the container's", m.Events.OOMKill) + peak),
			Hint: "a cgroup above the container's reached its memory.max, or the machine has no memory left",
		}
	}
	e := &Error{
		Field: "/linux/resources/memory/limit",
		Err:   errors.New(text(fmt.Sprintf("the memory limit of %d bytes", m.Limit), m.Events.OOMKill) + peak),
		Hint:  "raise the limit, or let the container swap (/linux/resources/memory/swap)",
	}
	for _, l := range limits {
		if l.File == "memory.max" {
			e.Field = l.Field
		}
	}
	return e
}

// outOfMemory is asked of a container that is only known by its record.
func (rec *record) outOfMemory() error {
	g, _ := rec.findGroup()
	if g == nil {
		return nil
	}
	defer g.Close()
	return outOfMemory("the container's init", g, nil)
}

// mourn warns of a process that was killed by its filter, or when the memory limit has
// killed some, unless somebody is told who says so himself.
func (c *creation) mourn(info siginfo, s *cgroups.Stats, rep *reporter) {
	err := wrap("run", c.rec.ID, c.cause(info, s))
	if rep != nil {
		rep.Cause = err
	}
	if err == nil || rep != nil && rep.tell != nil {
		return
	}
	text := err.Error()
	if info.signal == int(unix.SIGSYS) {
		text = explained(err)
	}
	c.warn(text)
}

// cause is why the kernel has killed a process. Of the memory limit nobody can tell for
// sure: SIGKILL says not where it comes from.
func (c *creation) cause(info siginfo, s *cgroups.Stats) error {
	switch {
	case info.signal == int(unix.SIGSYS) && len(c.config.Seccomp) > 0:
		pid := c.proc.PID
		if c.plan.inits() {
			pid = 0 // of another one, whose pid we do not know
		}
		return c.filtered("the process", pid, c.rec.Created, c.config.Seccomp)
	case info.signal != int(unix.SIGKILL):
		return nil
	}
	return memoryError(s, c.plan.Limits, func(limit string, kills uint64) string {
		victims := "1 process"
		if kills > 1 {
			victims = fmt.Sprintf("%d processes", kills)
		}
		return fmt.Sprintf("the process was killed; %s has killed %s of the container", limit, victims)
	})
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
