package rootfs

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An overlay with the option scratch writes to the tmpfs that an earlier mount has put
// on "/", in a directory of its own there. All of them together are limited by the size
// of that tmpfs, and vanish with it. An overlay on "/" hides it: then nothing in the
// container leads to what lies below. Relative names in lowerdir are directories in it,
// on which earlier mounts were put, so that lower layers may be id-mapped binds.

var errNoScratch = errors.New("scratch wants a tmpfs that an earlier mount has put on /")

// keepScratch notes the tmpfs that was just put on "/".
func (r *Root) keepScratch(fd int) (err error) {
	shut(r.scratch)
	r.scratch, err = openat(fd, ".", unix.O_PATH)
	return err
}

// Scratch is what overlays write to, one directory "N/upper" for each in their order,
// -1 without any.
func (r *Root) Scratch() int {
	if r.layers == 0 {
		return -1
	}
	return r.scratch
}

// overlay mounts one. Its directories are named relative to the tmpfs, which has no
// other name any more once something lies on it.
func (r *Root) overlay(s *Step) (fd int, err error) {
	if r.scratch < 0 {
		return -1, fact("mount overlay", s.Target, errNoScratch)
	}
	if err := fchdir(r.scratch); err != nil {
		return -1, fact("fchdir", s.Target, err)
	}
	n := strconv.Itoa(r.layers)
	if err := makeUpper(r.scratch, n, lowest(s.Data)); err != nil {
		return -1, fact("mount overlay", s.Target, err)
	}
	r.layers++
	l := *s
	l.Data = append(s.Data[:len(s.Data):len(s.Data)], "upperdir="+n+"/upper", "workdir="+n+"/work", "userxattr")
	fd, err = l.filesystem(l.Data)
	if cerr := chdir("/"); err == nil && cerr != nil {
		shut(fd)
		return -1, fact("chdir", "/", cerr)
	}
	return fd, err
}

// makeUpper makes the directories of an overlay. The upper one is what its root looks
// like, so it takes after the lower one, as far as the user namespace knows the owner.
func makeUpper(scratch int, n, lower string) error {
	from, err := openat(scratch, lower, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer shut(from)
	st, err := statx(from, "", 0)
	if err != nil {
		return err
	}
	for _, dir := range [...]string{n, n + "/upper", n + "/work"} {
		if err := mkdirat(scratch, dir, 0o755); err != nil {
			return err
		}
	}
	upper, err := openat(scratch, n+"/upper", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer shut(upper)
	if err := fchownat(upper, st.Uid, st.Gid); err != nil && err != unix.EINVAL && err != unix.EPERM {
		return err
	}
	return fchmod(upper, uint32(st.Mode&0o7777))
}

// lowest returns the topmost lower directory.
func lowest(data []string) string {
	for _, word := range data {
		if list, ok := strings.CutPrefix(word, "lowerdir="); ok {
			first, _, _ := strings.Cut(list, ":")
			return first
		}
	}
	return "."
}
