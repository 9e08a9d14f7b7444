package runtime

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/seccomp"
	"golang.org/x/sys/unix"
)

// Report is what [RunOptions.Report] asks for: how a process ended and what its container
// used, husk's own work in it included. It is written as one JSON object that has all of
// these members, null where something is not known:
//
//	id          of the container
//	exitStatus  of the process; null if a signal killed it, or if it never ran
//	signal      that killed it, "SIGKILL"
//	error       why it never ran
//	started     when the process was executed
//	wallUsec    how long it ran
//	unseenUsec  its last part that is not in what follows: none, but systemd removes a
//	            cgroup with its last process, at times before husk has read it again
//	cpu         usageUsec userUsec systemUsec throttledUsec
//	memory      peakBytes swapPeakBytes oomKills
//	pids        peak
//	io          readBytes writeBytes of all devices together
//	network     receivedBytes sentBytes of all interfaces but lo; null where the network
//	            namespace is not the container's own
//	deniedCalls how often which system call was answered with an error by the filter; null
//	            unless that was asked for
//
// Where no cgroup tells of cpu, it is what the process and those it has waited for have
// used, if it is the first one of a PID namespace: then those are all. cpu, memory and io
// have "pressureUsec" too: how long some, and all ("full"), of the tasks waited for want of
// it. A part is null where its controller does not work. In a cgroup that was there before,
// peaks are null: they may be of those who lived in it earlier; the rest counts from the
// moment when the process was executed.
type Report struct {
	ID      string
	Status  int // exit status, -1: none
	Signal  unix.Signal
	Err     error
	Started time.Time // zero: never
	Ended   bool
	Wall    time.Duration
	Unseen  time.Duration  // of that, what is missing at the end of Stats
	Stats   *cgroups.Stats // nil: not known
	Network *Traffic       // nil: not known
	Denied  []seccomp.Denial
	Counted bool  // what was denied is known
	Cause   error // why the kernel has killed the process; nil: it has not, as far as is known
}

// MarshalJSON writes the object.
func (r *Report) MarshalJSON() ([]byte, error) {
	w := &jsonWriter{}
	status, wall, unseen := uint64(r.Status), uint64(r.Wall.Microseconds()), uint64(r.Unseen.Microseconds())
	started, failure := "", ""
	if !r.Started.IsZero() {
		started = r.Started.UTC().Format(time.RFC3339Nano)
	}
	if r.Err != nil {
		failure = r.Err.Error()
	}
	s := r.Stats
	if s == nil {
		s = &cgroups.Stats{}
	}
	w.object(func() {
		w.text("id", r.ID)
		w.countIf("exitStatus", status, r.Status >= 0)
		w.textOrNull("signal", signalName(r.Signal))
		w.textOrNull("error", failure)
		w.textOrNull("started", started)
		w.countIf("wallUsec", wall, r.Ended)
		w.countIf("unseenUsec", unseen, r.Ended && r.Stats != nil)
		partOrNull(w, "cpu", s.CPU, w.usedCPU)
		partOrNull(w, "memory", s.Memory, w.usedMemory)
		partOrNull(w, "pids", s.Pids, func(p *cgroups.PidsStats) { w.countOrNull("peak", p.Peak) })
		partOrNull(w, "io", s.IO, w.usedIO)
		partOrNull(w, "network", r.Network, func(t *Traffic) {
			w.count("receivedBytes", t.Received)
			w.count("sentBytes", t.Sent)
		})
		w.denied(r)
	})
	return w.b, nil
}

func (w *jsonWriter) denied(r *Report) {
	if !r.Counted {
		w.null("deniedCalls")
		return
	}
	w.key("deniedCalls")
	w.object(func() {
		for _, d := range r.Denied {
			w.count(d.Call, d.Count)
		}
	})
}

func (w *jsonWriter) usedCPU(c *cgroups.CPUStats) {
	w.count("usageUsec", c.UsageUsec)
	w.count("userUsec", c.UserUsec)
	w.count("systemUsec", c.SystemUsec)
	w.countIf("throttledUsec", c.ThrottledUsec, c.Bandwidth)
	w.waited(c.PSI)
}

func (w *jsonWriter) usedMemory(m *cgroups.MemoryStats) {
	w.countOrNull("peakBytes", m.Peak)
	w.countOrNull("swapPeakBytes", m.SwapPeak)
	w.count("oomKills", m.Events.OOMKill)
	w.waited(m.PSI)
}

func (w *jsonWriter) usedIO(s *cgroups.IOStats) {
	var read, written uint64
	for _, d := range s.Devices {
		read, written = read+d.ReadBytes, written+d.WriteBytes
	}
	w.count("readBytes", read)
	w.count("writeBytes", written)
	w.waited(s.PSI)
}

func (w *jsonWriter) waited(p *cgroups.PSI) {
	partOrNull(w, "pressureUsec", p, func(p *cgroups.PSI) {
		w.count("some", p.Some.TotalUsec)
		w.count("full", p.Full.TotalUsec)
	})
}

func (w *jsonWriter) null(name string) {
	w.key(name)
	w.b = append(w.b, "null"...)
}

// partOrNull writes an object, null where there is nothing to be made of.
func partOrNull[T any](w *jsonWriter, name string, p *T, members func(*T)) {
	if p == nil {
		w.null(name)
	}
	part(w, name, p, members)
}

func (w *jsonWriter) countIf(name string, n uint64, known bool) {
	if known {
		w.count(name, n)
	} else {
		w.null(name)
	}
}

func (w *jsonWriter) countOrNull(name string, n *uint64) {
	if n == nil {
		w.null(name)
	}
	w.known(name, n)
}

