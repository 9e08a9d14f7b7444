package cgroups

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Delegate makes uid the owner of the group's directory and of those files that
// a delegate must be able to write, and of no others: the limits stay ours
// (cgroups(7), "Delegating a hierarchy").
func (g *Group) Delegate(uid int) error {
	names := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	if list, err := kernfs.Read(unix.AT_FDCWD, "/sys/kernel/cgroup/delegate"); err == nil {
		names = strings.Fields(list)
	}
	for _, name := range append(names, "") {
		err := kernfs.Retry(func() error {
			return unix.Fchownat(g.fd, name, uid, -1, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
		})
		// The list names files of all kernels and controllers.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "delegate cgroup", Path: g.path + "/" + name, Err: err}
		}
	}
	return nil
}
