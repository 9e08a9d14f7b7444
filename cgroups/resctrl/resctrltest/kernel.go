// Package resctrltest serves a file system that behaves as the kernel's resctrl does, for
// machines without a CPU that has it: what it lists, what mkdir makes of itself, what it
// refuses and with which errno and words. It is mounted by FUSE, so that the programs
// under test need no door for it, save that fstatfs(2) tells it from the real one.
package resctrltest

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Kernel is the state of the file system. What a test may set, it sets before Mount.
type Kernel struct {
	Classes     int    // how many there can be, the default one included
	Monitors    int    // how many groups can be monitored, each class included; 0: none
	Granularity uint64 // of memory bandwidth, percent

	mu     sync.Mutex
	root   *group
	status string
	log    []string
}

// Changes returns what was changed since it was last asked, as "mkdir PATH", "rmdir PATH"
// and "write PATH TEXT".
func (k *Kernel) Changes() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	log := k.log
	k.log = nil
	return log
}

// New returns a machine with two L3 caches of 11 bits.
func New() *Kernel {
	k := &Kernel{Classes: 4, Monitors: 8, Granularity: 10, status: "ok\n"}
	k.root = newGroup(nil)
	return k
}

// group is a class, or a monitoring group in one.
type group struct {
	parent   *group // of a monitoring group
	l3, mb   [2]uint64
	tasks    map[int]bool
	children map[string]*group // of the root: classes
	monitors map[string]*group
}

const allBits = 0x7ff

func newGroup(parent *group) *group {
	return &group{
		parent: parent, l3: [2]uint64{allBits, allBits}, mb: [2]uint64{100, 100},
		tasks: map[int]bool{}, children: map[string]*group{}, monitors: map[string]*group{},
	}
}

// find splits a path below the mount into a group and what is in it.
func (k *Kernel) find(path string) (g *group, rest string) {
	g, parts := k.root, strings.Split(path, "/")
	if c := k.root.children[parts[0]]; c != nil {
		g, parts = c, parts[1:]
	}
	if len(parts) > 1 && parts[0] == "mon_groups" && g.monitors[parts[1]] != nil {
		g, parts = g.monitors[parts[1]], parts[2:]
	}
	return g, strings.Join(parts, "/")
}

// list returns the names in a directory; directories end in a slash. nil: no directory.
func (k *Kernel) list(path string) []string {
	g, rest := k.find(path)
	switch {
	case rest == "info" && g == k.root:
		return []string{"L3/", "MB/", "last_cmd_status"}
	case rest == "info/MB" && g == k.root:
		return []string{"bandwidth_gran", "min_bandwidth", "num_closids"}
	case rest == "info/L3" && g == k.root:
		return []string{"cbm_mask", "min_cbm_bits", "num_closids"}
	case rest == "mon_groups" && g.parent == nil && k.Monitors > 0:
		return slashed(g.monitors)
	case rest != "":
		return nil
	}
	names := []string{"cpus", "cpus_list", "tasks"}
	if g.parent == nil {
		names = append(names, "mode", "schemata", "size")
		if k.Monitors > 0 {
			names = append(names, "mon_groups/")
		}
	}
	if g == k.root {
		names = append(append(names, "info/"), slashed(g.children)...)
	}
	return names
}

func slashed(m map[string]*group) []string {
	names := []string{}
	for _, n := range slices.Sorted(maps.Keys(m)) {
		names = append(names, n+"/")
	}
	return names
}

// fails sets what info/last_cmd_status will say.
func (k *Kernel) fails(errno unix.Errno, format string, args ...any) unix.Errno {
	k.status = fmt.Sprintf(format, args...) + "\n"
	return errno
}

func (k *Kernel) mkdir(path string) unix.Errno {
	k.status = "ok\n"
	dir, name := split(path)
	g, rest := k.find(dir)
	switch {
	case slices.Contains(k.list(dir), name) || slices.Contains(k.list(dir), name+"/"):
		return unix.EEXIST
	case strings.Contains(name, "\n"):
		return unix.EINVAL
	case dir == "":
		if len(k.root.children)+1 >= k.Classes {
			return k.fails(unix.ENOSPC, "Out of CLOSIDs")
		}
		if k.Monitors > 0 && k.monitored() >= k.Monitors {
			return k.fails(unix.ENOSPC, "Out of RMIDs")
		}
		k.root.children[name] = newGroup(nil)
	case rest == "mon_groups" && g.parent == nil:
		if k.monitored() >= k.Monitors {
			return k.fails(unix.ENOSPC, "Out of RMIDs")
		}
		g.monitors[name] = newGroup(g)
	default:
		return unix.EPERM
	}
	k.log = append(k.log, "mkdir "+path)
	return 0
}

func (k *Kernel) monitored() int {
	n := 1 + len(k.root.monitors)
	for _, c := range k.root.children {
		n += 1 + len(c.monitors)
	}
	return n
}

// rmdir takes away a group with all that is in it, whoever is in there.
func (k *Kernel) rmdir(path string) unix.Errno {
	k.status = "ok\n"
	g, rest := k.find(path)
	switch {
	case rest != "" || g == k.root:
		return unix.EPERM
	case g.parent != nil:
		_, name := split(path)
		delete(g.parent.monitors, name)
	default:
		maps.Copy(k.root.tasks, g.tasks)
		delete(k.root.children, path)
	}
	k.log = append(k.log, "rmdir "+path)
	return 0
}

