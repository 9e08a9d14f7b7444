package runtime

import (
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// supervise executes the process as a child of this one, which stays, as AnnotationInit
// says, and returns only if that fails. The child is born like the payload of an exec.
func (i *initer) supervise(paths, argv, envp []*byte) []unix.Errno {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	pid, answers := i.startLast(paths, argv, envp)
	if len(answers) > 0 {
		return answers
	}
	_ = i.conn.Send(msgRuns, nil)
	shedRights(i.birth)
	go func() {
		for s := range signals {
			_ = unix.Kill(pid, s.(syscall.Signal))
		}
	}()
	info := reapUntil(pid)
	_ = i.conn.Send(msgEnded, []byte{byte(info.signal)}) // start hung up long ago, run did not
	os.Exit(info.exitStatus())
	return nil
}

// shedRights takes from all threads what only the main one has given up: the Go runtime
// started the others with the rights of who makes the container. The processes of the
// container see them, if not more. What they need is to pass signals on: as the process's
// user, or by CAP_KILL if the process has that. Each call stops all of them, so it is only
// made if there is a change: born is the user that the threads began as.
func shedRights(born int) {
	have, err := permitted()
	if err != nil {
		have = 0
	}
	const kill = 1 << unix.CAP_KILL
	header, data := capData(have&kill, have&kill, 0)
	// On the main thread, which is like that already, none of them can fail, and on the
	// others, which have all rights, neither.
	if now := unix.Getuid(); now != born {
		uid := uintptr(now)
		_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
		_, _, _ = syscall.AllThreadsSyscall(unix.SYS_SETRESUID, uid, uid, uid)
	}
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&data[0])), 0)
	_ = prctl(unix.PR_SET_DUMPABLE, 0, 0) // as after any change of rights
}

// reapUntil reaps all children until pid has ended, and returns how.
func reapUntil(pid int) siginfo {
	for {
		info, err := waitid(unix.P_ALL, 0, unix.WEXITED)
		if err != nil {
			return siginfo{code: 1}
		}
		if info.pid == pid {
			return info
		}
	}
}

// told asks an init that stayed, and is dead, which signal has killed the process.
func (c *creation) told(info siginfo) siginfo {
	if info.signal != 0 {
		return info
	}
	for {
		kind, payload, fds, err := c.conn.Recv(time.Now())
		closeAll(fds)
		switch {
		case err != nil:
			return info
		case kind == msgEnded && len(payload) == 1:
			info.signal = int(payload[0])
			return info
		}
	}
}
