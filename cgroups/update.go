package cgroups

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Update writes limits to a group in use, frozen or not, all or nothing: when one
// of them fails, or one of the steps to be taken after them, all files that were
// written get back what they had. What can be refused is refused before anything
// is written: checkBeforeUpdate, and files that are missing or not writable.
// The controllers must be there: see [Group.Require]. The error is a [*FieldError].
func (g *Group) Update(limits []Limit, then ...func() error) error {
	for _, l := range limits {
		if err := g.writable(l); err != nil {
			return err
		}
	}
	limits = g.order(limits)
	saved := g.save(limits)
	less := slices.IndexFunc(limits, func(l Limit) bool { return g.turn(l) == lessMemory })
	if less < 0 {
		less = len(limits)
	}
	err := g.applyAll(limits[:less])
	if err == nil && less < len(limits) {
		g.makeRoom(limits[less].Value, time.Now().Add(roomWait))
		err = g.applyAll(limits[less:])
	}
	for _, step := range then {
		if err != nil {
			break
		}
		err = step()
	}
	if err == nil {
		return nil
	}
	back := g.restore(saved)
	failed, ok := err.(*FieldError)
	switch {
	case back == nil:
		return err
	case !ok:
		return fmt.Errorf("%w; besides, %w", err, back)
	}
	failed.Err = fmt.Errorf("%w; besides, %w", failed.Err, back)
	return failed
}

// Keep calls step and gives back what they had to all limit files that it made others
// change: systemd, told of one limit of its unit, writes all those that it has an idea of.
func (g *Group) Keep(step func() error) error {
	var saved []content
	files, err := g.limitFiles()
	if err != nil {
		return g.pathError("list files of", err)
	}
	for _, file := range files {
		if text, err := kernfs.Read(g.fd, file); err == nil {
			saved = append(saved, content{file, text})
		}
	}
	err = step()
	if restored := g.restore(saved); err == nil {
		err = restored
	}
	return err
}

// writable refuses what is bound to fail.
func (g *Group) writable(l Limit) error {
	if err := g.check(l); err != nil {
		return err
	}
	err := g.access(l.File)
	if errors.Is(err, unix.ENOENT) && l.AltFile != "" {
		err = g.access(l.AltFile)
	}
	if err == nil || l.Optional && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &FieldError{Field: l.Field, File: l.File, Value: l.Value, Err: g.reason(l, err)}
}

// access opens a file for writing, which has no effect on interface files. Root
// can open those too that only say something; their mode tells.
func (g *Group) access(file string) error {
	fd, err := kernfs.Open(g.fd, file, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer kernfs.Close(fd)
	var st unix.Stat_t
	err = kernfs.Retry(func() error { return unix.Fstat(fd, &st) })
	if err == nil && st.Mode&0o222 == 0 {
		err = unix.EACCES
	}
	return err
}

// order puts what gives room before, and what takes memory away after all the
// rest. A limit below usage may kill, which nothing undoes, so it waits until
// every other limit is in force; and the limit of swap, which reclaim may then
// need, sinks after it.
func (g *Group) order(limits []Limit) []Limit {
	limits = slices.DeleteFunc(slices.Clone(limits), func(l Limit) bool {
		return isMemory(l) && l != lastOf(limits, l.File) // unified wins
	})
	slices.SortStableFunc(limits, func(a, b Limit) int { return g.turn(a) - g.turn(b) })
	return limits
}

func isMemory(l Limit) bool { return l.File == "memory.max" || l.File == "memory.swap.max" }

func lastOf(limits []Limit, file string) (last Limit) {
	for _, l := range limits {
		if l.File == file {
			last = l
		}
	}
	return last
}

// The turns in which an update writes limits.
const (
	moreMemory = iota
	anyOther
	lessMemory
	lessSwap
)

func (g *Group) turn(l Limit) int {
	switch {
	case !isMemory(l):
		return anyOther
	case !g.lowers(l):
		return moreMemory
	case l.File == "memory.max":
		return lessMemory
	}
	return lessSwap
}

// roomWait bounds how long an update waits for memory to be written out.
const roomWait = 5 * time.Second

// makeRoom reclaims what is in use above a limit that comes next, for as long as
// that makes progress. A write to memory.max does so too, but gives up after a few
// rounds and kills, even if the pages are on their way to a slow swap device.
func (g *Group) makeRoom(limit string, deadline time.Time) {
	target, err := strconv.ParseUint(limit, 10, 64)
	for nap := firstNap; err == nil && time.Now().Before(deadline); nap = min(2*nap, lastNap) {
		used, ok := g.number("memory.current")
		if !ok || used <= target {
			return
		}
		err = kernfs.Write(g.fd, "memory.reclaim", strconv.FormatUint(used-target, 10)+"\n") // Linux 5.19
		if errors.Is(err, unix.EAGAIN) && (g.writesBack() || g.shrank(used)) {
			err = nil
		}
		pollPRI(-1, nap) // there is nothing to wait for but time
	}
}

func (g *Group) writesBack() bool {
	stat, _ := kernfs.Read(g.fd, "memory.stat")
	n, _ := value(stat, "file_writeback")
	return n > 0
}

func (g *Group) shrank(used uint64) bool {
	now, ok := g.number("memory.current")
	return ok && now < used
}

// lowers says that l is below what is in its file; what is not a plain number of
// bytes ("1G", in unified) counts as lower.
func (g *Group) lowers(l Limit) bool {
	if l.Value == "max" {
		return false
	}
	now, limited := g.number(l.File)
	n, err := strconv.ParseUint(l.Value, 10, 64)
	return !limited || err != nil || n < now
}

// content is a file before the update.
type content struct {
	file, text string
}

// save reads the files that writing limits may change. Those that cannot be read,
// like memory.reclaim, have nothing to be restored.
func (g *Group) save(limits []Limit) (saved []content) {
	seen := map[string]bool{"": true}
	save := func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		if text, err := kernfs.Read(g.fd, file); err == nil {
			saved = append(saved, content{file, text})
		}
	}
	for _, l := range limits {
		save(l.File)
		save(l.AltFile)
		if l.File == "cpu.idle" {
			save("cpu.weight") // becomes 0 and then 100
		}
	}
	return saved
}