func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// read renders a file.
func (k *Kernel) read(path string) string {
	g, rest := k.find(path)
	switch rest {
	case "tasks":
		return k.tasks(g)
	case "schemata":
		return fmt.Sprintf("    L3:0=%03x;1=%03x\n    MB:0=%4d;1=%4d\n", g.l3[0], g.l3[1], g.mb[0], g.mb[1])
	case "info/last_cmd_status":
		return k.status
	case "info/MB/bandwidth_gran":
		return fmt.Sprintln(k.Granularity)
	case "info/MB/min_bandwidth":
		return "10\n"
	}
	return "\n"
}

// tasks lists those that were put here and are not reaped yet. The default class lists
// all others too, which nobody here looks at.
func (k *Kernel) tasks(g *group) string {
	var b strings.Builder
	for _, pid := range slices.Sorted(maps.Keys(g.tasks)) {
		if unix.Kill(pid, 0) == unix.ESRCH {
			delete(g.tasks, pid)
			continue
		}
		fmt.Fprintln(&b, pid)
	}
	return b.String()
}

func (k *Kernel) write(path, text string) unix.Errno {
	k.status = "ok\n"
	g, rest := k.find(path)
	errno := unix.EACCES
	switch rest {
	case "tasks":
		errno = k.move(g, text)
	case "schemata":
		errno = k.schemata(g, text)
	}
	if errno == 0 {
		k.log = append(k.log, "write "+path+" "+strings.TrimSpace(text))
	}
	return errno
}

// move puts a task into a group. A monitoring group takes those of its class only.
func (k *Kernel) move(g *group, text string) unix.Errno {
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	switch {
	case err != nil || pid < 0:
		return k.fails(unix.EINVAL, "Task list parsing error pid %s", text)
	case unix.Kill(pid, 0) == unix.ESRCH:
		return k.fails(unix.ESRCH, "No task %d", pid)
	case g.parent != nil && g.parent != k.root && !g.parent.tasks[pid], g.parent == k.root && k.classOf(pid) != k.root:
		return k.fails(unix.EINVAL, "Can't move task to different control group")
	}
	if g.parent == nil {
		for _, c := range append(slices.Collect(maps.Values(k.root.children)), k.root) {
			delete(c.tasks, pid)
			for _, m := range c.monitors {
				delete(m.tasks, pid)
			}
		}
	}
	g.tasks[pid] = true
	return 0
}

func (k *Kernel) classOf(pid int) *group {
	for _, c := range k.root.children {
		if c.tasks[pid] {
			return c
		}
	}
	return k.root
}

// schemata takes all lines of a write, or none.
func (k *Kernel) schemata(g *group, text string) unix.Errno {
	if !strings.HasSuffix(text, "\n") || g.parent != nil {
		return unix.EINVAL
	}
	l3, mb, seen := g.l3, g.mb, map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		values := map[string]*[2]uint64{"L3": &l3, "MB": &mb}[name]
		switch {
		case !ok:
			return k.fails(unix.EINVAL, "Missing ':'")
		case rest == "":
			return k.fails(unix.EINVAL, "Missing '%s' value", name)
		case values == nil:
			return k.fails(unix.EINVAL, "Unknown or unsupported resource name '%s'", name)
		}
		for part := range strings.SplitSeq(strings.TrimSuffix(rest, ";"), ";") {
			id, value, ok := strings.Cut(part, "=")
			n, err := strconv.ParseUint(id, 10, 32)
			switch {
			case !ok || err != nil:
				return k.fails(unix.EINVAL, "Missing '=' or non-numeric domain")
			case n > 1:
				return unix.EINVAL
			case seen[name+id]:
				return k.fails(unix.EINVAL, "Duplicate domain %s", id)
			}
			seen[name+id] = true
			v, errno := k.value(name, strings.TrimSpace(value))
			if errno != 0 {
				return errno
			}
			values[n] = v
		}
	}
	g.l3, g.mb = l3, mb
	return 0
}

func (k *Kernel) value(name, text string) (uint64, unix.Errno) {
	if name == "MB" {
		v, err := strconv.ParseUint(text, 10, 32)
		switch {
		case err != nil:
			return 0, k.fails(unix.EINVAL, "Invalid MB value %s", text)
		case v < 10 || v > 100:
			return 0, k.fails(unix.EINVAL, "MB value %d out of range [10,100]", v)
		}
		return (v + k.Granularity - 1) / k.Granularity * k.Granularity, 0
	}
	v, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 64)
	switch {
	case err != nil:
		return 0, k.fails(unix.EINVAL, "Non-hex character in the mask %s", text)
	case v == 0 || v > allBits:
		return 0, k.fails(unix.EINVAL, "Mask out of range")
	case bits.Len64(v)-bits.TrailingZeros64(v) != bits.OnesCount64(v):
		return 0, k.fails(unix.EINVAL, "The mask %x has non-consecutive 1-bits", v)
	}
	return v, 0
}
