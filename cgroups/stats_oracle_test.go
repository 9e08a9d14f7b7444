package cgroups

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/google/go-cmp/cmp"
)

// numbers are statistics by name, for comparison.
type numbers map[string]any

func (n numbers) psi(name string, some, full [4]any) {
	n[name+" some"], n[name+" full"] = some, full
}

// ourNumbers are those that containerd/cgroups reads too.
func ourNumbers(s *Stats) numbers {
	n := numbers{}
	psi := func(name string, p *PSI) {
		if p != nil {
			some, full := p.Some, p.Full
			n.psi(name, [4]any{some.Avg10, some.Avg60, some.Avg300, some.TotalUsec}, [4]any{full.Avg10, full.Avg60, full.Avg300, full.TotalUsec})
		}
	}
	if c := s.CPU; c != nil {
		n["cpu"] = []uint64{c.UsageUsec, c.UserUsec, c.SystemUsec, c.Periods, c.Throttled, c.ThrottledUsec, c.Bursts, c.BurstUsec}
		psi("cpu", c.PSI)
	}
	if m := s.Memory; m != nil {
		n["memory"] = []uint64{m.Usage, m.Limit, get(m.Peak), m.SwapUsage, m.SwapLimit, get(m.SwapPeak)}
		n["memory.stat"] = []uint64{
			m.Raw["anon"], m.Raw["file"], m.Raw["kernel_stack"], m.Raw["slab"], m.Raw["sock"], m.Raw["shmem"], m.Raw["file_mapped"],
			m.Raw["file_dirty"], m.Raw["inactive_anon"], m.Raw["active_anon"], m.Raw["inactive_file"], m.Raw["active_file"],
			m.Raw["slab_reclaimable"], m.Raw["slab_unreclaimable"], m.Raw["pgfault"], m.Raw["pgmajfault"], m.Raw["pgscan"], m.Raw["pgsteal"],
		}
		n["memory.events"] = []uint64{m.Events.Low, m.Events.High, m.Events.Max, m.Events.OOM, m.Events.OOMKill, m.Events.OOMGroupKill}
		psi("memory", m.PSI)
	}
	if p := s.Pids; p != nil {
		n["pids"] = []uint64{p.Current, p.Limit}
	}
	if s.IO != nil {
		for _, d := range s.IO.Devices {
			n[fmt.Sprintf("io %d:%d", d.Major, d.Minor)] = []uint64{d.ReadBytes, d.WriteBytes, d.ReadIOs, d.WriteIOs}
		}
		psi("io", s.IO.PSI)
	}
	for size, h := range s.Hugetlb {
		n["hugetlb "+size] = []uint64{h.Usage, h.Limit, h.Failures}
	}
	for _, d := range s.Rdma {
		n["rdma "+d.Device] = []uint64{d.HcaHandles, d.HcaObjects, d.HandlesLimit, d.ObjectsLimit}
	}
	return n
}

func theirNumbers(m *stats.Metrics, have []string) numbers {
	n := numbers{}
	psi := func(name string, p *stats.PSIStats) {
		if p != nil {
			some, full := p.GetSome(), p.GetFull()
			n.psi(name, [4]any{some.GetAvg10(), some.GetAvg60(), some.GetAvg300(), some.GetTotal()}, [4]any{full.GetAvg10(), full.GetAvg60(), full.GetAvg300(), full.GetTotal()})
		}
	}
	c := m.CPU
	n["cpu"] = []uint64{c.UsageUsec, c.UserUsec, c.SystemUsec, c.NrPeriods, c.NrThrottled, c.ThrottledUsec, c.NrBursts, c.BurstUsec}
	psi("cpu", c.PSI)
	if slices.Contains(have, "memory") {
		s, e := m.Memory, m.MemoryEvents
		n["memory"] = []uint64{s.Usage, s.UsageLimit, s.MaxUsage, s.SwapUsage, s.SwapLimit, s.SwapMaxUsage}
		n["memory.stat"] = []uint64{
			s.Anon, s.File, s.KernelStack, s.Slab, s.Sock, s.Shmem, s.FileMapped,
			s.FileDirty, s.InactiveAnon, s.ActiveAnon, s.InactiveFile, s.ActiveFile,
			s.SlabReclaimable, s.SlabUnreclaimable, s.Pgfault, s.Pgmajfault, s.Pgscan, s.Pgsteal,
		}
		n["memory.events"] = []uint64{e.Low, e.High, e.Max, e.Oom, e.OomKill, e.OomGroupKill}
		psi("memory", s.PSI)
	}
	if slices.Contains(have, "pids") {
		n["pids"] = []uint64{m.Pids.Current, m.Pids.Limit}
	}
	if slices.Contains(have, "io") {
		for _, d := range m.Io.Usage {
			n[fmt.Sprintf("io %d:%d", d.Major, d.Minor)] = []uint64{d.Rbytes, d.Wbytes, d.Rios, d.Wios}
		}
		psi("io", m.Io.PSI)
	}
	if slices.Contains(have, "hugetlb") {
		for _, h := range m.Hugetlb {
			limit := h.Max
			if limit > noHugetlb { // what the kernel shows until the first write
				limit = math.MaxUint64
			}
			n["hugetlb "+h.Pagesize] = []uint64{h.Current, limit, h.Failcnt}
		}
	}
	for i, d := range m.Rdma.Current {
		l := m.Rdma.Limit[i]
		n["rdma "+d.Device] = []uint64{uint64(d.HcaHandles), uint64(d.HcaObjects), rdmaLimit(l.HcaHandles), rdmaLimit(l.HcaObjects)}
	}
	return n
}

func rdmaLimit(n uint32) uint64 {
	if n == math.MaxUint32 {
		return math.MaxUint64
	}
	return uint64(n)
}

// TestStatsOracle compares with containerd/cgroups for every controller that is
// here, in a group that has worked and stands still.
func TestStatsOracle(t *testing.T) {
	needCgroup2(t)
	have := strings.Fields(readFile(t, "/sys/fs/cgroup/cgroup.controllers"))
	g := testGroup(t, have...)
	resources := `{"unified":{"cgroup.max.depth":"9"}`
	if slices.Contains(have, "memory") {
		resources += `,"memory":{"limit":134217728}`
	}
	if slices.Contains(have, "cpu") {
		resources += `,"cpu":{"quota":20000}`
	}
	if slices.Contains(have, "pids") {
		resources += `,"pids":{"limit":5}`
	}
	must(t, g.Update(compileFor(t, g, resources+`}`)))
	dir := t.TempDir()
	spawn(t, g, `dd if=/dev/zero of=`+dir+`/f bs=64k count=64 conv=fsync; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; >`+dir+`/done; exec sleep 60`)
	eventually(t, "the work", func() bool { _, err := os.Stat(dir + "/done"); return err == nil })
	must(t, g.Freeze(nil))

	m, err := cgroup2.Load(g.path)
	must(t, err)
	diff := ""
	for range 20 { // averages fade, and the kernel batches its counting
		theirs, err := m.Stat()
		must(t, err)
		ours, err := g.Stats()
		must(t, err)
		got := ourNumbers(ours)
		if diff = cmp.Diff(theirNumbers(theirs, have), got); diff == "" {
			t.Logf("%d groups of numbers agree, of %v: %v", len(got), have, got)
			return
		}
	}
	t.Error(diff)
}

func BenchmarkStats(b *testing.B) {
	needCgroup2(b)
	list, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	g := testGroup(b, strings.Fields(string(list))...)
	b.ReportAllocs()
	for b.Loop() {
		_, err := g.Stats()
		must(b, err)
	}
}
