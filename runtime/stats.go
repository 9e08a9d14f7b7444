package runtime

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strconv"

	"github.com/huskrun/husk/cgroups"
)

// Stats returns what the kernel counts for a container. That of a stopped one, if its
// cgroup is still there, is what it has used in its life; else the error is ErrNotRunning.
func (r *Runtime) Stats(id string) (*cgroups.Stats, error) {
	s, err := r.stats(id)
	return s, wrap("stats", id, err)
}

func (r *Runtime) stats(id string) (*cgroups.Stats, error) {
	h, err := r.hold(id, false)
	if err != nil {
		return nil, err
	}
	defer h.close()
	if h.group == nil {
		return nil, ErrNotRunning
	}
	s, err := h.group.Stats()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	return s, err
}

// StateStats is the state of a container with its limits and what it uses.
type StateStats struct {
	State
	// Resources are the limits in force, as the kernel has them: by file, those that
	// differ from what a new cgroup has. It is what /linux/resources/unified takes. nil if
	// the container has no cgroup, any more or at all; then Stats is nil too.
	Resources map[string]string
	Stats     *cgroups.Stats
}

// StateStats returns the state of a container with its limits and what it uses.
func (r *Runtime) StateStats(id string) (*StateStats, error) {
	s, err := r.stateStats(id)
	return s, wrap("state", id, err)
}

func (r *Runtime) stateStats(id string) (*StateStats, error) {
	e, rec, err := r.find(id)
	if err != nil {
		return nil, err
	}
	defer e.close()
	s := &StateStats{State: *rec.state(e)}
	if rec.Cgroup == "" {
		r.warn("state " + id + ": the container has no cgroup of its own: neither limits nor use are known")
		return s, nil
	}
	g, err := rec.openGroup()
	if g == nil {
		return s, err
	}
	defer g.Close()
	resources, err := g.Limits()
	if err == nil {
		s.Stats, err = g.Stats()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // it went while we read
		s.Stats = nil
		return s, nil
	case err != nil:
		return nil, err
	}
	s.Resources = resources
	return s, nil
}

// MarshalJSON adds to the members of State, where there is a cgroup, "resources", and
// "stats" with these parts, each left out where its controller is missing:
//
//	cpu      usageUsec userUsec systemUsec, and periods throttledPeriods throttledUsec
//	         bursts burstUsec of cpu.max
//	memory   usage peak swapUsage swapPeak, of it anon file kernel shmem, in bytes; events
//	         as in memory.events
//	pids     current peak; refused: forks that the limit refused
//	io       devices: by "MAJOR:MINOR" readBytes writeBytes readIOs writeIOs discardBytes
//	         discardIOs
//	hugetlb  by page size usage reserved failures
//	rdma     by device hcaHandles hcaObjects
//	misc     by resource current peak failures
//
// The first three and io have "pressure" too: "some" and "full" with avg10 avg60 avg300,
// in percent, and totalUsec. What the kernel is too old for is left out.
func (s *StateStats) MarshalJSON() ([]byte, error) {
	w := &jsonWriter{}
	w.object(func() {
		s.members(w)
		if s.Resources != nil {
			w.key("resources")
			w.object(func() {
				for _, file := range slices.Sorted(maps.Keys(s.Resources)) {
					w.text(file, s.Resources[file])
				}
			})
		}
		if s.Stats != nil {
			w.key("stats")
			w.object(func() { w.stats(s.Stats) })
		}
	})
	return w.b, nil
}

// part writes an object unless it has nothing to be made of.
func part[T any](w *jsonWriter, name string, p *T, members func(*T)) {
	if p != nil {
		w.key(name)
		w.object(func() { members(p) })
	}
}

// dictionary writes a map as an object, in the order of its keys.
func dictionary[T any](w *jsonWriter, name string, m map[string]T, members func(T)) {
	if m == nil {
		return
	}
	w.key(name)
	w.object(func() {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			w.key(k)
			w.object(func() { members(m[k]) })
		}
	})
}

