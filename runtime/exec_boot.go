package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// start makes the process and returns once it has executed the payload.
func (j *joining) start() error {
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	err := j.boot()
	if errors.Is(err, unix.EACCES) && j.group != nil && j.rec.UserUnit {
		// A user's shell is outside of what the user's systemd was given.
		j.abandon()
		j.spawn.Place = j.attach
		err = j.boot()
	}
	if errors.Is(err, namespaces.ErrKilled) || err == errMute && j.stillborn() {
		// Nothing can be born in this cgroup (respawn.go).
		j.abandon()
		j.spawn.Place = j.group.Add
		err = j.boot()
	}
	if err != nil {
		err = j.explain(err)
		j.abandon()
	}
	return err
}

// attach has systemd move the child into the cgroup.
func (j *joining) attach(pid int) error {
	m, err := j.rec.unit().Connect(busPatience)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Attach(j.rec.unit(), j.below, pid)
}

func (j *joining) boot() (err error) {
	j.spawn.Cgroup = -1
	if j.group != nil && j.spawn.Place == nil {
		j.spawn.Cgroup = j.group.FD()
	}
	err = onCPUs(j.first, func() (err error) {
		j.child, j.conn, err = launch(&j.spawn)
		return err
	})
	if err != nil {
		return err
	}
	if err = j.joinClass(); err != nil {
		return err
	}
	if j.agent != nil && j.last != nil {
		// The listener is that of a process which we know nothing of yet.
		if err = j.conn.AskSender(); err != nil {
			return err
		}
	}
	if err = setOOMScore(j.child.PID, j.oom); err != nil {
		return err
	}
	if err = raiseLimits(j.child.PID, j.steps); err != nil {
		return err
	}
	if j.user {
		prioritize(j.child.PID, j.steps, true)
	}
	if !j.o.Detach && j.signals == nil {
		j.signals = catchSignals() // with the plan the process is on its way
	}
	// Where nobody takes the plan any more, the reason was left for us.
	if err = j.sendPlan(); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return j.awaitExec()
}

// sendPlan sends the steps and what they need: for a child outside, the procfs that
// shows it, and the container's init, whose PID namespace it enters.
// A root that only leads from that init's comes along, too.
func (j *joining) sendPlan() error {
	var fds []int
	if j.last != nil {
		proc, err := openPath("/proc", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return &os.PathError{Op: "open", Path: "/proc", Err: err}
		}
		defer unix.Close(proc)
		fds = append(fds, proc, j.init)
	}
	if j.visits {
		path := "/proc/" + strconv.Itoa(j.rec.Init.PID) + "/root"
		root, err := openPath(path, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return orStopped(&os.PathError{Op: "open", Path: path, Err: err})
		}
		defer unix.Close(root)
		if unix.PidfdSendSignal(j.init, 0, nil, 0) == unix.ESRCH {
			return errExecStopped() // the number may be another's by now
		}
		fds = append(fds, root)
	}
	return j.conn.Send(msgPlan, encodeSteps(j.steps), fds...)
}

// stallCheck is how long a process may be silent before we look whether it is frozen.
const stallCheck = 250 * time.Millisecond

// errMute says that the child ended without a word.
var errMute = errors.New("the process died before it executed the program")

// awaitExec serves the process until execve. Who can trace the payload in the moment
// before its execve can take the conversation out of its hands: so a message that is not
// due, or names a process that is not our child, ends it all.
func (j *joining) awaitExec() error {
	j.due = j.script()
	deadline := time.Now().Add(patience)
	stalled := func() error { return j.stalled(&deadline) }
	for {
		kind, payload, fds, err := j.signals.recv(j.conn, time.Time{}, stalled)
		switch {
		case errors.Is(err, io.EOF) && len(j.due) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return errMute
		case err != nil:
			return err
		default:
			err := j.hear(kind, payload, fds)
			closeAll(fds)
			if err != nil {
				return err
			}
		}
	}
}

// script lists the messages that are to come. A child that executes the payload itself
// announces that before its filter might forbid it; of another process it tells when that
// has executed.
func (j *joining) script() (kinds []byte) {
	if j.terminal {
		kinds = append(kinds, msgReady)
	}
	switch {
	case j.agent == nil:
		return append(kinds, msgExec)
	case j.last == nil:
		return append(kinds, msgExec, msgListener)
	}
	return append(kinds, msgListener, msgExec)
}

// hear acts upon one message.
func (j *joining) hear(kind byte, payload []byte, fds []int) error {
	if len(j.due) == 0 || kind != j.due[0] {
		return remoteError(kind, payload)
	}
	j.due = j.due[1:]
	switch {
	case kind == msgReady:
		return j.ready(fds)
	case kind == msgListener:
		return j.handOver(payload)
	case j.last == nil:
		return nil
	case len(payload) != 4:
		return errWire
	}
	return j.take(int(binary.LittleEndian.Uint32(payload)))
}

// handOver gives the agent the listener of the payload's filter.
func (j *joining) handOver(payload []byte) error {
	proc := j.child
	if j.last != nil {
		if err := j.take(j.conn.Sender); err != nil {
			return err
		}
		proc = j.proc
	}
	return handOver(j.conn, payload, int(proc.FD.Fd()), proc.PID, j.agent)
}

