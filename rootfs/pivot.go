package rootfs

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pivot makes the container's root "/" and throws the old one away.
func (r *Root) pivot(s *Step) error {
	if err := r.Proc().err; err != nil {
		return err
	}
	if s.has(FlagEntered) && !r.above {
		return nil
	}
	old, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fact("open", "/", err)
	}
	defer shut(old)
	if err := fchdir(r.fd); err != nil {
		return fact("fchdir", r.at, err)
	}
	// pivot_root(2): new and old may be the same directory; the old root then
	// lies on top of the new one and can be unmounted from there.
	if err := pivotRoot(".", "."); err != nil {
		return fact("pivot_root", r.at, err)
	}
	if err := fchdir(old); err != nil {
		return fact("fchdir", "old root", err)
	}
	// Unmounting must not travel to the host through a mount that is shared.
	slave := unix.MountAttr{Propagation: unix.MS_SLAVE}
	if err := mountSetattr(old, unix.AT_RECURSIVE, &slave); err != nil {
		return fact("mount_setattr", "old root", err)
	}
	// Of mounts on the directory the last comes first: what our root was built on, if
	// that was "/". The old root is gone when there is nothing left to unmount.
	if err := umount(".", unix.MNT_DETACH); err != nil {
		return fact("umount", "old root", err)
	}
	for umount(".", unix.MNT_DETACH) == nil {
	}
	r.at = "/"
	if err := chdir("/"); err != nil {
		return fact("chdir", "/", err)
	}
	up, err := statx(unix.AT_FDCWD, "..", 0)
	if err == nil && !r.isRoot(&up) {
		err = errOldRoot
	}
	return fact("pivot_root", "old root", err)
}

var errOldRoot = errors.New("something of it is left above the container's root")

// move does without pivot_root(2): the container's root is moved over "/" and
// entered. The host's mounts stay below; its procfs and sysfs are taken away,
// because a user namespace that has them may mount new ones, without masks.
func (r *Root) move(s *Step) error {
	if err := r.Proc().err; err != nil {
		return err
	}
	if err := r.coverHost(); err != nil {
		return err
	}
	slash, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fact("open", "/", err)
	}
	defer shut(slash)
	if r.at != "/" {
		if err := moveMount(r.fd, slash); err != nil {
			return fact("move_mount", "/", err)
		}
	}
	r.at = "/"
	return r.enter()
}

func (r *Root) enter() error {
	if err := fchdir(r.fd); err != nil {
		return fact("fchdir", r.at, err)
	}
	if err := chroot("."); err != nil {
		return fact("chroot", r.at, err)
	}
	return fact("chdir", "/", chdir("/"))
}

// chroot enters a directory without any mount.
func (r *Root) chroot(s *Step, fd int) error {
	if fd < 0 {
		var err error
		if fd, err = openat(unix.AT_FDCWD, s.Source, unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return fact("open", s.Source, err)
		}
	}
	if err := r.Proc().err; err != nil {
		shut(fd)
		return err
	}
	r.at = s.Source
	if err := r.setRoot(fd); err != nil {
		return err
	}
	return r.enter()
}

// Visit enters a mount namespace that is not the container's own, and takes the
// finished root along: a copy that is attached nowhere, so that nobody in there sees
// what the container has mounted, and that ends with its last user. The namespace in
// which it was made goes with the threads of this program. Only a thread with a root
// directory of its own may change the namespace.
func (r *Root) Visit(ns int) error {
	tree, err := clone(r.fd, unix.AT_RECURSIVE)
	if err != nil {
		return fact("open_tree", "/", err)
	}
	if err := r.setRoot(tree); err != nil {
		return err
	}
	if err := unshare(unix.CLONE_FS); err != nil {
		return fact("unshare", "", err)
	}
	if err := setns(ns, unix.CLONE_NEWNS); err != nil {
		return fact("setns", "mount namespace", err)
	}
	return r.enter()
}

// coverHost takes away every procfs and sysfs that is not below our root.
func (r *Root) coverHost() error {
	table, err := r.proc.Read("thread-self/mountinfo", 16<<20)
	if err != nil {
		return err
	}
	for _, where := range hostMounts(string(table), r.id[0]) {
		if err := takeAway(where); err != nil {
			return fact("umount", where, err)
		}
	}
	return nil
}

// takeAway unmounts; what a user namespace may not unmount, it covers.
func takeAway(where string) error {
	err := umount(where, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != unix.EINVAL && err != unix.EPERM {
		return err
	}
	target, err := openat(unix.AT_FDCWD, where, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(target)
	fd, err := newEmpty(nil)
	if err != nil {
		return err
	}
	defer shut(fd)
	return moveMount(fd, target)
}

// hostMounts reads a mountinfo table and returns where proc and sysfs are
// mounted, the last first, leaving out the tree that starts at the mount root.
func hostMounts(table string, root uint64) []string {
	ours := map[string]bool{strconv.FormatUint(root, 10): true}
	var found []string
	for line := range strings.Lines(table) {
		field := strings.Fields(line)
		if len(field) < 7 {
			continue
		}
		if ours[field[1]] || ours[field[0]] {
			ours[field[0]] = true
			continue
		}
		_, rest, _ := strings.Cut(line, " - ")
		fstype, _, _ := strings.Cut(rest, " ")
		if fstype == "proc" || fstype == "sysfs" {
			found = append([]string{unescape(field[4])}, found...)
		}
	}
	return found
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
