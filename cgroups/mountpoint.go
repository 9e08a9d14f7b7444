package cgroups

import (
	"errors"
	"io/fs"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// mountpoints are the two places where cgroup2 is found by convention
// (systemd's unified and hybrid layouts). Looking there costs one statfs;
// searching /proc/self/mountinfo costs a line for each mount of each container.
var mountpoints = [...]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

var errNoMount = errors.New("there is no cgroup2 file system here nor at /sys/fs/cgroup/unified; " +
	"mount one (mount -t cgroup2 cgroup2 /sys/fs/cgroup) or boot with systemd.unified_cgroup_hierarchy=1")

// Mountpoint returns where cgroup2 is mounted: /sys/fs/cgroup, or
// /sys/fs/cgroup/unified on hosts that still have cgroup v1 beside it.
func Mountpoint() (string, error) {
	fd, name, err := openMount()
	if err != nil {
		return "", err
	}
	kernfs.Close(fd)
	return name, nil
}

// openMount opens the root of the cgroup2 file system. The check is done on the
// open descriptor, so what was checked is what is used.
func openMount() (fd int, name string, err error) {
	for _, name := range mountpoints {
		fd, err := kernfs.Open(unix.AT_FDCWD, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		var st unix.Statfs_t
		err = kernfs.Retry(func() error { return unix.Fstatfs(fd, &st) })
		if err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return fd, name, nil
		}
		kernfs.Close(fd)
	}
	return -1, "", &fs.PathError{Op: "find cgroup2", Path: mountpoints[0], Err: errNoMount}
}
