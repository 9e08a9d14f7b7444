package cgroups

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Path returns the group of container id as a clean absolute path below the
// cgroup2 mount. An empty cgroupsPath means /husk-ID; a relative one is taken
// from the mount too, so that the same configuration always names the same group.
func Path(cgroupsPath, id string) (string, error) {
	if cgroupsPath == "" {
		cgroupsPath = "/husk-" + id
	}
	parts, err := components(cgroupsPath)
	if err != nil {
		return "", fmt.Errorf("cgroupsPath %q: %w", cgroupsPath, err)
	}
	path := "/" + strings.Join(parts, "/")
	switch {
	case len(parts) == 0:
		return "", fmt.Errorf("cgroupsPath %q is the root cgroup, which can be neither limited nor removed; name a group below it", cgroupsPath)
	case len(path) >= unix.PathMax-len(mountpoints[1])-unix.NAME_MAX:
		return "", fmt.Errorf("cgroupsPath of %d bytes: %w", len(path), unix.ENAMETOOLONG)
	}
	return path, nil
}

// components are the names that path consists of.
func components(path string) (names []string, err error) {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

var (
	errDotDot    = errors.New(`".." could leave the container's place in the hierarchy; write the path without it`)
	errControl   = errors.New("control characters are not allowed in the name of a cgroup")
	errInterface = errors.New(`names beginning with "cgroup." are interface files of the kernel; choose another name`)
)

// checkName refuses what is not the name of one directory. A newline would make
// /proc/PID/cgroup ambiguous for every reader.
func checkName(name string) error {
	switch {
	case name == "..":
		return errDotDot
	case len(name) > unix.NAME_MAX:
		return fmt.Errorf("%q: %w", name[:16]+"…", unix.ENAMETOOLONG)
	case strings.HasPrefix(name, "cgroup."):
		return errInterface
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errControl
	}
	return nil
}

// prefixes lists path and its ancestors below the mount, outermost first.
func prefixes(path string) []string {
	var all []string
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			all = append(all, path[:i])
		}
	}
	return append(all, path)
}

// split separates the last name of path from its parent ("/" for a top group).
func split(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 1)], path[i+1:]
}
