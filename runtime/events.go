package runtime

import (
	"errors"
	"io/fs"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// Event is something that happened to a container.
type Event struct {
	ID    string
	Stats *cgroups.Stats // what it uses at this moment; nil: the kernel killed a process for memory
}

// Events calls each with the stats of a living container, once per interval, and with an
// event for each process that the kernel kills for memory, when it does. It returns when
// the container ends, or the error of each. If interval is 0 it calls each once, with the
// stats, and returns.
func (r *Runtime) Events(id string, interval time.Duration, each func(*Event) error) error {
	return wrap("events", id, r.events(id, interval, each))
}

func (r *Runtime) events(id string, interval time.Duration, each func(*Event) error) error {
	h, err := r.hold(id, false)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.living(); err != nil {
		return err
	}
	if interval <= 0 {
		return h.sample(each)
	}
	watch, err := h.group.Watch()
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer watch.Close()
	init, err := h.rec.Init.handle()
	switch {
	case err == nil:
		defer unix.Close(init)
	case errors.Is(err, unix.ESRCH):
		return ErrNotRunning
	case err != errForeign: // from another PID namespace only the cgroup can be watched
		return err
	}
	return h.follow(watch, init, interval, each)
}

// follow reports until the init, or the last process, has ended. Who has killed it is
// reported before that.
func (h *held) follow(watch *cgroups.Watch, init int, interval time.Duration, each func(*Event) error) error {
	for next := time.Now().Add(interval); ; {
		if err := watch.Wait(next, init); err != nil {
			return err
		}
		over := init >= 0 && ended(init)
		kills, populated, err := watch.News()
		if err != nil {
			return err
		}
		for range kills {
			if err := each(&Event{ID: h.rec.ID}); err != nil {
				return err
			}
		}
		if over || !populated {
			return nil
		}
		if now := time.Now(); !now.Before(next) {
			if err := h.sample(each); err != nil {
				return err
			}
			next = next.Add(interval * (1 + now.Sub(next)/interval)) // skip those that we missed
		}
	}
}

// sample reports what the container uses.
func (h *held) sample(each func(*Event) error) error {
	s, err := h.group.Stats()
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	if s.Pids == nil { // without the controller they can still be counted
		pids, _ := h.group.Procs()
		s.Pids = &cgroups.PidsStats{Current: uint64(len(pids)), Limit: math.MaxUint64}
	}
	return each(&Event{ID: h.rec.ID, Stats: s})
}

// MarshalJSON writes an event as runc does: its names, its order, nanoseconds where it
// has them, and nothing where it leaves out a zero.
func (e *Event) MarshalJSON() ([]byte, error) {
	w := &jsonWriter{}
	w.object(func() {
		if e.Stats == nil {
			w.text("type", "oom")
			w.text("id", e.ID)
			return
		}
		w.text("type", "stats")
		w.text("id", e.ID)
		w.key("data")
		w.object(func() { w.runcStats(e.Stats) })
	})
	return w.b, nil
}

func (w *jsonWriter) runcStats(s *cgroups.Stats) {
	w.nested("cpu", func() { w.runcCPU(s.CPU) })
	w.nested("cpuset", w.runcCPUSet)
	w.nested("memory", func() { w.runcMemory(s.Memory) })
	w.nested("pids", func() {
		if p := s.Pids; p != nil {
			w.positive("current", p.Current)
			if p.Limit != math.MaxUint64 {
				w.positive("limit", p.Limit)
			}
		}
	})
	w.nested("blkio", func() { w.runcIO(s.IO) })
	w.nested("hugetlb", func() {
		for _, size := range slices.Sorted(maps.Keys(s.Hugetlb)) {
			h := s.Hugetlb[size]
			w.nested(size, func() {
				w.positive("usage", h.Usage)
				w.count("failcnt", h.Failures)
			})
		}
	})
	w.nested("intel_rdt", func() {})
	w.null("network_interfaces")
}

func (w *jsonWriter) runcCPU(c *cgroups.CPUStats) {
	if c == nil {
		c = &cgroups.CPUStats{}
	}
	const ns = 1000
	w.nested("usage", func() {
		w.positive("total", c.UsageUsec*ns)
		w.count("kernel", c.SystemUsec*ns)
		w.count("user", c.UserUsec*ns)
	})
	w.nested("throttling", func() {
		w.positive("periods", c.Periods)
		w.positive("throttledPeriods", c.Throttled)
		w.positive("throttledTime", c.ThrottledUsec*ns)
	})
	w.pressure("psi", c.PSI, "total")
}

// runcCPUSet: runc reads these files of cgroup v1 only, but writes the zeros always.
func (w *jsonWriter) runcCPUSet() {
	for _, name := range []string{
		"cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
		"memory_pressure", "sched_load_balance", "sched_relax_domain_level",
	} {
		w.count(name, 0)
	}
}

func (w *jsonWriter) runcMemory(m *cgroups.MemoryStats) {
	if m == nil {
		m = &cgroups.MemoryStats{}
	}
	entry := func(name string, limit, usage, peak uint64) {
		w.nested(name, func() {
			w.count("limit", limit)
			w.positive("usage", usage)
			w.positive("max", peak)
			w.count("failcnt", 0)
		})
	}
	peak := uint64(0)
	if m.Peak != nil {
		peak = *m.Peak
	}
	w.positive("cache", m.Raw["file"])
	entry("usage", m.Limit, m.Usage, peak)
	// As in cgroup v1, what is in memory counts as swap too. No limit stays none.
	both := m.Limit + m.SwapLimit
	if both < m.Limit {
		both = math.MaxUint64
	}
	entry("swap", both, m.Usage+m.SwapUsage, 0)
	entry("kernel", 0, 0, 0)
	entry("kernelTCP", 0, 0, 0)
	if len(m.Raw) > 0 {
		w.nested("raw", func() {
			for _, key := range slices.Sorted(maps.Keys(m.Raw)) {
				w.count(key, m.Raw[key])
			}
		})
	}
	w.pressure("psi", m.PSI, "total")
}

func (w *jsonWriter) runcIO(s *cgroups.IOStats) {
	if s == nil {
		return
	}
	entries := func(name string, values func(d *cgroups.IODevice) (read, write uint64)) {
		w.list(name, 2*len(s.Devices), func(i int) {
			d, op := &s.Devices[i/2], "Read"
			value, written := values(d)
			if i%2 == 1 {
				op, value = "Write", written
			}
			w.object(func() {
				w.positive("major", uint64(d.Major))
				w.positive("minor", uint64(d.Minor))
				w.text("op", op)
				w.positive("value", value)
			})
		})
	}
	entries("ioServiceBytesRecursive", func(d *cgroups.IODevice) (uint64, uint64) { return d.ReadBytes, d.WriteBytes })
	entries("ioServicedRecursive", func(d *cgroups.IODevice) (uint64, uint64) { return d.ReadIOs, d.WriteIOs })
	w.pressure("psi", s.PSI, "total")
}

func (w *jsonWriter) nested(name string, members func()) {
	w.key(name)
	w.object(members)
}

// positive leaves out a zero.
func (w *jsonWriter) positive(name string, n uint64) {
	if n > 0 {
		w.count(name, n)
	}
}
