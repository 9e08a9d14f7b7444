package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/huskrun/husk/namespaces"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// startPatience is how long the parked init may take to answer start, hooks aside.
const startPatience = 10 * time.Second

// Start executes the process of a created container and returns when its execve has
// succeeded, or failed: then the error tells why, and its Exit is 126 or 127. OCI
// runtime-spec, runtime.md, "Start".
//
// With NOTIFY_SOCKET in its environment it returns when the process has said that it is
// ready, see sd_notify(3), or has ended.
func (r *Runtime) Start(id string) error { return wrap("start", id, r.start(id)) }

func (r *Runtime) start(id string) error {
	e, err := r.openLocked(id, false)
	if err != nil {
		return err
	}
	defer e.close()
	rec, err := e.read()
	if err != nil {
		return err
	}
	if err := rec.startable(e); err != nil {
		return err
	}
	n, err := e.notifier()
	if err != nil {
		return err
	}
	defer n.close()
	if err := r.execute(e, rec); err != nil {
		return err
	}
	return n.relayFor(e, rec)
}

// startable says what keeps a container from being started.
func (rec *record) startable(e *entry) error {
	switch status := rec.status(e); status {
	case specs.StateCreated:
	case specs.StateRunning:
		return ErrRunning
	case specs.StateStopped:
		if oom := rec.outOfMemory(); oom != nil {
			return fmt.Errorf("%w: %w", ErrStopped, oom)
		}
		return ErrStopped
	default:
		return fmt.Errorf("cannot start a container that is %s", status)
	}
	if rec.NoProcess {
		return at("/process", "", errors.New("there is no process to start"))
	}
	return nil
}

// execute has the parked init execute the process.
func (r *Runtime) execute(e *entry, rec *record) error {
	fd, err := e.dial()
	if err != nil {
		return r.died(rec, orDied(err))
	}
	conn := namespaces.FromFD(fd)
	defer conn.Close()
	if err := cmp.Or(conn.AskSender(), conn.Send(msgStart, nil)); err != nil {
		return r.died(rec, orDied(err))
	}
	if err := awaitExec(conn, rec, func() (agent, error) { return e.agent(rec) }, nil); err != nil {
		_ = conn.Close() // an init that waits for an answer ends
		rec.awaitDeath()
		return r.afterFailedHook(e, rec, r.died(rec, err))
	}
	return r.poststart(e, rec)
}

var errDied = errors.New("the container's init died before it executed the process")

// orDied says so where err only tells that nobody is at the other end any more: a kill
// or an OOM may have come between our look at the container and now.
func orDied(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return errDied
	}
	return err
}

// awaitDeath gives an init that has just reported its failure the time to exit, so that
// the container is seen as stopped.
func (rec *record) awaitDeath() {
	if pidfd, err := rec.Init.handle(); err == nil {
		_ = waitReadable(pidfd, time.Now().Add(time.Second))
		_ = unix.Close(pidfd)
	}
}

// putDown ends an init that has reported its failure, should its filter not let it exit.
func (rec *record) putDown() {
	rec.awaitDeath()
	rec.kill()
	rec.awaitDeath()
}

func (rec *record) kill() {
	if pidfd, err := rec.Init.handle(); err == nil {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		_ = unix.Close(pidfd)
	}
}

// beheaded is errDied if the init's main thread, which is the one to execute the process,
// has ended: a filter with SCMP_ACT_KILL_THREAD leaves the others of a Go program alive, and
// with them our conversation.
func (rec *record) beheaded() error {
	if pidfd, err := rec.Init.handle(); err == nil {
		defer unix.Close(pidfd)
		if exiting(rec.Init.PID) {
			return errDied
		}
	}
	return nil // or it has ended wholly, and the conversation with it
}

// afterFailedHook destroys the container if err is about a hook. After another failure
// it stays, stopped, to be looked at and deleted.
func (r *Runtime) afterFailedHook(e *entry, rec *record, err error) error {
	var about *Error
	if !errors.As(err, &about) || !strings.HasPrefix(about.Field, "/hooks/") {
		return err
	}
	if derr := r.destroy(e, rec); derr != nil {
		r.warn("clean up after failed hook: " + derr.Error())
	}
	return err
}

// awaitExec waits for the end of the conversation. EXEC and then EOF: execve closed the
// connection, or the init was killed in the moment before it. EOF alone: it died earlier.
func awaitExec(conn *namespaces.Conn, rec *record, to func() (agent, error), s *signals) error {
	deadline := rec.startDeadline()
	announced := false
	for {
		kind, payload, _, err := s.recv(conn, deadline, rec.beheaded)
		switch {
		case errors.Is(err, io.EOF) && announced:
			return nil
		case errors.Is(err, io.EOF):
			return errDied
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &Error{
				Err:  fmt.Errorf("the container's init (pid %d) did not answer within %s", rec.Init.PID, startPatience),
				Hint: "is it stopped or frozen? husk delete --force removes the container",
			}
		case errors.Is(err, errDied):
			rec.kill() // it may have other threads than the one that has ended
			return err
		case err != nil:
			return err
		case kind == msgRuns && announced:
			return nil
		case kind == msgStarted:
		case kind == msgListener && announced:
			if err := rec.handOver(conn, payload, to); err != nil {
				return err
			}
		case kind == msgExec:
			announced = true
		default:
			rec.putDown()
			return notExecuted(remoteError(kind, payload))
		}
	}
}

// notExecuted: whatever kept the process from being executed, to a shell it is a command
// that cannot be.
func notExecuted(err error) error {
	if e, ok := err.(*Error); ok && e.Exit == 0 {
		e.Exit = 126
	}
	return err
}

// startDeadline: startContainer hooks run in the init; one without a timeout may take any time.
func (rec *record) startDeadline() time.Time {
	total := startPatience
	for _, seconds := range rec.StartHooks {
		if seconds == 0 {
			return time.Time{}
		}
		total += time.Duration(seconds) * time.Second
	}
	return time.Now().Add(total)
}

// poststart runs the poststart hooks. If one fails the container is stopped and
// destroyed (since runtime-spec 1.3).
func (r *Runtime) poststart(e *entry, rec *record) error {
	state := appendPid(rec.hookState(specs.StateRunning), rec.Init.PID)
	if err := runHooks("poststart", rec.Poststart, rec.Bundle, state); err != nil {
		return r.afterFailedHook(e, rec, err)
	}
	return nil
}
