package runtime

import (
	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RunOptions are what run decides beyond create.
type RunOptions struct {
	CreateOptions
	Detach bool // return as soon as the process runs
	Keep   bool // do not delete the container when its process ends
	// Tied ends the container when the caller is killed. Its process could free itself;
	// not so with AnnotationInit.
	Tied bool
	// NoSubreaper leaves the processes that the container orphans to the caller's own
	// parents. Otherwise Run adopts and reaps them where the container has no PID
	// namespace, and with them every child of the calling program.
	NoSubreaper bool
	// Report names a file that gets, when the process has ended, a JSON object about its
	// end and what it used; see [Report]. It is replaced as a whole.
	Report string
	// CountDenied has the report say which system calls the filter has denied, see
	// [seccomp.Denials].
	CountDenied bool
	// Started is called when the process has been executed, Ended when it has ended, with
	// what Report would write; of a process that never ran only the latter.
	Started func()
	Ended   func(*Report)
}

// Run creates and starts a container and, unless detached, waits for its process,
// forwards signals to it, and deletes the container. Signals that come before it runs
// wait for it; one that is to end it ends a start that takes long. With NOTIFY_SOCKET in
// its environment Run tells the service manager when the process is ready, see
// [Runtime.Start]. It returns the process's exit status, 128+n if signal n killed it. If
// then only the report cannot be written, the error has that status as its Exit.
func (r *Runtime) Run(id, bundle string, o RunOptions) (status int, err error) {
	rep, err := newReporter(id, o)
	if err != nil {
		return -1, wrap("run", id, err)
	}
	defer rep.close()
	growStack()
	if !o.Detach && !o.NoSubreaper {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	o.foreground = !o.Detach
	if o.CountDenied && rep != nil {
		rep.denials = &seccomp.Denials{}
		o.denials = rep.denials
	}
	status, err = r.run(id, bundle, o, rep)
	err = wrap("run", id, err)
	if failed := rep.failed(err); failed != nil {
		r.warn(failed.Error())
	}
	return status, err
}

func (r *Runtime) run(id, bundle string, o RunOptions, rep *reporter) (int, error) {
	c, err := r.create(id, bundle, o.CreateOptions, true)
	if err != nil {
		return -1, err
	}
	defer c.signals.stop()
	rep.expect(c)
	rep.watchTraffic(c)
	n, err := c.entry.notifier()
	if err != nil {
		c.undo()
		return -1, err
	}
	if c.plan.inits() {
		if err = c.conn.AskSender(); err != nil {
			c.undo()
			return -1, err
		}
	}
	mode := byte(goStart)
	if o.Tied && !o.Detach {
		mode = goTied
	}
	if err = c.finish(mode); err != nil {
		n.close()
		return -1, err
	}
	defer c.close()
	defer n.close()
	if err := awaitExec(c.conn, c.rec, c.agent, c.signals); err != nil {
		err = c.died(c.rec, err)
		removePidFile(o.PidFile, c.proc.PID)
		c.undo()
		return -1, err
	}
	if !o.Detach {
		c.signals.forward(int(c.proc.FD.Fd()))
	}
	c.keepLinks()
	rep.begin(c.rec, c.group)
	if o.Started != nil {
		o.Started()
	}
	if err := r.poststart(c.entry, c.rec); err != nil {
		removePidFile(o.PidFile, c.proc.PID)
		return -1, err
	}
	if o.Detach {
		return 0, n.relayFor(c.entry, c.rec)
	}
	n.relayBeside(c)
	return c.wait(o, rep)
}

// wait stays with the process until it ends. The container's lock is released
// meanwhile, so that others can handle it.
func (c *creation) wait(o RunOptions, rep *reporter) (int, error) {
	pidfd := int(c.proc.FD.Fd())
	_ = unix.Flock(c.entry.fd, unix.LOCK_UN)
	if !o.NoSubreaper && !c.plan.owned(specs.PIDNamespace) {
		go reapOrphans(c.proc.PID)
	}
	info, used, err := c.outlive(pidfd, rep)
	if err != nil {
		return -1, err
	}
	rep.denied(c.Seccomp)
	c.mourn(info, used.Stats, rep)
	unreported := rep.end(info, used)
	if !o.Keep {
		err = c.deleteAfterRun()
	}
	if err == nil {
		err = unreported
	} else if unreported != nil {
		c.warn(unreported.Error())
	}
	return info.exitStatus(), err
}

// reapOrphans reaps whatever child ends, until the init does, which it leaves alone:
// without a PID namespace, what the container orphans comes to us.
func reapOrphans(init int) {
	for {
		pid, err := nextChild()
		if err != nil || pid == init {
			return
		}
		_, _ = retry(func() (int, error) { return unix.Wait4(pid, nil, unix.WNOHANG, nil) })
	}
}

// deleteAfterRun deletes the container, unless somebody else did so meanwhile.
func (c *creation) deleteAfterRun() error {
	err := c.entry.lock()
	if err == nil {
		err = c.destroy(c.entry, c.rec)
	}
	if err == ErrNotExist {
		err = nil
	}
	return err
}
