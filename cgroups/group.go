package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Group is an open control group.
type Group struct {
	fd   int
	path string // below the mount
}

// Open opens the existing group at path, as [Path] returned it.
func Open(path string) (*Group, error) {
	mount, _, err := openMount()
	if err != nil {
		return nil, err
	}
	defer kernfs.Close(mount)
	fd, err := openGroup(mount, path)
	if err != nil {
		return nil, &fs.PathError{Op: "open cgroup", Path: path, Err: err}
	}
	return &Group{fd: fd, path: path}, nil
}

// FD is the group's directory, for CLONE_INTO_CGROUP. It stays owned by g.
func (g *Group) FD() int { return g.fd }

// Close closes the descriptor; the group remains.
func (g *Group) Close() {
	if g.fd >= 0 {
		kernfs.Close(g.fd)
		g.fd = -1
	}
}

// Add moves the process into the group. It takes some 10 ms (the kernel waits for an
// RCU grace period) where to be born there costs nothing, but it also works in a group
// into which a process cannot be born since it, or the caller's, was killed once: from
// Linux 6.14 on, cgroup_css_set_fork() takes kill_seq of the caller's cgroup, and
// cgroup_post_fork() kills the child if that of its own differs.
func (g *Group) Add(pid int) error {
	if err := kernfs.Write(g.fd, "cgroup.procs", strconv.Itoa(pid)); err != nil {
		return &fs.PathError{Op: "add a process to cgroup", Path: g.path, Err: err}
	}
	return nil
}

func (g *Group) pathError(op string, err error) error {
	return &fs.PathError{Op: op + " cgroup", Path: g.path, Err: err}
}

// Missing lists the directories that [Create] would make for path, outermost
// first. Recorded before the first side effect, it lets [Remove] undo a create
// that was killed anywhere.
func Missing(path string) []string {
	all := prefixes(path)
	mount, _, err := openMount()
	if err != nil {
		return all
	}
	defer kernfs.Close(mount)
	for i, dir := range all {
		fd, err := openGroup(mount, dir)
		if err != nil {
			return all[i:]
		}
		kernfs.Close(fd)
	}
	return nil
}

// createTries bounds the repetitions of create when groups vanish under it.
const createTries = 128

// Create makes the group at path, with the named controllers enabled in all its
// ancestors, outermost first. A group that exists is taken if it is neither
// populated nor frozen. On failure the directories made are removed again.
func Create(path string, controllers []string) (*Group, error) {
	for try := 1; ; try++ {
		g, err := create(path, controllers)
		if err == nil {
			return g, nil
		}
		// The delete of another container removes an ancestor that we share and
		// that is empty between two of our steps: then begin again.
		if _, missing := errors.AsType[*ControllerError](err); missing || !kernfs.Gone(err) || try == createTries {
			return nil, err
		}
	}
}

func create(path string, controllers []string) (_ *Group, err error) {
	g := &Group{path: "/"}
	g.fd, _, err = openMount()
	if err != nil {
		return nil, err
	}
	var made []string
	defer func() {
		if err != nil {
			g.Close()
			undo(made)
		}
	}()
	for _, dir := range prefixes(path) {
		if err := g.enable(controllers); err != nil {
			return nil, err
		}
		fresh, err := g.descend(dir)
		if fresh {
			made = append(made, dir)
		}
		if err != nil {
			return nil, err
		}
	}
	// A new group at the top inherits nothing that could be in the way.
	if strings.Count(path, "/") > 1 || len(made) == 0 {
		err = g.usable(controllers)
	}
	return g, err
}

// undo takes away the directories made by a create that failed; nothing has
// ever run in them. What was there before is not touched.
func undo(made []string) {
	mount, _, err := openMount()
	if err != nil {
		return
	}
	defer kernfs.Close(mount)
	for _, dir := range slices.Backward(made) {
		_ = kernfs.Rmdir(mount, "."+dir)
	}
}

// descend moves g to its child dir, making it if needed.
func (g *Group) descend(dir string) (fresh bool, err error) {
	_, name := split(dir)
	err = kernfs.Retry(func() error { return unix.Mkdirat(g.fd, name, 0o755) })
	switch err {
	case nil, unix.EEXIST:
	case unix.EACCES, unix.EPERM:
		return false, &fs.PathError{Op: "create cgroup", Path: dir, Err: fmt.Errorf("%w: %w", err, errNotOurs)}
	case unix.EROFS:
		return false, &fs.PathError{Op: "create cgroup", Path: dir, Err: fmt.Errorf(
			"%w; mount it writable (mount -o remount,bind,rw /sys/fs/cgroup) or go without (--cgroup-manager disabled)", err)}
	default:
		return false, &fs.PathError{Op: "create cgroup", Path: dir, Err: err}
	}
	fresh = err == nil
	fd, err := openGroup(g.fd, "/"+name)
	if err != nil {
		return fresh, &fs.PathError{Op: "open cgroup", Path: dir, Err: err}
	}
	kernfs.Close(g.fd)
	g.fd, g.path = fd, dir
	return fresh, nil
}

// enable offers controllers to the groups below g. What husk enables in groups
// of others stays enabled: to disable it would race with whoever relies on it.
func (g *Group) enable(controllers []string) error {
	if len(controllers) == 0 {
		return nil
	}
	list, err := kernfs.Read(g.fd, "cgroup.subtree_control")
	if err != nil {
		return &fs.PathError{Op: "read controllers of cgroup", Path: g.path, Err: err}
	}
	have := strings.Fields(list)
	var want []string
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			want = append(want, c)
		}
	}
	if len(want) == 0 {
		return nil
	}
	if err := kernfs.Write(g.fd, "cgroup.subtree_control", "+"+strings.Join(want, " +")); err != nil {
		return g.explain(want, err)
	}
	return nil
}

