package cgroups

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Below opens an existing group below g, which path names from there ("/" and ""
// are g itself): for a process that joins the container somewhere inside its
// group. The path is checked by component, so neither "..", nor a neighbour whose
// name begins with g's, nor a link or a mount can lead out.
func (g *Group) Below(path string) (*Group, error) {
	names, err := components(path)
	if err != nil {
		return nil, fmt.Errorf("cgroup %q below %s: %w", path, g.path, err)
	}
	below := &Group{fd: -1, path: strings.Join(append([]string{g.path}, names...), "/")}
	below.fd, err = openGroup(g.fd, strings.TrimPrefix(below.path, g.path))
	if err != nil {
		return nil, below.pathError("open", err)
	}
	return below, nil
}

// PassesOn says whether controllers are enabled for the groups below g, which then
// mostly rules out processes in g itself (cgroups(7), "no internal processes").
func (g *Group) PassesOn() bool {
	list, err := kernfs.Read(g.fd, "cgroup.subtree_control")
	return err == nil && strings.TrimSpace(list) != ""
}

// Own is the caller's own group, as a path below the mount.
func Own() (string, error) { return groupOf("self") }

// Of is the group of a process.
func Of(pid int) (string, error) { return groupOf(strconv.Itoa(pid)) }

func groupOf(process string) (string, error) {
	file, err := kernfs.Read(unix.AT_FDCWD, "/proc/"+process+"/cgroup")
	if err != nil {
		return "", fmt.Errorf("read /proc/%s/cgroup: %w", process, err)
	}
	return parseOwn(file)
}

// OwnProcs opens cgroup.procs of the caller's own group for writing: a process that
// writes "0" to it moves there.
func OwnProcs() (fd int, err error) {
	own, err := Own()
	if err != nil {
		return -1, err
	}
	g, err := Open(own)
	if err != nil {
		return -1, err
	}
	defer g.Close()
	return kernfs.Open(g.fd, "cgroup.procs", unix.O_WRONLY)
}

func parseOwn(file string) (string, error) {
	for line := range strings.Lines(file) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		if path == "/.." || strings.HasPrefix(path, "/../") || strings.HasSuffix(path, " (deleted)") {
			return "", fmt.Errorf("cgroup %q: %w", path, errOutside)
		}
		return path, nil
	}
	return "", errNoMount
}

var (
	errOutside = errors.New("it is not below the cgroup file system that we see; set linux/cgroupsPath")
	errNotOurs = errors.New("the group is not delegated to us; begin with systemd-run --user --scope --property=Delegate=yes, " +
		"or have a cgroup delegated and set linux/cgroupsPath")
)

// Delegated is the group in which a caller without privileges may make groups.
// That is the one above its own, if this is delegated too: then they get the
// controllers, which a group that holds processes cannot pass on. Else it is its own.
func Delegated() (path string, err error) {
	own, err := Own()
	if err != nil {
		return "", err
	}
	mount, _, err := openMount()
	if err != nil {
		return "", err
	}
	defer kernfs.Close(mount)
	parent, _ := split(own)
	for _, dir := range [...]string{parent, own} {
		if ours(mount, dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("our own cgroup %s: %w", own, errNotOurs)
}

// ours says that we may make groups in dir and move processes into them, which
// takes cgroup.procs of the nearest group above both places (cgroups(7),
// "Delegation containment").
func ours(mount int, dir string) bool {
	fd, err := openGroup(mount, dir)
	if err != nil {
		return false
	}
	defer kernfs.Close(fd)
	for _, name := range [...]string{".", "cgroup.procs", "cgroup.subtree_control"} {
		if err := kernfs.Retry(func() error { return unix.Faccessat(fd, name, unix.W_OK, unix.AT_EACCESS) }); err != nil {
			return false
		}
	}
	return true
}
