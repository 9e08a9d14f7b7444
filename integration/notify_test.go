package integration

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A serviceManager listens as systemd does.
type serviceManager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return &serviceManager{t, conn}
}

// told reads a message and the descriptor with it, -1 for none.
func (m *serviceManager) told() (text string, fd int) {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(patience(10 * time.Second)))
	buf, oob := make([]byte, 4096), make([]byte, 64)
	n, rights, _, _, err := m.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		m.t.Fatalf("nothing is told: %v", err)
	}
	list, _ := unix.ParseSocketControlMessage(oob[:rights])
	if len(list) == 0 {
		return string(buf[:n]), -1
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) != 1 {
		m.t.Fatalf("%v descriptors: %v", fds, err)
	}
	return string(buf[:n]), fds[0]
}

// The service manager learns when the process is ready, and its pid; who waits for that
// neither returns earlier nor keeps others from the container.
func TestNotify(t *testing.T) {
	const script = `/probe notify STATUS=up; until [ -e /go ]; do sleep 0.01; done
/probe notify "STATUS=there
READY=1
EXTEND=1"; exec sleep 1000`
	for _, c := range []struct {
		name, first string
		args        []string
		owner       int
	}{
		{"start", "create", []string{"start"}, 0},
		{"user namespace", "create", []string{"start"}, 100000},
		{"detached", "", []string{"run", "--detach"}, 0},
		{"foreground", "", []string{"run"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			box(t, func(t *testing.T) {
				m := newServiceManager(t)
				b := newOwnedBundle(t, c.owner, func(s *specs.Spec) {
					shell(script)(s)
					if c.owner > 0 {
						mapped(s)
						s.Process.User = specs.User{UID: 7, GID: 7}
					}
				})
				if c.first != "" {
					b.must(c.first, "c1")
				}
				done := make(chan result, 1)
				go func() { done <- b.husk(append(c.args, "c1")...) }()
				b.waitFor("c1", specs.StateRunning)
				returns(t, done, false)
				if err := os.WriteFile(b.rootfs("go"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
				state, _ := b.state("c1")
				if text, _ := m.told(); text != "READY=1\nMAINPID="+strconv.Itoa(state.Pid)+"\n" {
					t.Errorf("told %q of pid %d", text, state.Pid)
				}
				text, fd := m.told()
				if text != "BARRIER=1" || fd < 0 {
					t.Errorf("told %q with descriptor %d", text, fd)
				}
				returns(t, done, false)
				unix.Close(fd)
				if c.name == "foreground" {
					b.must("kill", "c1", "KILL")
				}
				if r := returns(t, done, true); r.code != 0 && c.name != "foreground" {
					t.Errorf("exit status %d: %s", r.code, r.stderr)
				}
				b.must("delete", "-f", "c1")
			})
		})
	}
}

// A privileged container can write where its socket will be, but neither have husk use
// another file nor keep itself from being deleted. A second start changes nothing.
func TestNotifyHostile(t *testing.T) {
	box(t, func(t *testing.T) {
		m := newServiceManager(t)
		victim := filepath.Join(t.TempDir(), "victim")
		must(t, os.WriteFile(victim, nil, 0o600))
		b := newBundle(t, func(s *specs.Spec) {
			shell("until [ -e /go ]; do sleep 0.01; done; /probe notify READY=1; exec sleep 1000")(s)
			s.Process.Capabilities = withCaps("CAP_SYS_ADMIN")
		})
		b.must("create", "c1")
		b.must("exec", "c1", "/bin/sh", "-c", "mount -o remount,rw,bind /run/notify && cd /run/notify && mkdir -p a/b && ln -s "+victim+" notify.sock")
		done := make(chan result, 1)
		go func() { done <- b.husk("start", "c1") }()
		b.waitFor("c1", specs.StateRunning)
		if r := b.husk("start", "c1"); r.code != 1 || !strings.Contains(r.stderr, "running") {
			t.Errorf("a second start: %d, %s", r.code, r.stderr)
		}
		must(t, os.WriteFile(b.rootfs("go"), nil, 0o644))
		if text, _ := m.told(); !strings.HasPrefix(text, "READY=1\n") {
			t.Errorf("told %q", text)
		}
		_, fd := m.told()
		unix.Close(fd)
		returns(t, done, true)
		b.must("delete", "-f", "c1")
		if st, err := os.Stat(victim); err != nil || st.Mode() != 0o600 {
			t.Errorf("the victim: %v, %v", st.Mode(), err)
		}
	})
}

// returns says how a command ends, if it does.
func returns(t *testing.T, done chan result, want bool) (r result) {
	t.Helper()
	wait := 50 * time.Millisecond
	if want {
		wait = patience(10 * time.Second)
	}
	select {
	case r = <-done:
		if !want {
			t.Fatalf("returned: %d, %s", r.code, r.stderr)
		}
	case <-time.After(wait):
		if want {
			t.Fatal("does not return")
		}
	}
	return r
}

// What may go wrong with it.
func TestNotifyErrors(t *testing.T) {
	box(t, func(t *testing.T) {
		newServiceManager(t)
		b := newBundle(t, shell("exit 0"))
		b.must("run", "--detach", "c1") // ends without a word
		b.must("delete", "c1")

		b.write(shell(`test -S "$NOTIFY_SOCKET" && echo made >/run/notify/file`))
		if r := b.husk("run", "c1"); r.code == 0 || !strings.Contains(r.stderr, "Read-only file system") {
			t.Errorf("exit status %d: %s", r.code, r.stderr)
		}
		if err := os.Remove(os.Getenv("NOTIFY_SOCKET")); err != nil {
			t.Fatal(err)
		}
		b.write(shell("/probe notify READY=1; exec sleep 1000"))
		r := b.husk("run", "--detach", "c1")
		if r.code != 1 || !strings.Contains(r.stderr, "NOTIFY_SOCKET: send to /") || !strings.Contains(r.stderr, "hint: the process runs") {
			t.Errorf("exit status %d: %s", r.code, r.stderr)
		}
		b.must("delete", "-f", "c1")

		t.Setenv("NOTIFY_SOCKET", "notify")
		if r := b.husk("create", "c1"); r.code != 1 || !strings.Contains(r.stderr, `NOTIFY_SOCKET: "notify" is not the address of a socket`) {
			t.Errorf("exit status %d: %s", r.code, r.stderr)
		}
		t.Setenv("NOTIFY_SOCKET", "")
		b.write(probeArgs("env"))
		if f := b.look(); strings.Contains(f.one("env"), "NOTIFY_SOCKET") {
			t.Error(f["env"])
		}
	})
}
