package runtime

import (
	"errors"
	"time"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// This file deals with cgroups into which no process can be born. Linux counts in
// kill_seq how often cgroup.kill was written, in order to kill what is just being
// forked. Since 6.14 clone3(CLONE_INTO_CGROUP) compares the wrong two:
// cgroup_css_set_fork() takes kill_seq of the caller's cgroup, cgroup_post_fork() that
// of the child's. Once either was killed, by us or by an engine or by systemd, all such
// children are dead on arrival. The count cannot be read, so one has to try.

// stillborn says whether boot failed because the init was killed before it executed.
// It does not ask whether the kernel did that for want of memory: memory.events of a
// group that existed before counts older kills as well, and a second init would
// die the same way and be diagnosed then.
func (c *creation) stillborn(err error) bool {
	if err == nil || c.group == nil || c.plan.Spawn.Place != nil {
		return false
	}
	if c.proc == nil {
		return errors.Is(err, namespaces.ErrKilled)
	}
	// Whatever else failed may have failed because of its death, which takes a moment, or
	// longer where processors are busy. One that lives executes husk in that time.
	for late := time.Now().Add(killPatience); !c.end.reaped && onlyForked(c.proc.PID) && time.Now().Before(late); {
		if waitReadable(int(c.proc.FD.Fd()), time.Now().Add(time.Millisecond)) == nil {
			c.reap()
		}
	}
	return c.end.forked && c.end.info.signal == int(unix.SIGKILL)
}

// bootPlaced boots once more, with an init that is born in our cgroup and moved.
func (c *creation) bootPlaced(start bool) error {
	if c.links != nil {
		if err := c.links.Back(); err != nil {
			return c.linkError(err)
		}
	}
	if c.proc != nil {
		_ = c.conn.Close()
		_ = c.proc.FD.Close()
	}
	c.conn, c.proc, c.end = nil, nil, ending{}
	// Bound, if the first init died late enough to be sent it.
	_ = unlinkat(c.entry.fd, startSock, 0)
	c.plan.Spawn.Join, c.plan.Spawn.Place = nil, c.place
	return c.boot(start)
}

// place moves the init into its group once the record leads to it: otherwise, should we
// die meanwhile, the next command might find it dying in a group that is not ours.
func (c *creation) place(pid int) error {
	if err := c.recordInit(pid); err != nil {
		return err
	}
	return c.group.Add(pid)
}

// onlyForked says whether a process that is not reaped yet never called execve.
func onlyForked(pid int) bool {
	const forkNoExec = 0x40 // PF_FORKNOEXEC
	_, flags, err := readStat(pid)
	return err == nil && flags&forkNoExec != 0
}
