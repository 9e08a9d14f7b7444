package namespaces

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A user namespace of NewUser has the maps, and no process is left in it.
func TestNewUser(t *testing.T) {
	needRoot(t)
	uids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}, {ContainerID: 77, HostID: 5, Size: 1}}
	user := must(NewUser(uids, mapped))
	defer user.Close()
	if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WALL, nil); err != unix.ECHILD {
		t.Error("a child is left:", err)
	}
	cmd := exec.Command("nsenter", "--user=/proc/self/fd/3", "cat", "/proc/self/uid_map", "/proc/self/gid_map")
	cmd.ExtraFiles = []*os.File{user}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("nsenter: %v: %s", err, out)
	}
	want := "0 1000 10\n77 5 1\n0 100000 65536\n"
	if got := strings.Join(strings.Fields(string(out)), " "); got != strings.Join(strings.Fields(want), " ") {
		t.Errorf("maps %q, want %q", got, want)
	}
}

// Maps that the kernel refuses are an error, which leaves nothing.
func TestNewUserFails(t *testing.T) {
	needRoot(t)
	before := must(os.ReadDir("/proc/self/fd"))
	overlap := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}, {ContainerID: 5, HostID: 5, Size: 1}}
	if user, err := NewUser(overlap, mapped); err == nil || !strings.Contains(fmt.Sprint(err), "uid_map") {
		t.Error(user, err)
	}
	if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WALL, nil); err != unix.ECHILD {
		t.Error("a child is left:", err)
	}
	if after := must(os.ReadDir("/proc/self/fd")); len(after) != len(before) {
		t.Errorf("%d descriptors, before %d", len(after), len(before))
	}
}

func BenchmarkNewUser(b *testing.B) {
	for b.Loop() {
		must(NewUser(mapped, mapped)).Close()
	}
}