// restore sets back what differs from saved. It goes through the files twice,
// backward and forward: some accept a value only after another has changed
// (cpu.weight after cpu.idle, cpu.max.burst after cpu.max).
func (g *Group) restore(saved []content) error {
	backward := slices.Clone(saved)
	slices.Reverse(backward)
	for _, c := range append(backward, saved...) {
		g.setBack(c)
	}
	var errs []error
	for _, c := range saved {
		if now, err := kernfs.Read(g.fd, c.file); err == nil && limited(c.file, now) != limited(c.file, c.text) {
			errs = append(errs, fmt.Errorf("%s could not be set back to %q", c.file, strings.TrimSpace(c.text)))
		}
	}
	return errors.Join(errs...)
}

// setBack writes the old lines of a file, after the neutral value of those keys
// that have got one only now.
func (g *Group) setBack(c content) {
	now, err := kernfs.Read(g.fd, c.file)
	if err != nil || now == c.text {
		return
	}
	if none := neutral(c.file); none != "" {
		for line := range strings.Lines(now) {
			if key, _, _ := strings.Cut(line, " "); lineOf(c.text, key) == "" {
				_ = kernfs.Write(g.fd, c.file, key+" "+none+"\n")
			}
		}
	}
	for line := range strings.Lines(c.text) {
		_ = kernfs.Write(g.fd, c.file, line)
	}
	if c.text == "" && neutral(c.file) == "" {
		_ = kernfs.Write(g.fd, c.file, "\n") // cpuset.cpus
	}
}

// neutral is the value with which a keyed file forgets a key.
func neutral(file string) string {
	switch file {
	case "io.max":
		return "rbps=max wbps=max riops=max wiops=max"
	case "io.weight", "io.bfq.weight":
		return "default"
	case "io.latency":
		return "target=0"
	case "rdma.max":
		return "hca_handle=max hca_object=max"
	}
	return ""
}

// Compile is [Compile] for a group in use, of which it takes what r leaves out:
// a limit of memory and swap together needs that of memory.
func (g *Group) Compile(r *specs.LinuxResources) (limits []Limit, controllers, warnings []string, err error) {
	if r == nil || r.Memory == nil || get(r.Memory.Swap) <= 0 || get(r.Memory.Limit) != 0 {
		return Compile(r)
	}
	inForce := int64(-1)
	if n, ok := g.number("memory.max"); ok {
		inForce = int64(min(n, math.MaxInt64))
	}
	filled, memory := *r, *r.Memory
	memory.Limit, filled.Memory = &inForce, &memory
	limits, controllers, warnings, err = Compile(&filled)
	limits = slices.DeleteFunc(limits, func(l Limit) bool { return l.Field == pointer+"memory/limit" })
	return limits, controllers, warnings, err
}

// Require makes sure of controllers in a group that exists: those that it lacks
// are enabled in its ancestors, outermost first. What cannot be had is a
// [*ControllerError].
func (g *Group) Require(controllers []string) error {
	list, err := kernfs.Read(g.fd, "cgroup.controllers")
	if err != nil {
		return g.pathError("read controllers of", err)
	}
	have := strings.Fields(list)
	missing := slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return slices.Contains(have, c) })
	if len(missing) == 0 {
		return nil
	}
	mount, _, err := openMount()
	if err != nil {
		return err
	}
	defer kernfs.Close(mount)
	parent, _ := split(g.path)
	for _, dir := range append([]string{"/"}, prefixes(parent)...) {
		fd, err := openGroup(mount, dir)
		if err != nil {
			return (&Group{path: dir}).pathError("open", err)
		}
		err = (&Group{fd: fd, path: dir}).enable(missing)
		kernfs.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
