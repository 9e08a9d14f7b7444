package namespaces

import (
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 0 && os.Args[0] == "probe" {
		probe()
	}
	os.Exit(m.Run())
}

func probe() {
	c := FromFD(3)
	c.Send(1, []byte(fmt.Sprint(os.Getpid(), os.Getuid())))
	os.Exit(0)
}

func TestSmoke(t *testing.T) {
	goruntime.LockOSThread()
	exe, err := Sealed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealOverlay(); err != nil {
		t.Error(err)
	}
	parent, child, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Spawn(&Config{New: 0x7e020080, Exe: exe, Args: []string{"probe"}, Cgroup: -1, Child: child})
	if err != nil {
		t.Fatal(err)
	}
	for {
		k, b, fds, err := parent.Recv(time.Now().Add(5 * time.Second))
		t.Logf("%v %q %v %v %v", k, b, fds, err, p.PID)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var ws unix.WaitStatus
	unix.Wait4(p.PID, &ws, 0, nil)
	t.Log(ws)
}
