package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/rootfs"
	"golang.org/x/sys/unix"
)

// A container that a service of systemd makes may say that it is ready, see sd_notify(3):
// NOTIFY_SOCKET in husk's environment gives it a socket of its own in a directory that lies
// beside its record. Who starts the process listens there, and passes on to the manager
// that it is ready, together with the pid by which the manager knows it.
const (
	envNotify  = "NOTIFY_SOCKET"
	notifyDir  = "notify"
	notifySock = "notify.sock"
	notifyAt   = "/run/notify"
)

// barrierPatience is how long the manager may take to note what it was told.
const barrierPatience = 30 * time.Second

// manager is the address of who wants to know, "" for nobody.
func manager() (string, error) {
	name := os.Getenv(envNotify)
	if name == "" || name[0] == '/' && len(name) < 108 || name[0] == '@' && len(name) <= 108 {
		return name, nil
	}
	return "", &Error{
		Err:  fmt.Errorf("%s: %q is not the address of a socket", envNotify, name),
		Hint: "it is an absolute path, or an abstract name that begins with @, of at most 107 bytes; unset it if nobody listens",
	}
}

// notify gives the process the socket, of which it gets the directory: what lies in there
// is made anew by whoever starts it.
func (p *Plan) notify(o *PlanOptions) []rootfs.File {
	if !o.Notify || p.config.Spec.Process == nil {
		return nil
	}
	if !p.isNew(unix.CLONE_NEWNS) {
		p.Warnings = append(p.Warnings, envNotify+": the process cannot tell when it is ready without a mount namespace of its own")
		return nil
	}
	p.Notify = true
	o.Env = append(o.Env, envNotify+"="+path.Join(notifyAt, notifySock))
	return []rootfs.File{{Field: "/process/env", Source: path.Join(o.State, notifyDir), Target: notifyAt}}
}

// makeNotify makes the directory, which users of the container may search.
func (c *creation) makeNotify() error {
	if !c.plan.Notify {
		return nil
	}
	err := unix.Mkdirat(c.entry.fd, notifyDir, 0o755)
	if err == nil {
		err = unix.Fchmodat(c.entry.fd, notifyDir, 0o755, 0) // whatever the caller's umask is
	}
	if err != nil {
		return c.entry.pathError("mkdir", notifyDir, err)
	}
	return nil
}

// notifier listens to a container. One without a socket has nobody to tell.
type notifier struct{ fd int }

// notifier makes the socket, if the container has the place for one and husk somebody to
// tell.
func (e *entry) notifier() (*notifier, error) {
	n := &notifier{-1}
	if name, err := manager(); err != nil || name == "" {
		return n, err
	}
	dir, err := openat(e.fd, notifyDir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT {
		return n, nil
	}
	if err == nil {
		defer unix.Close(dir)
		n.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	// Not where the container could put another file in its place, until it is as it shall be.
	if err == nil {
		_ = unlinkat(e.fd, notifySock, 0) // of a start that was killed
		err = unix.Bind(n.fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(e.fd) + "/" + notifySock})
	}
	if err == nil {
		err = unix.Fchmodat(e.fd, notifySock, 0o666, 0) // for every user of the container
	}
	if err == nil {
		err = unix.Renameat(e.fd, notifySock, dir, notifySock)
	}
	if err != nil {
		n.close()
		return n, e.pathError("listen", notifyDir+"/"+notifySock, err)
	}
	return n, nil
}

func (n *notifier) close() {
	if n.fd >= 0 {
		_ = unix.Close(n.fd)
		n.fd = -1
	}
}

// removeNotify removes the directory and whatever a privileged container has left in it.
func (e *entry) removeNotify() error {
	return os.RemoveAll("/proc/self/fd/" + strconv.Itoa(e.fd) + "/" + notifyDir)
}

// relayFor is relay for a container in the background, which others can handle meanwhile.
func (n *notifier) relayFor(e *entry, rec *record) error {
	if n.fd < 0 {
		return nil
	}
	pidfd, err := rec.Init.handle()
	if err != nil { // it has ended
		return nil
	}
	defer unix.Close(pidfd)
	_ = unix.Flock(e.fd, unix.LOCK_UN)
	return n.relay(rec.Init.PID, pidfd)
}

// relayBeside is relay for one in the foreground, until it ends.
func (n *notifier) relayBeside(c *creation) {
	if n.fd < 0 {
		return
	}
	own := &notifier{n.fd}
	n.fd = -1
	pidfd := dup(int(c.proc.FD.Fd()))
	go func() {
		defer unix.Close(pidfd)
		if err := own.relay(c.rec.Init.PID, pidfd); err != nil {
			c.warn(err.Error())
		}
	}()
}

// relay waits until the process says that it is ready, or ends; the manager has noted it
// when it returns.
func (n *notifier) relay(pid, pidfd int) error {
	if n.fd < 0 {
		return nil
	}
	defer n.close()
	ready, err := n.await(pidfd)
	if err == nil && ready != "" {
		err = tell(ready + "\nMAINPID=" + strconv.Itoa(pid) + "\n")
	}
	if err != nil {
		return &Error{Err: fmt.Errorf("%s: %w", envNotify, err), Hint: "the process runs; its service manager does not know that it is ready"}
	}
	return nil
}

// await returns the line that says so, "" if the process ends without.
func (n *notifier) await(pidfd int) (string, error) {
	buf := make([]byte, 4096)
	for {
		fds := []unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := retry(func() (int, error) { return unix.Poll(fds, -1) }); err != nil {
			return "", os.NewSyscallError("poll", err)
		}
		if fds[0].Revents == 0 {
			return "", nil
		}
		size, err := retry(func() (int, error) { return unix.Read(n.fd, buf) })
		if err != nil {
			return "", os.NewSyscallError("read", err)
		}
		for line := range strings.Lines(string(buf[:size])) {
			if strings.HasPrefix(line, "READY=") {
				return strings.TrimSuffix(line, "\n"), nil
			}
		}
	}
}

// tell sends the manager a message, and a barrier behind it: a pipe's end that it closes
// when it has come to it.
func tell(message string) error {
	name, err := manager()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	// A manager that reads nothing must not keep us for ever once its queue is full.
	tv := unix.NsecToTimeval(int64(barrierPatience))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	to := &unix.SockaddrUnix{Name: name}
	send := func(text string, rights []byte) error {
		err := retryErr(func() error { return unix.Sendmsg(fd, []byte(text), rights, to, 0) })
		if err != nil {
			return &fs.PathError{Op: "send to", Path: name, Err: err}
		}
		return nil
	}
	if err := send(message, nil); err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe", err)
	}
	defer unix.Close(pipe[0])
	err = send("BARRIER=1", unix.UnixRights(pipe[1]))
	_ = unix.Close(pipe[1])
	if err != nil {
		return err
	}
	if err = waitReadable(pipe[0], time.Now().Add(barrierPatience)); errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%s did not answer within %s", name, barrierPatience)
	}
	return err
}
