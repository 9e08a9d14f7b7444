package namespaces

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startLast does in the probe what a message asks for: "calls|paths…". It answers
// "pid answers… error".
func startLast(c *Conn) {
	_, order, _, err := c.Recv(time.Time{})
	if err != nil {
		return
	}
	how, paths, _ := strings.Cut(string(order), "|")
	l := Last{Conn: c.FD()}
	l.Calls = []Call{{Trap: unix.SYS_SETSID}}
	if strings.Contains(how, "calls") {
		l.Calls = append(l.Calls, Call{Trap: unix.SYS_SETSID}) // the second time it is EPERM
	}
	if strings.Contains(how, "alone") {
		c.Send(1, nil)
		c.Recv(time.Time{}) // EOF
	}
	l.Paths = must(syscall.SlicePtrFromStrings(strings.Fields(paths)))
	l.Paths = l.Paths[:len(l.Paths)-1]
	l.Argv = must(syscall.SlicePtrFromStrings([]string{"sh", "-c", "exit 7"}))
	l.Envp = must(syscall.SlicePtrFromStrings(nil))
	pid, answers, err := l.Start()
	text := fmt.Sprint(pid)
	for _, a := range answers {
		text += " " + unix.ErrnoName(a)
	}
	if failed := (*CallError)(nil); errors.As(err, &failed) {
		text += fmt.Sprint(" call ", failed.Call, " ", unix.ErrnoName(failed.Err))
	} else if err != nil {
		text += " " + err.Error()
	}
	c.Send(1, []byte(text))
}

func TestLast(t *testing.T) {
	needRoot(t)
	for name, test := range map[string]struct {
		order, want string
		status      int
	}{
		"first path":  {"|/bin/sh", "", 7},
		"second path": {"|/nowhere/sh /bin/sh", "", 7},
		"no path":     {"|/nowhere/sh /etc/passwd/sh /etc/passwd", " ENOENT ENOTDIR EACCES", 1},
		"hard error":  {"|/proc/self/status/x /bin /bin/sh", "", 7},
		"call":        {"calls|/bin/sh", " call 1 EPERM", 1},
	} {
		t.Run(name, func(t *testing.T) {
			ch := launch(t, config(0), "last")
			must(0, ch.conn.Send(1, []byte(test.order)))
			pid, said := heard(t, ch)
			if said != test.want {
				t.Errorf("%q, want %q", said, test.want)
			}
			if status := died(t, pid); status.ExitStatus() != test.status {
				t.Errorf("wait status %#x, want exit %d", status, test.status)
			}
			ch.end()
		})
	}
}

// heard returns the pid, of a child of ours, and what else was answered.
func heard(t *testing.T, ch *child) (pid int, rest string) {
	t.Helper()
	_, payload, _, err := ch.conn.Recv(soon())
	if err != nil {
		t.Fatal(err)
	}
	number, rest, _ := strings.Cut(string(payload), " ")
	if pid, err = strconv.Atoi(number); err != nil {
		t.Fatal(err)
	}
	if rest != "" {
		rest = " " + rest
	}
	return pid, rest
}

func died(t *testing.T, pid int) (status unix.WaitStatus) {
	t.Helper()
	if _, err := retry(func() (int, error) { return unix.Wait4(pid, &status, 0, nil) }); err != nil {
		t.Fatal(err)
	}
	return status
}

// When nobody is left who wanted it, the process does not execute.
func TestLastAbandoned(t *testing.T) {
	needRoot(t)
	ch := launch(t, config(0), "last")
	must(0, ch.conn.Send(1, []byte("alone|/bin/sh")))
	if _, _, _, err := ch.conn.Recv(soon()); err != nil {
		t.Fatal(err)
	}
	ch.conn.Close()
	var status unix.WaitStatus
	for {
		pid := must(retry(func() (int, error) { return unix.Wait4(-1, &status, 0, nil) }))
		if pid != ch.PID {
			break
		}
	}
	if status.ExitStatus() != 1 {
		t.Errorf("wait status %#x", status)
	}
}

// The memory of who is outside is not lent to one who can be traced inside.
func TestLastMemory(t *testing.T) {
	if lastFlags&(unix.CLONE_VM|unix.CLONE_FILES|unix.CLONE_FS|unix.CLONE_SIGHAND|unix.CLONE_THREAD) != 0 {
		t.Errorf("flags %#x", lastFlags)
	}
}
