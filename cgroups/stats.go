package cgroups

import (
	"cmp"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Stats is what the kernel counts for a group and all groups below it. A part is
// nil where its controller does not work in the group; a pointer within a part
// is nil, and a number 0, where the kernel is too old for it. As a limit,
// math.MaxUint64 stands for "max": none.
type Stats struct {
	CPU     *CPUStats // without the controller still usage and pressure
	Memory  *MemoryStats
	Pids    *PidsStats
	IO      *IOStats
	Hugetlb map[string]HugetlbStats // by page size, "2MB"
	Rdma    []RdmaStats
	Misc    map[string]MiscStats // by resource, "sev"
}

// PSI is the pressure stall information of one resource: how much time tasks
// lost waiting for it. For cpu the full line may be missing and is then zero.
type PSI struct{ Some, Full PSIData }

// PSIData has percentages of the last 10, 60 and 300 seconds and the total.
type PSIData struct {
	Avg10, Avg60, Avg300 float64
	TotalUsec            uint64
}

// CPUStats comes from cpu.stat and cpu.pressure.
type CPUStats struct {
	UsageUsec, UserUsec, SystemUsec   uint64
	Bandwidth                         bool   // the controller works: what follows is counted
	Periods, Throttled, ThrottledUsec uint64 // of cpu.max
	Bursts, BurstUsec                 uint64 // of cpu.max.burst
	PSI                               *PSI
}

// MemoryStats comes from the files memory.*.
type MemoryStats struct {
	Usage               uint64
	Peak                *uint64 // Linux 5.19
	Limit, High         uint64  // memory.max, memory.high
	Low, Min            uint64  // what is protected from reclaim
	SwapUsage           uint64
	SwapPeak            *uint64 // Linux 6.5
	SwapLimit, SwapHigh uint64
	Events              MemoryEvents
	SwapEvents          SwapEvents
	Raw                 map[string]uint64 // memory.stat
	PSI                 *PSI
}

// MemoryEvents is what memory.events counts for a group and all groups below it.
type MemoryEvents struct {
	Low, High, Max uint64 // how often usage went below, over, up to the boundary
	OOM            uint64 // how often the limit was reached and reclaim failed
	OOMKill        uint64 // processes killed for it
	OOMGroupKill   uint64 // groups killed for it
}

// SwapEvents is what memory.swap.events counts.
type SwapEvents struct {
	High, Max uint64 // how often usage went over, up to the boundary
	Fail      uint64 // how often swap could not be had, for the limit or in the whole machine
}

// PidsStats comes from the files pids.*.
type PidsStats struct {
	Current uint64
	Peak    *uint64 // Linux 6.6
	Limit   uint64
	Events  PidsEvents
}

// PidsEvents is what pids.events counts.
type PidsEvents struct {
	Max uint64 // forks refused
}

// IOStats comes from io.stat and io.pressure.
type IOStats struct {
	Devices []IODevice
	PSI     *PSI
}

// IODevice is what went to and from one block device.
type IODevice struct {
	Major, Minor             uint32
	ReadBytes, WriteBytes    uint64
	ReadIOs, WriteIOs        uint64
	DiscardBytes, DiscardIOs uint64
}

// HugetlbStats counts, in bytes, huge pages of one size: those in use and those
// that mmap reserved.
type HugetlbStats struct {
	Usage, Limit            uint64
	Failures                uint64 // how often the limit refused a page
	Reserved, ReservedLimit uint64
}

// RdmaStats counts what is open at one RDMA device.
type RdmaStats struct {
	Device                 string
	HcaHandles, HcaObjects uint64
	HandlesLimit           uint64
	ObjectsLimit           uint64
}

// MiscStats counts one resource of the misc controller.
type MiscStats struct {
	Current  uint64
	Peak     *uint64 // Linux 6.11
	Limit    uint64
	Failures uint64 // how often the limit refused one
}

// Stats reads what the kernel counts, one read(2) for each file. What can be
// read is returned beside an error too. A group that is gone is fs.ErrNotExist.
func (g *Group) Stats() (*Stats, error) {
	r := &reader{dir: g.fd, buf: make([]byte, 8192)}
	s := &Stats{CPU: r.cpu(), Memory: r.memory(), Pids: r.pids(), IO: r.io(), Hugetlb: r.hugetlb(), Rdma: r.rdma(), Misc: r.misc()}
	// Every group has this file. Last, it tells that none was missing because the group
	// was removed meanwhile.
	if _, ok := r.text("cgroup.controllers"); !ok && r.err == nil {
		return &Stats{}, &fs.PathError{Op: "read statistics of cgroup", Path: g.path, Err: unix.ENOENT}
	}
	if r.err != nil {
		return s, &fs.PathError{Op: "read " + r.file + " of cgroup", Path: g.path, Err: r.err}
	}
	return s, nil
}

func (r *reader) cpu() *CPUStats {
	stat, ok := r.text("cpu.stat")
	if !ok {
		return nil
	}
	c := &CPUStats{PSI: r.psi("cpu.pressure")}
	flat(stat, func(key string, n uint64) {
		switch key {
		case "usage_usec":
			c.UsageUsec = n
		case "user_usec":
			c.UserUsec = n
		case "system_usec":
			c.SystemUsec = n
		case "nr_periods":
			c.Periods, c.Bandwidth = n, true
		case "nr_throttled":
			c.Throttled = n
		case "throttled_usec":
			c.ThrottledUsec = n
		case "nr_bursts":
			c.Bursts = n
		case "burst_usec":
			c.BurstUsec = n
		}
	})
	return c
}

func (r *reader) memory() *MemoryStats {
	usage := r.optional("memory.current")
	if usage == nil {
		return nil
	}
	m := &MemoryStats{
		Usage: *usage, Peak: r.optional("memory.peak"),
		Limit: r.limit("memory.max"), High: r.limit("memory.high"),
		Low: r.number("memory.low"), Min: r.number("memory.min"),
		SwapUsage: r.number("memory.swap.current"), SwapPeak: r.optional("memory.swap.peak"),
		SwapLimit: r.limit("memory.swap.max"), SwapHigh: r.limit("memory.swap.high"),
		Raw: map[string]uint64{}, PSI: r.psi("memory.pressure"),
	}
	if file, ok := r.text("memory.events"); ok {
		m.Events = parseMemoryEvents(file)
	}
	if file, ok := r.text("memory.swap.events"); ok {
		m.SwapEvents = parseSwapEvents(file)
	}
	if file, ok := r.text("memory.stat"); ok {
		flat(file, func(key string, n uint64) { m.Raw[key] = n })
	}
	return m
}

func parseMemoryEvents(file string) (ev MemoryEvents) {
	flat(file, func(key string, n uint64) {
		switch key {
		case "low":
			ev.Low = n
		case "high":
			ev.High = n
		case "max":
			ev.Max = n
		case "oom":
			ev.OOM = n
		case "oom_kill":
			ev.OOMKill = n
		case "oom_group_kill":
			ev.OOMGroupKill = n
		}
	})
	return ev
}

func parseSwapEvents(file string) (ev SwapEvents) {
	flat(file, func(key string, n uint64) {
		switch key {
		case "high":
			ev.High = n
		case "max":
			ev.Max = n
		case "fail":
			ev.Fail = n
		}
	})
	return ev
}

func (r *reader) pids() *PidsStats {
	current := r.optional("pids.current")
	if current == nil {
		return nil
	}
	p := &PidsStats{Current: *current, Peak: r.optional("pids.peak"), Limit: r.limit("pids.max")}
	if file, ok := r.text("pids.events"); ok {
		p.Events.Max, _ = value(file, "max")
	}
	return p
}

func (r *reader) io() *IOStats {
	stat, ok := r.text("io.stat")
	if !ok {
		return nil
	}
	return &IOStats{Devices: parseIO(stat), PSI: r.psi("io.pressure")}
}

// parseIO reads "8:0 rbytes=1 wbytes=2 …". Some kernels name devices without
// numbers at the head of the next one's line: the last name before a number counts.
func parseIO(file string) (devices []IODevice) {
	for line := range strings.Lines(file) {
		var dev IODevice
		named, counted := false, false
		for word := range strings.FieldsSeq(line) {
			key, text, ok := strings.Cut(word, "=")
			if !ok {
				dev.Major, dev.Minor, named = parseDevice(word)
				continue
			}
			if to := dev.counter(key); to != nil {
				*to, counted = parseNumber(text), true
			}
		}
		if named && counted {
			devices = append(devices, dev)
		}
	}
	return devices
}

func (d *IODevice) counter(key string) *uint64 {
	switch key {
	case "rbytes":
		return &d.ReadBytes
	case "wbytes":
		return &d.WriteBytes
	case "rios":
		return &d.ReadIOs
	case "wios":
		return &d.WriteIOs
	case "dbytes":
		return &d.DiscardBytes
	case "dios":
		return &d.DiscardIOs
	}
	return nil
}

func parseDevice(s string) (major, minor uint32, ok bool) {
	a, b, _ := strings.Cut(s, ":")
	x, errX := strconv.ParseUint(a, 10, 32)
	y, errY := strconv.ParseUint(b, 10, 32)
	return uint32(x), uint32(y), errX == nil && errY == nil
}

func (r *reader) hugetlb() map[string]HugetlbStats {
	sizes := hugetlbSizes(r.dir)
	if len(sizes) == 0 {
		return nil
	}
	all := make(map[string]HugetlbStats, len(sizes))
	for _, size := range sizes {
		file := "hugetlb." + size
		h := HugetlbStats{
			Usage: r.number(file + ".current"), Limit: r.limit(file + ".max"),
			Reserved: r.number(file + ".rsvd.current"), ReservedLimit: r.limit(file + ".rsvd.max"),
		}
		for _, limit := range [...]*uint64{&h.Limit, &h.ReservedLimit} {
			if *limit > noHugetlb {
				*limit = math.MaxUint64
			}
		}
		if events, ok := r.text(file + ".events"); ok {
			h.Failures, _ = value(events, "max")
		}
		all[size] = h
	}
	return all
}

// hugetlbSizes finds the sizes of huge pages by the names of a group's files.
func hugetlbSizes(group int) []string {
	dir, err := kernfs.Open(group, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer kernfs.Close(dir)
	sizes := kernfs.List(dir, func(_ byte, name []byte) bool {
		size, ok := strings.CutPrefix(string(name), "hugetlb.")
		size, current := strings.CutSuffix(size, ".current")
		return ok && current && !strings.Contains(size, ".") // "2MB.rsvd"
	})
	for i := range sizes {
		sizes[i] = strings.TrimSuffix(strings.TrimPrefix(sizes[i], "hugetlb."), ".current")
	}
	return sizes
}

func (r *reader) rdma() (devices []RdmaStats) {
	current, ok := r.text("rdma.current")
	if !ok {
		return nil
	}
	limits, _ := r.text("rdma.max")
	for line := range strings.Lines(current) {
		name, counts, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			continue
		}
		d := RdmaStats{Device: name}
		d.HcaHandles, d.HcaObjects = parseHCA(counts)
		d.HandlesLimit, d.ObjectsLimit = parseHCA(lineOf(limits, name))
		devices = append(devices, d)
	}
	return devices
}

// parseHCA reads "hca_handle=2 hca_object=max".
func parseHCA(line string) (handles, objects uint64) {
	for word := range strings.FieldsSeq(line) {
		switch key, text, _ := strings.Cut(word, "="); key {
		case "hca_handle":
			handles = parseNumber(text)
		case "hca_object":
			objects = parseNumber(text)
		}
	}
	return handles, objects
}

func (r *reader) misc() map[string]MiscStats {
	current, ok := r.text("misc.current")
	if !ok {
		return nil
	}
	limits, _ := r.text("misc.max")
	peaks, _ := r.text("misc.peak")
	events, _ := r.text("misc.events")
	all := map[string]MiscStats{}
	flat(current, func(key string, n uint64) {
		m := MiscStats{Current: n, Limit: parseNumber(lineOf(limits, key))}
		if peak, ok := value(peaks, key); ok {
			m.Peak = &peak
		}
		m.Failures, _ = value(events, key+".max")
		all[key] = m
	})
	return all
}

// reader reads the files of a group into one buffer. A file that is not there is
// no error; of real ones it keeps the first.
type reader struct {
	dir  int
	buf  []byte
	file string
	err  error
}

// text is the content of a file by one read(2), which is all of it when it is
// short: each of the files that are read here is rendered as a whole.
func (r *reader) text(name string) (string, bool) {
	fd, err := kernfs.Open(r.dir, name, unix.O_RDONLY)
	if err != nil {
		return "", r.failed(name, err)
	}
	defer kernfs.Close(fd)
	for size := 0; ; {
		var n int
		err := kernfs.Retry(func() (err error) {
			n, err = unix.Pread(fd, r.buf[size:], int64(size))
			return err
		})
		if err != nil {
			return "", r.failed(name, err)
		}
		size += n
		if n == 0 || size < len(r.buf) {
			return string(r.buf[:size]), true
		}
		r.buf = slices.Grow(r.buf, len(r.buf))
		r.buf = r.buf[:cap(r.buf)]
	}
}

// failed keeps err unless it means that this kernel or group does not have the
// file: EOPNOTSUPP is what pressure files say when PSI is switched off.
func (r *reader) failed(name string, err error) bool {
	if r.err == nil && !kernfs.Gone(err) && !errors.Is(err, unix.EOPNOTSUPP) {
		r.file, r.err = name, err
	}
	return false
}

// optional is the number in a file, nil without it.
func (r *reader) optional(name string) *uint64 {
	file, ok := r.text(name)
	if !ok {
		return nil
	}
	n := parseNumber(strings.TrimSuffix(file, "\n"))
	return &n
}

// number is the number in a file, 0 without it.
func (r *reader) number(name string) uint64 { return *cmp.Or(r.optional(name), new(uint64)) }

// limit is the number in a file, none without it.
func (r *reader) limit(name string) uint64 {
	if n := r.optional(name); n != nil {
		return *n
	}
	return math.MaxUint64
}

func (r *reader) psi(name string) *PSI {
	file, ok := r.text(name)
	if !ok {
		return nil
	}
	return parsePSI(file)
}

// parsePSI reads "some avg10=0.12 avg60=0.34 avg300=0.56 total=789" and the same for "full".
func parsePSI(file string) *PSI {
	p := new(PSI)
	for line := range strings.Lines(file) {
		var to *PSIData
		for word := range strings.FieldsSeq(line) {
			key, text, _ := strings.Cut(word, "=")
			switch {
			case key == "some":
				to = &p.Some
			case key == "full":
				to = &p.Full
			case to == nil:
			case key == "avg10":
				to.Avg10 = parsePercent(text)
			case key == "avg60":
				to.Avg60 = parsePercent(text)
			case key == "avg300":
				to.Avg300 = parsePercent(text)
			case key == "total":
				to.TotalUsec = parseNumber(text)
			}
		}
	}
	return p
}

// parsePercent yields only what JSON can express.
func parsePercent(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= math.MaxUint32) {
		return 0
	}
	return f
}

// parseNumber reads a number or "max"; anything else is 0.
func parseNumber(s string) uint64 {
	if s == "max" {
		return math.MaxUint64
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// flat visits the lines "KEY NUMBER" of a flat-keyed file.
func flat(file string, visit func(key string, n uint64)) {
	for line := range strings.Lines(file) {
		key, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.ParseUint(text, 10, 64); ok && err == nil {
			visit(key, n)
		}
	}
}
