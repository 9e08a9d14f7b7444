package cgroups

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

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
	file, value := l.File, l.Value
	if l.Check {
		if err := g.checkUsage(value); err != nil {
			return &FieldError{Field: l.Field, File: file, Value: value, Err: err}
		}
	}
	if l.KeepFirst {
		value = g.keepFirst(l)
	}
	err := write(g.fd, file, value+"\n")
	if l.AltFile != "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)) {
		if alt := write(g.fd, l.AltFile, l.AltValue+"\n"); !errors.Is(alt, unix.ENOENT) {
			file, value, err = l.AltFile, l.AltValue, alt
		}
	}
	if err == nil || l.Optional && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &FieldError{Field: l.Field, File: file, Value: value, Err: g.reason(l, err)}
}

// keepFirst puts the word that the file begins with before the rest of the value.
func (g *Group) keepFirst(l Limit) string {
	old, _ := read(g.fd, l.File)
	first, _, ok := strings.Cut(old, " ")
	_, rest, _ := strings.Cut(l.Value, " ")
	if !ok {
		return l.Value
	}
	return first + " " + rest
}

// checkUsage refuses a memory limit that would begin by killing.
func (g *Group) checkUsage(limit string) error {
	max, err := strconv.ParseUint(limit, 10, 64)
	if err != nil {
		return nil // "max"
	}
	file, _ := read(g.fd, "memory.current")
	if used, _ := strconv.ParseUint(strings.TrimSpace(file), 10, 64); max <= used {
		return fmt.Errorf("%d bytes are in use and memory/checkBeforeUpdate is set: %w", used, unix.EBUSY)
	}
	return nil
}

// reason adds to an errno what the kernel cannot say with it.
func (g *Group) reason(l Limit, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) && l.AltFile != "" {
		return fmt.Errorf("neither the BFQ scheduler nor io.cost is active on this device: %w", err)
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	list, _ := read(g.fd, "cgroup.controllers")
	if c := l.Controller(); c != "" && !slices.Contains(strings.Fields(list), c) {
		return &ControllerError{Controller: c, Group: g.path, Err: err}
	}
	switch {
	case l.AltFile != "":
		return fmt.Errorf("this kernel has neither %s nor %s: %w", l.File, l.AltFile, err)
	case l.Controller() == "hugetlb":
		return fmt.Errorf("this machine has no huge pages of that size (see /sys/kernel/mm/hugepages): %w", err)
	}
	return fmt.Errorf("this kernel has no file %s: %w", l.File, err)
}
