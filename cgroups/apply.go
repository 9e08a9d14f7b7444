package cgroups

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Apply writes those limits that are late, or those that are not, in order.
// The error is a [*FieldError].
func (g *Group) Apply(limits []Limit, late bool) error {
	return g.applyAll(slices.DeleteFunc(slices.Clone(limits), func(l Limit) bool { return l.Late != late }))
}

func (g *Group) applyAll(limits []Limit) error {
	var again []Limit
	for _, l := range limits {
		err := g.apply(l)
		if l.File == "cpu.max.burst" && errors.Is(err, unix.EINVAL) {
			// Burst must not exceed quota at any moment: going up it comes after cpu.max, going down before.
			again = append(again, l)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, l := range again {
		if err := g.apply(l); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) apply(l Limit) error {
	if err := g.check(l); err != nil {
		return err
	}
	file, value := l.File, l.Value
	if l.KeepFirst {
		value = g.keepFirst(l)
	}
	err := kernfs.Write(g.fd, file, value+"\n")
	if l.AltFile != "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)) {
		if alt := kernfs.Write(g.fd, l.AltFile, l.AltValue+"\n"); !errors.Is(alt, unix.ENOENT) {
			file, value, err = l.AltFile, l.AltValue, alt
		}
	}
	if err == nil {
		err = g.effective(l)
	}
	if err == nil || l.Optional && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &FieldError{Field: l.Field, File: file, Value: value, Err: g.reason(l, err)}
}

// keepFirst puts the word that the file begins with before the rest of the value.
func (g *Group) keepFirst(l Limit) string {
	old, _ := kernfs.Read(g.fd, l.File)
	first, _, ok := strings.Cut(old, " ")
	_, rest, _ := strings.Cut(l.Value, " ")
	if !ok {
		return l.Value
	}
	return first + " " + rest
}

// check refuses a memory limit that would begin by killing, and a swap limit
// that is exceeded already.
func (g *Group) check(l Limit) error {
	limit, err := strconv.ParseUint(l.Value, 10, 64)
	if !l.Check || err != nil { // "max"
		return nil
	}
	used, _ := g.number(strings.TrimSuffix(l.File, "max") + "current")
	if limit > used || limit == used && l.File != "memory.max" {
		return nil
	}
	return &FieldError{
		Field: l.Field, File: l.File, Value: l.Value,
		Err: fmt.Errorf("%d bytes are in use and memory/checkBeforeUpdate is set: %w", used, unix.EBUSY),
	}
}

// number is what a file holds that holds one number; ok is false for "max" too.
func (g *Group) number(file string) (n uint64, ok bool) {
	text, err := kernfs.Read(g.fd, file)
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	return n, err == nil
}

// effective refuses processors and memory nodes that the groups above do not
// have: the kernel takes any that could exist, and if none is available it uses
// all of the parent's instead.
func (g *Group) effective(l Limit) error {
	if l.File != "cpuset.cpus" && l.File != "cpuset.mems" {
		return nil
	}
	text, err := kernfs.Read(g.fd, l.File+".effective")
	if err != nil {
		return ignoreGone(err)
	}
	have := ranges(text)
	for _, want := range ranges(l.Value) {
		for n := want[0]; n <= want[1]; n++ {
			if !slices.ContainsFunc(have, func(r [2]uint64) bool { return r[0] <= n && n <= r[1] }) {
				return fmt.Errorf("%d is not available here%s: %w", n, g.offered(l.File), unix.EINVAL)
			}
		}
	}
	return nil
}

// offered says which processors or memory nodes there are to choose from.
func (g *Group) offered(file string) string {
	above, err := kernfs.Read(g.fd, "../"+file+".effective")
	if err != nil {
		return ""
	}
	return ", where the group above has " + strings.TrimSpace(above)
}

// ranges reads "0-3,5"; what does not look so is left out.
func ranges(list string) (all [][2]uint64) {
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA == nil && errB == nil {
			all = append(all, [2]uint64{a, b})
		}
	}
	return all
}

// reason adds to an errno what the kernel cannot say with it.
func (g *Group) reason(l Limit, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return g.lacking(l, err)
	case errors.Is(err, unix.EINVAL):
		return g.invalid(l, err)
	case errors.Is(err, unix.ERANGE) && l.Controller() == "cpuset":
		return fmt.Errorf("not available here%s: %w", g.offered(l.File), err)
	case errors.Is(err, unix.EOPNOTSUPP) && l.AltFile != "":
		return fmt.Errorf("neither the BFQ scheduler nor io.cost is active on this device: %w", err)
	case errors.Is(err, unix.ENODEV) && l.Controller() == "io":
		return fmt.Errorf("there is no such block device, or it is a partition: limits are for whole disks: %w", err)
	case errors.Is(err, unix.ENODEV) && l.Controller() == "rdma":
		return fmt.Errorf("there is no RDMA device of that name (see /sys/class/infiniband): %w", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("the cgroup file system is mounted read-only; mount it writable, or remove the limit: %w", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("this file of cgroup %s is not delegated to us, or not to be written: %w", g.path, err)
	}
	return err
}

// lacking says why a file is not there.
func (g *Group) lacking(l Limit, err error) error {
	list, _ := kernfs.Read(g.fd, "cgroup.controllers")
	if c := l.Controller(); c != "" && !slices.Contains(strings.Fields(list), c) {
		return &ControllerError{Controller: c, Group: g.path, Err: err}
	}
	switch {
	case l.AltFile != "":
		return fmt.Errorf("this kernel has neither %s nor %s: %w", l.File, l.AltFile, err)
	case l.Controller() == "hugetlb":
		return fmt.Errorf("this machine has no huge pages of that size, but of %s: %w", g.pageSizes(), err)
	}
	return fmt.Errorf("this kernel has no file %s: %w", l.File, err)
}

func (g *Group) pageSizes() string {
	sizes := hugetlbSizes(g.fd)
	if len(sizes) == 0 {
		return "none"
	}
	slices.Sort(sizes)
	return strings.Join(sizes, ", ")
}

// invalid says which other value forbids this one.
func (g *Group) invalid(l Limit, err error) error {
	switch l.File {
	case "cpu.weight":
		if idle, _ := g.number("cpu.idle"); idle == 1 {
			return fmt.Errorf("an idle group has no weight; set cpu/idle to 0 too: %w", err)
		}
	case "cpu.max":
		if burst, _ := g.number("cpu.max.burst"); burst > 0 {
			return fmt.Errorf("the quota must not be below cpu.max.burst, which is %d; set cpu/burst too: %w", burst, err)
		}
	case "cpu.max.burst":
		quota, _ := kernfs.Read(g.fd, "cpu.max")
		quota, _, _ = strings.Cut(quota, " ")
		return fmt.Errorf("the burst must not be above the quota in cpu.max, which is %s; set cpu/quota too: %w", quota, err)
	}
	return err
}
