package rootfs

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// user makes the user namespaces of id-mapped mounts: the container's own is that
// of userns.
func (b *bundle) user(m *IDMap) int {
	b.t.Helper()
	convert := func(maps []specs.LinuxIDMapping) (list []syscall.SysProcIDMap) {
		for _, r := range maps {
			list = append(list, syscall.SysProcIDMap{ContainerID: int(r.ContainerID), HostID: int(r.HostID), Size: int(r.Size)})
		}
		if list == nil {
			list = []syscall.SysProcIDMap{{HostID: firstID, Size: 65536}}
		}
		return list
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: convert(m.UIDs), GidMappings: convert(m.GIDs), Pdeathsig: unix.SIGKILL,
	}
	must(b.t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	f, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user")
	must(b.t, err)
	b.t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// needIDMap skips where tmpfs cannot be id-mapped, as before Linux 6.3.
func needIDMap(b *bundle) {
	fd, err := newMount("tmpfs", "", nil, 0)
	must(b.t, err)
	defer shut(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(b.user(&IDMap{}))}
	if mountSetattr(fd, 0, &attr) == unix.EINVAL {
		b.t.Skip("this kernel cannot id-map a tmpfs")
	}
}

func one(container, host uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: container, HostID: host, Size: 1}}
}

// The owners that are seen through id-mapped mounts, in the container's ids.
func TestIDMap(t *testing.T) {
	for _, tt := range []struct {
		name   string
		userns bool
		mount  specs.Mount
		want   string // of /tmp/m and what is in it
	}{
		{
			"bind, own mapping", false,
			specs.Mount{Options: []string{"rbind"}, UIDMappings: one(0, 5), GIDMappings: one(0, 6)},
			"/tmp/m 40755 5:6 0:0\n/tmp/m/sub 41777 0:0 0:0\n",
		},
		{
			"all of it", false,
			specs.Mount{Options: []string{"rbind", "ridmap"}, UIDMappings: one(0, 5), GIDMappings: one(0, 6)},
			"/tmp/m 40755 5:6 0:0\n/tmp/m/sub 41777 5:6 0:0\n",
		},
		{
			"bind, mapping of the container", true,
			specs.Mount{Options: []string{"rbind", "idmap"}},
			"/tmp/m 40755 0:0 0:0\n/tmp/m/sub 41777 65534:65534 0:0\n",
		},
		{
			"all of it, mapping of the container", true,
			specs.Mount{Options: []string{"rbind", "ridmap"}},
			"/tmp/m 40755 0:0 0:0\n/tmp/m/sub 41777 0:0 0:0\n",
		},
		{
			"own mapping beside one of the container", true,
			specs.Mount{Options: []string{"rbind"}, UIDMappings: one(0, firstID+5), GIDMappings: one(0, firstID+6)},
			"/tmp/m 40755 5:6 0:0\n/tmp/m/sub 41777 65534:65534 0:0\n",
		},
		{
			"tmpfs", false,
			specs.Mount{Type: "tmpfs", Options: []string{"uid=3"}, UIDMappings: one(3, 5), GIDMappings: one(0, 6)},
			"/tmp/m 40751 5:6 0:0\n",
		},
		{
			"tmpfs, mapping of the container", true,
			specs.Mount{Type: "tmpfs", Options: []string{"idmap", "ro", "rnosuid", "shared"}},
			"/tmp/m 40751 0:0 0:0\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBundle(t)
			needIDMap(b)
			hostMount(t, "none", b.dir+"/src", "tmpfs", 0, "mode=755")
			hostMount(t, "none", b.dir+"/src/sub", "tmpfs", 0, "mode=1777")
			b.mkdir("tmp/m", 0o751)
			if tt.userns {
				b.userns()
			}
			tt.mount.Source, tt.mount.Destination = b.dir+"/src", "/tmp/m"
			spec := &specs.Spec{Mounts: []specs.Mount{tt.mount}}
			names := []string{"/tmp/m"}
			if tt.mount.Type == "" {
				names = append(names, "/tmp/m/sub")
			}
			if diff := cmp.Diff(tt.want, b.must(spec, "stat", names...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
