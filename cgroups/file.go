package cgroups

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openGroup opens the group at path below the mount. The kernel refuses
// symbolic links, "..", and anything mounted into the hierarchy.
func openGroup(mount int, path string) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for range maxRetries {
		fd, err = unix.Openat2(mount, "."+path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// maxRetries bounds the repetitions of openat2, which gives up with EAGAIN when
// something on the machine was renamed while it looked.
const maxRetries = 256

// value finds key in a flat-keyed file ("populated 1\nfrozen 0\n").
func value(file, key string) (uint64, bool) {
	n, err := strconv.ParseUint(lineOf(file, key), 10, 64)
	return n, err == nil
}

// lineOf is what follows key in the line that begins with it.
func lineOf(file, key string) string {
	for line := range strings.Lines(file) {
		if first, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); first == key {
			return rest
		}
	}
	return ""
}
