package runtime

import (
	"os"
	"os/signal"
	"syscall"

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
	_ = i.conn.Close() // by which start learns of the success
	go func() {
		for s := range signals {
			_ = unix.Kill(pid, s.(syscall.Signal))
		}
	}()
	os.Exit(reapUntil(pid))
	return nil
}

// reapUntil reaps all children until pid has ended, and returns its status.
func reapUntil(pid int) int {
	for {
		info, err := waitid(unix.P_ALL, 0, unix.WEXITED)
		if err != nil {
			return 1
		}
		if info.pid == pid {
			return info.exitStatus()
		}
	}
}
