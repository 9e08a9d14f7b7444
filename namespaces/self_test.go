package namespaces

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLoopbackUp(t *testing.T) {
	needRoot(t)
	_, payload, _, err := launch(t, &Config{New: unix.CLONE_NEWNET}, "loopback").conn.Recv(soon())
	if err != nil || string(payload) != "down, up, up" {
		t.Errorf("%q, %v", payload, err)
	}
}

func tryLoopback() string {
	said := map[bool]string{true: "up", false: "down"}[canConnect()]
	for range 2 { // being up already is not an error
		if err := LoopbackUp(); err != nil {
			return err.Error()
		}
		said += map[bool]string{true: ", up", false: ", down"}[canConnect()]
	}
	return said
}

// canConnect says whether there is a way to 127.0.0.1.
func canConnect() bool {
	fd := must(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}) == nil
}

func TestLoopbackDenied(t *testing.T) {
	if unix.Geteuid() == 0 {
		t.Skip("needs not to be root: it wants the request refused")
	}
	if err := LoopbackUp(); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

// Go raises the soft limit at its start, RestoreNofile (in the probe) takes
// that back, and what the container gets is what husk was started with.
func TestRestoreNofile(t *testing.T) {
	ch := launch(t, &Config{}, "nofile")
	f := ch.facts(t)
	if f.Nofile != 1234 {
		t.Errorf("soft limit %d, want 1234", f.Nofile)
	}
}

// nofile lowers its own limit, lets another Go program raise and restore it
// twice over, and passes on what the last one sees.
func nofile(c *Conn) {
	var lim unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	lim.Cur = 1234
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		panic(err)
	}
	parent, theirs := must2(Pair())
	relay(c, &Config{Exe: must(Sealed(new(Config))), Child: theirs}, parent)
}
