package namespaces

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Within is there and back again, also if the function fails.
func TestWithin(t *testing.T) {
	needRoot(t)
	for _, n := range names {
		if n.flag&(unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP) == 0 {
			continue
		}
		cmd := exec.Command("unshare", "--net", "--ipc", "--uts", "--cgroup", "sleep", "60")
		out := must(cmd.StdoutPipe())
		cmd.Args = []string{"unshare", "--net", "--ipc", "--uts", "--cgroup", "sh", "-c", "echo; exec sleep 60"}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		must(out.Read(make([]byte, 1)))
		path := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/" + n.name
		ours, theirs := must(os.Readlink("/proc/thread-self/ns/"+n.name)), must(os.Readlink(path))
		fault := errors.New("x")
		err := Within(path, n.flag, func() error {
			if got := must(os.Readlink("/proc/thread-self/ns/" + n.name)); got != theirs || got == ours {
				t.Errorf("%s: in %s, want %s", n.name, got, theirs)
			}
			return fault
		})
		if err != fault {
			t.Error(err)
		}
		if got := must(os.Readlink("/proc/thread-self/ns/" + n.name)); got != ours {
			t.Errorf("%s: back in %s, was %s", n.name, got, ours)
		}
		if Owned(path, n.flag, path) || !Owned(path, n.flag, "/proc/self/ns/user") {
			t.Errorf("%s: wrong owner", n.name)
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	if err := Within("/proc/self/ns/user", unix.CLONE_NEWUSER, func() error { return nil }); err == nil {
		t.Error("a user namespace was visited")
	}
	if err := Within("/nowhere", unix.CLONE_NEWNET, func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