func (w *jsonWriter) textOrNull(name, s string) {
	if s == "" {
		w.null(name)
	} else {
		w.text(name, s)
	}
}

// signalName is the signal's name, its number where it has none, "" for 0.
func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" || s == 0 {
		return name
	}
	return strconv.Itoa(int(s))
}

// reporter writes the report of a run. The nil one has none to write.
type reporter struct {
	Report
	out     *output // nil: none
	tell    func(*Report)
	before  *cgroups.Stats // of a cgroup that was there before
	first   usage          // that of the init
	written bool
	traffic *traffic         // nil: not watched
	denials *seccomp.Denials // nil: not counted
}

// newReporter makes sure, before anything is started, that the report has a place.
func newReporter(id string, o RunOptions) (*reporter, error) {
	switch {
	case o.Report == "" && o.Ended == nil:
		return nil, nil
	case o.Detach:
		return nil, errors.New("a report is written when the process has ended, for which a detached run does not wait")
	}
	rep := &reporter{Report: Report{ID: id, Status: -1}, tell: o.Ended}
	if o.Report == "" {
		return rep, nil
	}
	var err error
	rep.out, err = newOutput("report", o.Report, 4<<10)
	if err != nil {
		return nil, err
	}
	return rep, nil
}

func (r *reporter) close() {
	if r != nil {
		r.traffic.close()
		r.out.close()
	}
}

// watchTraffic begins to, of a network namespace that is the container's own.
func (r *reporter) watchTraffic(c *creation) {
	if r != nil && c.plan.isNew(unix.CLONE_NEWNET) {
		r.traffic = watchTraffic(c.proc.PID)
	}
}

// deniedPatience is how long the end of the last process may take to come through.
const deniedPatience = 5 * time.Second

// denied takes over what was counted, of processes that are dead.
func (r *reporter) denied(c seccomp.Compiler) {
	if r == nil || r.denials == nil || r.denials.Ended() == nil {
		return
	}
	select {
	case <-r.denials.Ended():
		r.Denied, r.Counted = r.denials.List(c)
	case <-time.After(deniedPatience): // somebody of another PID namespace
	}
}

// expect is called when the process is about to be executed: it may have ended, and
// systemd removed its group, before husk does anything more.
func (r *reporter) expect(c *creation) {
	if r != nil && c.rec.Unit != "" {
		r.first.read(c.group, false)
	}
}

// begin notes that the process has been executed.
func (r *reporter) begin(rec *record, g *cgroups.Group) {
	if r == nil {
		return
	}
	r.Started = time.Now()
	if g != nil && !slices.Contains(rec.CgroupMade, rec.Cgroup) {
		r.before, _ = g.Stats()
	}
}

// end writes the report of a process that has ended and used that.
func (r *reporter) end(info siginfo, used usage) error {
	if r == nil {
		return nil
	}
	now := time.Now()
	r.Ended, r.Wall = true, now.Sub(r.Started)
	if r.Signal = unix.Signal(info.signal); r.Signal == 0 {
		r.Status = info.code
	}
	if r.Stats = used.Stats; r.Stats != nil {
		forget(r.Stats, r.before)
	}
	r.Network = r.traffic.end()
	r.traffic = nil
	if !used.last {
		r.Unseen = min(now.Sub(used.at), r.Wall)
	}
	if err := r.write(); err != nil {
		return &Error{
			Path: r.out.path, Err: err, Exit: info.exitStatus(),
			Hint: "the process ran to its end; the exit status is its own, or 1 if that was 0",
		}
	}
	return nil
}

// forget takes what was counted before from the counters of s, and the peaks.
func forget(s, before *cgroups.Stats) {
	if before == nil {
		return
	}
	if c, b := s.CPU, before.CPU; c != nil && b != nil {
		c.UsageUsec -= b.UsageUsec
		c.UserUsec -= b.UserUsec
		c.SystemUsec -= b.SystemUsec
		c.ThrottledUsec -= b.ThrottledUsec
		forgetWaits(c.PSI, b.PSI)
	}
	if m, b := s.Memory, before.Memory; m != nil && b != nil {
		m.Peak, m.SwapPeak = nil, nil
		m.Events.OOMKill -= b.Events.OOMKill
		forgetWaits(m.PSI, b.PSI)
	}
	if s.Pids != nil {
		s.Pids.Peak = nil
	}
	if io, b := s.IO, before.IO; io != nil && b != nil {
		for _, old := range b.Devices {
			for k := range io.Devices {
				if d := &io.Devices[k]; d.Major == old.Major && d.Minor == old.Minor {
					d.ReadBytes -= old.ReadBytes
					d.WriteBytes -= old.WriteBytes
				}
			}
		}
		forgetWaits(io.PSI, b.PSI)
	}
}

func forgetWaits(p, before *cgroups.PSI) {
	if p != nil && before != nil {
		p.Some.TotalUsec -= before.Some.TotalUsec
		p.Full.TotalUsec -= before.Full.TotalUsec
	}
}

// failed writes the report of a run that came to nothing.
func (r *reporter) failed(cause error) error {
	if r == nil || r.written || cause == nil {
		return nil
	}
	r.Err = cause
	return r.write()
}

func (r *reporter) write() error {
	r.written = true // or has been tried
	if r.tell != nil {
		r.tell(&r.Report)
	}
	if r.out == nil {
		return nil
	}
	b, err := r.MarshalJSON()
	if err != nil {
		return r.out.fail(err)
	}
	return r.out.write(append(b, '\n'))
}