// explain says why the controllers in want could not be enabled below g.
func (g *Group) explain(want []string, err error) error {
	list, readErr := kernfs.Read(g.fd, "cgroup.controllers")
	if readErr != nil {
		return &fs.PathError{Op: "read controllers of cgroup", Path: g.path, Err: readErr}
	}
	have := strings.Fields(list)
	for _, c := range want {
		if !slices.Contains(have, c) {
			return &ControllerError{Controller: c, Group: g.path, Err: err}
		}
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return &ControllerError{Controller: want[0], Group: g.path, Err: err} // not delegated
	}
	op := "enable controllers " + strings.Join(want, ", ") + " below cgroup"
	switch {
	case errors.Is(err, unix.EBUSY):
		// The "no internal processes" rule of cgroups(7).
		pids, _ := kernfs.Read(g.fd, "cgroup.procs")
		return fmt.Errorf("%s %s: it holds processes itself (%s): move them into a group of their own or set another cgroupsPath: %w",
			op, g.path, strings.Join(strings.Fields(pids), " "), err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s %s: it is threaded or below a threaded group, which only cpu, cpuset, perf_event and pids support: %w",
			op, g.path, err)
	}
	return &fs.PathError{Op: op, Path: g.path, Err: err}
}

// usable checks that a process could be born in g and would run.
func (g *Group) usable(controllers []string) error {
	if err := g.domain(controllers); err != nil {
		return err
	}
	ev, err := g.Events()
	switch {
	case err != nil:
		return err
	case ev.Populated:
		pids, _ := g.Procs()
		return &BusyError{Group: g.path, PIDs: pids, Err: unix.EBUSY}
	case ev.Frozen:
		return fmt.Errorf("cgroup %s is frozen, or a group above it: thaw it (write 0 to its cgroup.freeze): %w", g.path, unix.EBUSY)
	}
	return nil
}

// domain deals with threaded subtrees: a group below a threaded one is "domain
// invalid" and takes no process until it becomes threaded itself, which rules
// out the controllers that account whole processes (cgroups(7), thread mode).
func (g *Group) domain(controllers []string) error {
	kind, err := kernfs.Read(g.fd, "cgroup.type")
	if err != nil {
		return &fs.PathError{Op: "read type of cgroup", Path: g.path, Err: err}
	}
	kind = strings.TrimSpace(kind)
	if kind == "domain" {
		return nil
	}
	for _, c := range controllers {
		if !threadable(c) {
			return fmt.Errorf("cgroup %s is of type %q, where the controller %s does not work; set another cgroupsPath: %w",
				g.path, kind, c, unix.EOPNOTSUPP)
		}
	}
	if kind != "domain invalid" {
		return nil
	}
	if err := kernfs.Write(g.fd, "cgroup.type", "threaded"); err != nil {
		return &fs.PathError{Op: "make threaded cgroup", Path: g.path, Err: err}
	}
	return nil
}

func threadable(controller string) bool {
	switch controller {
	case "cpu", "cpuset", "perf_event", "pids":
		return true
	}
	return false
}

// ControllerError says that a controller which a limit needs is not available.
type ControllerError struct {
	Controller string
	Group      string // whose children cannot have it
	Err        error
}

func (e *ControllerError) Error() string {
	return fmt.Sprintf("controller %q is not available in cgroup %s: %s", e.Controller, e.Group, e.remedy())
}

func (e *ControllerError) Unwrap() error { return e.Err }

// Field is the JSON pointer of the first of limits that needs the controller.
func (e *ControllerError) Field(limits []Limit) string {
	for _, l := range limits {
		if l.Controller() == e.Controller {
			return l.Field
		}
	}
	return ""
}

// remedy looks where the controller is instead.
func (e *ControllerError) remedy() string {
	if slices.Contains(rootControllers(), e.Controller) {
		return "the group above does not pass it on; enable it there (echo +" + e.Controller + " > cgroup.subtree_control) or have it delegated"
	}
	name := e.Controller
	if name == "io" {
		name = "blkio" // its name since cgroup v1
	}
	list, _ := kernfs.Read(unix.AT_FDCWD, "/proc/cgroups")
	for line := range strings.Lines(list) {
		// subsys_name hierarchy num_cgroups enabled
		f := strings.Fields(line)
		switch {
		case len(f) != 4 || f[0] != name:
			continue
		case f[3] == "0":
			return "it is disabled; remove cgroup_disable=" + name + " from the kernel command line (memory may need cgroup_enable=memory)"
		case f[1] != "0":
			return "cgroup v1 uses it; boot with cgroup_no_v1=" + name + ", or with systemd.unified_cgroup_hierarchy=1, or remove the limit"
		}
		return "cgroup v2 does not offer it here; have it passed on to this place, or remove the limit"
	}
	return "this kernel does not have it; remove the limit or use a kernel that does"
}

// rootControllers are those that cgroup2 has, as far up as can be seen from here.
func rootControllers() []string {
	mount, _, err := openMount()
	if err != nil {
		return nil
	}
	defer kernfs.Close(mount)
	list, _ := kernfs.Read(mount, "cgroup.controllers")
	return strings.Fields(list)
}