// take notes the payload's process, which our child has made as a child of ours.
func (j *joining) take(pid int) error {
	if j.proc != nil {
		if pid != j.proc.PID {
			return errWire
		}
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	if _, err = waitid(unix.P_PIDFD, fd, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT); err != nil || pid == j.child.PID {
		_ = unix.Close(fd)
		return errWire
	}
	j.proc = &namespaces.Process{PID: pid, FD: os.NewFile(uintptr(fd), "pidfd")}
	return nil
}

// stalled decides whether to go on waiting for a process that says nothing. A paused
// container stands still as long as it pleases whoever paused it.
func (j *joining) stalled(deadline *time.Time) error {
	switch {
	case exiting(j.child.PID) && j.last != nil && len(j.due) == 0:
		return io.EOF // it has told all that it had to, and takes its time to end
	case exiting(j.child.PID):
		return errMute // see record.beheaded
	case j.group != nil && j.group.Frozen() && j.o.IgnorePaused:
		*deadline = time.Now().Add(patience)
	case j.group != nil && j.group.Frozen():
		return errPaused
	case time.Now().After(*deadline):
		return fmt.Errorf("the process did not come to its execve within %s", patience)
	}
	return nil
}

// ready takes the terminal.
func (j *joining) ready(fds []int) error {
	foreground := j.o.Terminal
	if j.o.ConsoleSocket != "" {
		foreground = nil
	}
	if err := deliverTerminal(fds, j.o.ConsoleSocket, foreground); err != nil {
		return err
	}
	return j.conn.Send(msgGo, []byte{goStart})
}

// stillborn says whether the child was killed before it executed husk.
func (j *joining) stillborn() bool {
	return j.group != nil && j.spawn.Place == nil && onlyForked(j.child.PID)
}

// explain says what is behind an error that may only tell of the container's end.
func (j *joining) explain(err error) error {
	about, _ := errors.AsType[*Error](err)
	entering := about != nil && about.Field == "/linux/namespaces" // or being born there
	if (entering || about == nil) && j.ending() {
		return errExecStopped()
	}
	if err == errMute {
		if oom := outOfMemory("the process", j.group, nil); oom != nil {
			return oom
		}
		if j.child != nil && exiting(j.child.PID) {
			if _, ok := forbiddenCall(j.child.PID, j.rec.Created); ok {
				return j.filtered("the process, before it executed the program,", j.child.PID, j.rec.Created, nil)
			}
		}
		return j.crowded()
	}
	return err
}

// crowded is errMute with what is likely behind it where the container may have few
// processes: until it executes, one that joins has the threads of a Go program.
func (j *joining) crowded() error {
	const needed = 6
	if j.group == nil {
		return errMute
	}
	s, err := j.group.Stats()
	if err != nil || s.Pids == nil || s.Pids.Limit == math.MaxUint64 || s.Pids.Limit >= s.Pids.Current+needed {
		return errMute
	}
	return &Error{
		Field: "/linux/resources/pids/limit",
		Err:   fmt.Errorf("%w; the container may have %d processes, and has %d", errMute, s.Pids.Limit, s.Pids.Current),
		Hint:  fmt.Sprintf("a process that joins needs up to %d for a moment: raise the limit, or end some", needed),
	}
}

// ending says whether the container's init has ended, or has begun to: it cannot finish
// before its namespace is empty, and that may be for us to do.
func (j *joining) ending() bool {
	if waitReadable(j.init, time.Now().Add(stallCheck)) == nil {
		return true
	}
	return exiting(j.rec.Init.PID)
}

// abandon ends what has not become the payload.
func (j *joining) abandon() {
	if j.conn != nil {
		_ = j.conn.Close()
	}
	for _, p := range []*namespaces.Process{j.child, j.proc} {
		if p == nil {
			continue
		}
		_ = unix.PidfdSendSignal(int(p.FD.Fd()), unix.SIGKILL, nil, 0)
		reap(p)
	}
	j.child, j.proc, j.conn = nil, nil, nil
}

// reap waits for the end of a child that is dying.
func reap(p *namespaces.Process) (siginfo, error) {
	defer p.FD.Close()
	pidfd := int(p.FD.Fd())
	if err := waitReadable(pidfd, time.Now().Add(killPatience)); err != nil {
		return siginfo{}, err
	}
	return waitPidfd(pidfd)
}

// finish reports the process that runs, and stays with it unless it is detached.
func (j *joining) finish() (int, error) {
	if j.last == nil {
		j.child, j.proc = nil, j.child
	} else {
		_, _ = reap(j.child)
		j.child = nil
	}
	err := writePidFile(j.o.PidFile, j.proc.PID)
	if err == nil {
		err = deliverPidfd(j.proc, j.o.PidfdSocket, "setns")
	}
	if err != nil {
		removePidFile(j.o.PidFile, j.proc.PID)
		j.abandon()
		return -1, err
	}
	if j.o.Detach {
		return 0, nil
	}
	return j.wait()
}

func (j *joining) wait() (int, error) {
	pidfd := int(j.proc.FD.Fd())
	j.signals.forward(pidfd)
	if err := waitReadable(pidfd, time.Time{}); err != nil {
		return -1, err
	}
	info, err := waitPidfd(pidfd)
	return info.exitStatus(), err
}

// close gives up our descriptors.
func (j *joining) close() {
	j.signals.stop()
	if j.conn != nil {
		_ = j.conn.Close()
	}
	for _, p := range []*namespaces.Process{j.child, j.proc} {
		if p != nil {
			_ = p.FD.Close()
		}
	}
	if j.group != nil {
		j.group.Close()
	}
	if j.init >= 0 {
		_ = unix.Close(j.init)
	}
	if j.entry != nil {
		j.entry.close()
	}
}
