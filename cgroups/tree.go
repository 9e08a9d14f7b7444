package cgroups

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// removeWait bounds how long [Remove] waits for a group to become free. It is
// called when the processes are dead, so this covers only their last moments.
const removeWait = 2 * time.Second

// BusyError names the processes that keep a group from being removed.
type BusyError struct {
	Group string
	PIDs  []int
	Err   error // EBUSY or os.ErrDeadlineExceeded
}

func (e *BusyError) Error() string {
	if len(e.PIDs) == 0 {
		return "cgroup " + e.Group + " is busy: " + e.Err.Error()
	}
	return "cgroup " + e.Group + " still holds processes " + pidList(e.PIDs) + ": " + e.Err.Error()
}

func (e *BusyError) Unwrap() error { return e.Err }

func pidList(pids []int) string {
	var b strings.Builder
	for i, pid := range pids {
		if i == 10 {
			b.WriteString(" and " + strconv.Itoa(len(pids)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(strconv.Itoa(pid))
	}
	return b.String()
}

// Remove removes the group at path with all groups below it, however deep, and
// then those ancestors listed in missing that have become empty. Missing is what
// [Missing] said before [Create]. A group that was there already stays, since
// only what create made may be deleted; it loses the groups below it and its
// device program, unless processes of somebody else live in it. What is gone
// already is no error.
func Remove(path string, missing []string) error {
	mount, _, err := openMount()
	if err != nil {
		return err
	}
	defer kernfs.Close(mount)
	if err := removeLeaf(mount, path, slices.Contains(missing, path)); err != nil {
		return err
	}
	for _, dir := range slices.Backward(missing) {
		if !strings.HasPrefix(path, dir+"/") {
			continue
		}
		if err := kernfs.Rmdir(mount, "."+dir); err != nil && !kernfs.Gone(err) {
			// Busy: another container lives there by now and its delete, or nobody's, removes it.
			break
		}
	}
	return nil
}

func removeLeaf(mount int, path string, made bool) error {
	if made {
		// Nearly always that is all.
		if err := kernfs.Rmdir(mount, "."+path); err == nil || kernfs.Gone(err) {
			return nil
		}
	}
	fd, err := openGroup(mount, path)
	if err != nil {
		if kernfs.Gone(err) {
			return nil
		}
		return &fs.PathError{Op: "open cgroup", Path: path, Err: err}
	}
	g := &Group{fd: fd, path: path}
	defer g.Close()
	if !made {
		return g.vacate()
	}
	return g.clear(func() error { return kernfs.Rmdir(mount, "."+path) })
}

// vacate leaves a group that was there before create as it was.
func (g *Group) vacate() error {
	if g.Populated() {
		return nil
	}
	if err := g.clear(func() error { return nil }); err != nil {
		return err
	}
	return g.detachDevices()
}

// clear removes every group below g and then calls last, repeatedly while
// something is busy: whoever is still inside may make new groups as we walk.
func (g *Group) clear(last func() error) error {
	deadline := time.Now().Add(removeWait)
	for nap := firstNap; ; nap = min(2*nap, lastNap) {
		err := g.removeBelow()
		if err == nil {
			err = last()
		}
		if err == nil || kernfs.Gone(err) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return &fs.PathError{Op: "remove cgroup", Path: g.path, Err: err}
		}
		if err := g.WaitEmpty(deadline); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return &BusyError{Group: g.path, Err: unix.EBUSY}
		}
		pollPRI(-1, nap) // nobody inside and yet busy: there is nothing else to wait for
	}
}

// removeBelow removes what it can and then reports the first failure.
func (g *Group) removeBelow() error {
	var first error
	err := walk(g.fd, nil, func(parent int, name string) error {
		if err := kernfs.Rmdir(parent, name); err != nil && !kernfs.Gone(err) && first == nil {
			first = err
		}
		return nil
	})
	return cmp.Or(err, first)
}

// walk visits the groups below dir, innermost first: visit gets each group (dir
// included) as a descriptor, leave its parent and name once everything below it
// was visited. It holds two descriptors however deep the nesting: a container
// can nest deeper than RLIMIT_NOFILE. Going up by ".." is sound here because
// cgroup2 has neither rename nor symbolic links, and the depth is counted.
func walk(dir int, visit func(fd int) error, leave func(parent int, name string) error) error {
	cur, err := kernfs.Open(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return ignoreGone(err)
	}
	defer func() { kernfs.Close(cur) }()
	var path []string
	todo := [][]string{kernfs.Groups(cur)}
	for {
		depth := len(todo) - 1
		if n := len(todo[depth]); n > 0 {
			name := todo[depth][n-1]
			todo[depth] = todo[depth][:n-1]
			fd, err := kernfs.Open(cur, name, unix.O_RDONLY|unix.O_DIRECTORY)
			if err != nil {
				continue // removed meanwhile
			}
			kernfs.Close(cur)
			cur = fd
			path, todo = append(path, name), append(todo, kernfs.Groups(cur))
			continue
		}
		if visit != nil {
			if err := visit(cur); err != nil {
				return err
			}
		}
		if depth == 0 {
			return nil
		}
		parent, err := kernfs.Open(cur, "..", unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		kernfs.Close(cur)
		cur = parent
		if leave != nil {
			if err := leave(cur, path[depth-1]); err != nil {
				return err
			}
		}
		path, todo = path[:depth-1], todo[:depth]
	}
}

func ignoreGone(err error) error {
	if kernfs.Gone(err) {
		return nil
	}
	return err
}

// Procs lists the processes in the group and in all groups below it.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	err := walk(g.fd, func(fd int) error {
		list, err := kernfs.Read(fd, "cgroup.procs")
		if errors.Is(err, unix.EOPNOTSUPP) {
			// A threaded group has only threads; kill(2) takes their ids as well.
			list, err = kernfs.Read(fd, "cgroup.threads")
		}
		for pid := range strings.FieldsSeq(list) {
			// 0 stands for a process outside our PID namespace.
			if n, err := strconv.Atoi(pid); err == nil && n > 0 {
				pids = append(pids, n)
			}
		}
		return ignoreGone(err)
	}, nil)
	if err != nil {
		return nil, &fs.PathError{Op: "list processes of cgroup", Path: g.path, Err: err}
	}
	return pids, nil
}