func (w *jsonWriter) stats(s *cgroups.Stats) {
	part(w, "cpu", s.CPU, w.cpu)
	part(w, "memory", s.Memory, w.memory)
	part(w, "pids", s.Pids, func(p *cgroups.PidsStats) {
		w.count("current", p.Current)
		w.known("peak", p.Peak)
		w.count("refused", p.Events.Max)
	})
	part(w, "io", s.IO, w.io)
	dictionary(w, "hugetlb", s.Hugetlb, func(h cgroups.HugetlbStats) {
		w.count("usage", h.Usage)
		w.count("reserved", h.Reserved)
		w.count("failures", h.Failures)
	})
	if s.Rdma != nil {
		w.key("rdma")
		w.object(func() {
			for _, d := range s.Rdma {
				w.key(d.Device)
				w.object(func() {
					w.count("hcaHandles", d.HcaHandles)
					w.count("hcaObjects", d.HcaObjects)
				})
			}
		})
	}
	dictionary(w, "misc", s.Misc, func(m cgroups.MiscStats) {
		w.count("current", m.Current)
		w.known("peak", m.Peak)
		w.count("failures", m.Failures)
	})
}

func (w *jsonWriter) cpu(c *cgroups.CPUStats) {
	w.count("usageUsec", c.UsageUsec)
	w.count("userUsec", c.UserUsec)
	w.count("systemUsec", c.SystemUsec)
	w.count("periods", c.Periods)
	w.count("throttledPeriods", c.Throttled)
	w.count("throttledUsec", c.ThrottledUsec)
	w.count("bursts", c.Bursts)
	w.count("burstUsec", c.BurstUsec)
	w.pressure("pressure", c.PSI, "totalUsec")
}

func (w *jsonWriter) memory(m *cgroups.MemoryStats) {
	w.count("usage", m.Usage)
	w.known("peak", m.Peak)
	w.count("swapUsage", m.SwapUsage)
	w.known("swapPeak", m.SwapPeak)
	for _, key := range []string{"anon", "file", "kernel", "shmem"} {
		if n, ok := m.Raw[key]; ok {
			w.count(key, n)
		}
	}
	w.key("events")
	w.object(func() {
		w.count("low", m.Events.Low)
		w.count("high", m.Events.High)
		w.count("max", m.Events.Max)
		w.count("oom", m.Events.OOM)
		w.count("oom_kill", m.Events.OOMKill)
		w.count("oom_group_kill", m.Events.OOMGroupKill)
	})
	w.pressure("pressure", m.PSI, "totalUsec")
}

func (w *jsonWriter) io(s *cgroups.IOStats) {
	w.key("devices")
	w.object(func() {
		for _, d := range s.Devices {
			w.key(strconv.Itoa(int(d.Major)) + ":" + strconv.Itoa(int(d.Minor)))
			w.object(func() {
				w.count("readBytes", d.ReadBytes)
				w.count("writeBytes", d.WriteBytes)
				w.count("readIOs", d.ReadIOs)
				w.count("writeIOs", d.WriteIOs)
				w.count("discardBytes", d.DiscardBytes)
				w.count("discardIOs", d.DiscardIOs)
			})
		}
	})
	w.pressure("pressure", s.PSI, "totalUsec")
}

// pressure writes both lines of a pressure file; total is what its counter is called.
func (w *jsonWriter) pressure(name string, p *cgroups.PSI, total string) {
	part(w, name, p, func(p *cgroups.PSI) {
		line := func(d *cgroups.PSIData) {
			w.fraction("avg10", d.Avg10)
			w.fraction("avg60", d.Avg60)
			w.fraction("avg300", d.Avg300)
			w.count(total, d.TotalUsec)
		}
		part(w, "some", &p.Some, line)
		part(w, "full", &p.Full, line)
	})
}

func (w *jsonWriter) count(name string, n uint64) {
	w.key(name)
	w.b = strconv.AppendUint(w.b, n, 10)
}

// known leaves out what the kernel does not count.
func (w *jsonWriter) known(name string, n *uint64) {
	if n != nil {
		w.count(name, *n)
	}
}

func (w *jsonWriter) fraction(name string, f float64) {
	w.key(name)
	w.b = strconv.AppendFloat(w.b, f, 'f', -1, 64)
}
