package main

import (
	"errors"
	"flag"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limitFlags are the flags that set single limits, in the words of runc.
type limitFlags struct {
	changes []func(r *specs.LinuxResources) // in the order of the command line
	rdt     *specs.LinuxIntelRdt            // nil: none of its schemas is given
}

func (l *limitFlags) define(fs *flag.FlagSet) {
	limit(l, fs, "memory", "memory limit, in bytes or as in 512m, -1 for none; `size`", parseSize,
		func(r *specs.LinuxResources, n *int64) { part(&r.Memory).Limit = n })
	limit(l, fs, "memory-reservation", "memory that is kept from being reclaimed; `size`", parseSize,
		func(r *specs.LinuxResources, n *int64) { part(&r.Memory).Reservation = n })
	limit(l, fs, "memory-swap", "limit of memory and swap together; `size`", parseSize,
		func(r *specs.LinuxResources, n *int64) { part(&r.Memory).Swap = n })
	limit(l, fs, "cpu-share", "weight among the groups beside it; `shares`, of which 1024 are usual", parseUint,
		func(r *specs.LinuxResources, n *uint64) { part(&r.CPU).Shares = n })
	limit(l, fs, "cpu-quota", "`microseconds` that it may run in each period, -1 for no limit", parseInt,
		func(r *specs.LinuxResources, n *int64) { part(&r.CPU).Quota = n })
	limit(l, fs, "cpu-period", "length of a period in `microseconds`", parseUint,
		func(r *specs.LinuxResources, n *uint64) { part(&r.CPU).Period = n })
	limit(l, fs, "cpu-burst", "`microseconds` that it may save up for later periods", parseUint,
		func(r *specs.LinuxResources, n *uint64) { part(&r.CPU).Burst = n })
	limit(l, fs, "cpu-idle", "`1`: run it only when nothing else runs; 0: as usual", parseInt,
		func(r *specs.LinuxResources, n *int64) { part(&r.CPU).Idle = n })
	limit(l, fs, "cpu-rt-period", "for cgroup v1: an error, as in a config (`microseconds`)", parseUint,
		func(r *specs.LinuxResources, n *uint64) { part(&r.CPU).RealtimePeriod = n })
	limit(l, fs, "cpu-rt-runtime", "for cgroup v1: an error, as in a config (`microseconds`)", parseInt,
		func(r *specs.LinuxResources, n *int64) { part(&r.CPU).RealtimeRuntime = n })
	limit(l, fs, "cpuset-cpus", "cpus to run on, a `list` as in 0-3,5", parseText,
		func(r *specs.LinuxResources, s *string) { part(&r.CPU).Cpus = *s })
	limit(l, fs, "cpuset-mems", "memory nodes to use, a `list` as in 0,1", parseText,
		func(r *specs.LinuxResources, s *string) { part(&r.CPU).Mems = *s })
	limit(l, fs, "blkio-weight", "`weight` of its input and output, 10 to 1000", parseWeight,
		func(r *specs.LinuxResources, n *uint16) { part(&r.BlockIO).Weight = n })
	limit(l, fs, "pids-limit", "`number` of processes and threads, -1 for no limit", parseInt,
		func(r *specs.LinuxResources, n *int64) { part(&r.Pids).Limit = n })
	schema(l, fs, "l3-cache-schema", "share of the L3 caches that the container's class of resctrl has; `schema` as in L3:0=7f0;1=1f",
		func(r *specs.LinuxIntelRdt) *string { return &r.L3CacheSchema })
	schema(l, fs, "mem-bw-schema", "memory bandwidth of that class; `schema` as in MB:0=20;1=70",
		func(r *specs.LinuxIntelRdt) *string { return &r.MemBwSchema })
}

// apply sets what was given in r. Flags win over what is there.
func (l *limitFlags) apply(r *specs.LinuxResources) {
	for _, change := range l.changes {
		change(r)
	}
}

// schema defines a flag that sets a schema of resctrl.
func schema(l *limitFlags, fs *flag.FlagSet, name, text string, field func(*specs.LinuxIntelRdt) *string) {
	fs.Func(name, text, func(s string) error {
		if s != "" {
			*field(part(&l.rdt)) = s
		}
		return nil
	})
}

// limit defines one flag. An empty value is none, as for runc.
func limit[T any](l *limitFlags, fs *flag.FlagSet, name, text string, parse func(string) (T, error), set func(*specs.LinuxResources, *T)) {
	fs.Func(name, text, func(s string) error {
		if s == "" {
			return nil
		}
		v, err := parse(s)
		l.changes = append(l.changes, func(r *specs.LinuxResources) { set(r, &v) })
		return err
	})
}

// part makes sure that a part of the resources is there.
func part[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

var errNumber = errors.New("not a whole number in range")

func parseInt(s string) (int64, error) { return whole(strconv.ParseInt(s, 10, 64)) }

func parseUint(s string) (uint64, error) { return whole(strconv.ParseUint(s, 10, 64)) }

func parseWeight(s string) (uint16, error) {
	n, err := whole(strconv.ParseUint(s, 10, 16))
	return uint16(n), err
}

func whole[T any](n T, err error) (T, error) {
	if err != nil {
		err = errNumber
	}
	return n, err
}

func parseText(s string) (string, error) { return s, nil }

var errSize = errors.New("not a size: write bytes, or a number with one of k, m, g, t, p, or -1 for no limit")

// parseSize understands 1048576, 512k, 1.5G, 2 GiB and -1. Units are powers of 1024.
func parseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	text, shift := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "b"), "i"), 0
	if last := len(text) - 1; last > 0 {
		if unit := strings.IndexByte("kmgtp", text[last]); unit >= 0 {
			text, shift = strings.TrimSuffix(text[:last], " "), 10*(unit+1)
		}
	}
	if strings.Trim(text, "0123456789.") != "" {
		return 0, errSize
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n <= math.MaxInt64>>shift {
		return n << shift, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if n *= float64(int64(1) << shift); err != nil || n >= math.MaxInt64 {
		return 0, errSize
	}
	return int64(n), nil
}
