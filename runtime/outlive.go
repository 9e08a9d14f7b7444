package runtime

import (
	"time"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// usage is what a group has used up to a moment.
type usage struct {
	*cgroups.Stats // nil: not known
	at             time.Time
	last           bool // nobody was left to use more
}

func (u *usage) read(g *cgroups.Group, last bool) {
	if s, err := g.Stats(); err == nil {
		*u = usage{s, time.Now(), last}
	}
}

// complete takes from what was used by a process that is dead, and by all the others of its
// PID namespace, what no cgroup tells.
func (u *usage) complete(r *unix.Rusage) {
	if u.Stats == nil {
		*u = usage{&cgroups.Stats{}, time.Now(), true}
	}
	if u.CPU == nil {
		user, system := uint64(unix.TimevalToNsec(r.Utime)/1000), uint64(unix.TimevalToNsec(r.Stime)/1000)
		u.CPU = &cgroups.CPUStats{UsageUsec: user + system, UserUsec: user, SystemUsec: system}
	}
}

// outlive waits for the end of the process and returns how it came and, for a report or
// to say that memory ran out, what its group has used by then.
//
// systemd removes a scope with all that it counted as soon as it hears that the last
// process is dead, and may hear it first. So of a scope husk keeps what it has read before:
// when the kernel kills for memory, and for a report now and then, so that at most an
// eighth of the time the process ran, or a second, is missing.
func (c *creation) outlive(pidfd int, rep *reporter) (info siginfo, used usage, err error) {
	if c.rec.Unit == "" {
		err = waitReadable(pidfd, time.Time{})
	} else {
		used, err = c.follow(pidfd, rep)
	}
	if err == nil {
		info, err = waitPidfd(pidfd)
	}
	if c.plan.inits() {
		info = c.told(info)
	}
	if err != nil {
		return info, used, err
	}
	if rep != nil && c.plan.isNew(unix.CLONE_NEWPID) {
		defer func() { used.complete(&info.used) }()
	}
	if c.group == nil {
		return info, used, nil
	}
	if rep != nil || info.signal == int(unix.SIGKILL) && c.group.OOMKilled() {
		used.read(c.group, true)
	}
	return info, used, nil
}

const (
	firstSample, lastSample = 10 * time.Millisecond, time.Second
	// The kernel holds back an event for up to 10 ms after the one before, by when the
	// scope may be gone: what follows an event is looked at closely.
	closeLook, closeNap = 20 * time.Millisecond, 4 * time.Millisecond
)

func (c *creation) follow(pidfd int, rep *reporter) (used usage, err error) {
	if rep != nil {
		used = rep.first
	}
	watch, err := c.group.Watch()
	if err != nil { // the group is gone, and so is the process, or will be
		return used, waitReadable(pidfd, time.Time{})
	}
	defer watch.Close()
	start, sample, event := time.Now(), never, time.Time{}
	if rep != nil {
		sample = start.Add(firstSample)
	}
	for {
		due := sample
		if now := time.Now(); now.Sub(event) < closeLook {
			due = now.Add(closeNap)
		}
		if err := watch.Wait(due, pidfd); err != nil || ended(pidfd) {
			return used, err
		}
		now := time.Now()
		if now.Before(due) {
			event = now
		}
		kills, populated, err := watch.News()
		switch {
		case err != nil:
			return used, err
		case !populated: // a group that is gone has events without end
			return used, waitReadable(pidfd, time.Time{})
		case kills == 0 && now.Before(sample):
			continue
		}
		used.read(c.group, false)
		if rep != nil {
			sample = now.Add(min(max(now.Sub(start)/8, firstSample), lastSample))
		}
	}
}

// never is a time that no process lives to see.
var never = time.Unix(1<<33, 0)
