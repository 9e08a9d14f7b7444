package runtime

import (
	"encoding/binary"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/huskrun/husk/namespaces"
)

// deadChild is a child that has ended and is not waited for.
func deadChild(t *testing.T) *namespaces.Process {
	t.Helper()
	pidfd := -1
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	p := &namespaces.Process{PID: cmd.Process.Pid, FD: os.NewFile(uintptr(pidfd), "pidfd")}
	t.Cleanup(func() { _ = p.FD.Close() })
	if err := waitReadable(pidfd, time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return p
}

// Of a child whose main thread has ended, while the conversation goes on, counts what it
// said: that its own child executes the payload is all it has to say.
func TestAwaitExecEnding(t *testing.T) {
	for name, c := range map[string]struct {
		last  *Step
		tells bool
		want  error
	}{
		"tells of another": {&Step{}, true, nil},
		"is silent":        {&Step{}, false, errMute},
		"announces itself": {nil, true, errMute},
	} {
		t.Run(name, func(t *testing.T) {
			conn, theirs, err := namespaces.Pair()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			defer theirs.Close()
			j := &joining{child: deadChild(t), conn: conn, last: c.last}
			if c.tells {
				pid := binary.LittleEndian.AppendUint32(nil, uint32(deadChild(t).PID))
				if err := theirs.Send(msgExec, pid); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.awaitExec(); err != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
			if j.proc != nil {
				_ = j.proc.FD.Close()
			}
		})
	}
}
