package runtime

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/cgroups"
)

// What readers of runc's events decode into: names, order and what is left out.
type (
	runcEvent struct {
		Type string     `json:"type"`
		ID   string     `json:"id"`
		Data *runcStats `json:"data,omitempty"`
	}
	runcStats struct {
		CPU struct {
			Usage struct {
				Total  uint64   `json:"total,omitempty"`
				Percpu []uint64 `json:"percpu,omitempty"`
				Kernel uint64   `json:"kernel"`
				User   uint64   `json:"user"`
			} `json:"usage"`
			Throttling struct {
				Periods          uint64 `json:"periods,omitempty"`
				ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
				ThrottledTime    uint64 `json:"throttledTime,omitempty"`
			} `json:"throttling"`
			PSI *runcPSI `json:"psi,omitempty"`
		} `json:"cpu"`
		CPUSet struct {
			CPUs                  []uint16 `json:"cpus,omitempty"`
			CPUExclusive          uint64   `json:"cpu_exclusive"`
			Mems                  []uint16 `json:"mems,omitempty"`
			MemHardwall           uint64   `json:"mem_hardwall"`
			MemExclusive          uint64   `json:"mem_exclusive"`
			MemoryMigrate         uint64   `json:"memory_migrate"`
			MemorySpreadPage      uint64   `json:"memory_spread_page"`
			MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
			MemoryPressure        uint64   `json:"memory_pressure"`
			SchedLoadBalance      uint64   `json:"sched_load_balance"`
			SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
		} `json:"cpuset"`
		Memory struct {
			Cache     uint64            `json:"cache,omitempty"`
			Usage     runcMemory        `json:"usage"`
			Swap      runcMemory        `json:"swap"`
			Kernel    runcMemory        `json:"kernel"`
			KernelTCP runcMemory        `json:"kernelTCP"`
			Raw       map[string]uint64 `json:"raw,omitempty"`
			PSI       *runcPSI          `json:"psi,omitempty"`
		} `json:"memory"`
		Pids struct {
			Current uint64 `json:"current,omitempty"`
			Limit   uint64 `json:"limit,omitempty"`
		} `json:"pids"`
		Blkio struct {
			Bytes    []runcEntry `json:"ioServiceBytesRecursive,omitempty"`
			Serviced []runcEntry `json:"ioServicedRecursive,omitempty"`
			PSI      *runcPSI    `json:"psi,omitempty"`
		} `json:"blkio"`
		Hugetlb    map[string]runcHuge `json:"hugetlb"`
		IntelRdt   struct{}            `json:"intel_rdt"`
		Interfaces []struct{}          `json:"network_interfaces"`
	}
	runcMemory struct {
		Limit   uint64 `json:"limit"`
		Usage   uint64 `json:"usage,omitempty"`
		Max     uint64 `json:"max,omitempty"`
		Failcnt uint64 `json:"failcnt"`
	}
	runcEntry struct {
		Major uint64 `json:"major,omitempty"`
		Minor uint64 `json:"minor,omitempty"`
		Op    string `json:"op,omitempty"`
		Value uint64 `json:"value,omitempty"`
	}
	runcHuge struct {
		Usage   uint64 `json:"usage,omitempty"`
		Max     uint64 `json:"max,omitempty"`
		Failcnt uint64 `json:"failcnt"`
	}
	runcPSI struct {
		Some runcPressure `json:"some"`
		Full runcPressure `json:"full"`
	}
	runcPressure struct {
		Avg10  float64 `json:"avg10"`
		Avg60  float64 `json:"avg60"`
		Avg300 float64 `json:"avg300"`
		Total  uint64  `json:"total"`
	}
)

// runcView is everything() as runc would show it.
func runcView() *runcStats {
	s := &runcStats{}
	psi := func(n float64) *runcPSI {
		return &runcPSI{runcPressure{n + .1, n + .25, n, uint64(n) + 1}, runcPressure{0, 99.99, 100, uint64(n) + 2}}
	}
	s.CPU.Usage.Total, s.CPU.Usage.User, s.CPU.Usage.Kernel = 1000, 2000, 3000
	s.CPU.Throttling.Periods, s.CPU.Throttling.ThrottledPeriods, s.CPU.Throttling.ThrottledTime = 4, 5, 6000
	s.CPU.PSI = psi(10)
	s.Memory.Cache = 33
	s.Memory.Usage = runcMemory{Limit: 22, Usage: 20, Max: 21}
	s.Memory.Swap = runcMemory{Limit: 47, Usage: 43}
	s.Memory.Raw = map[string]uint64{"anon": 32, "file": 33, "kernel": 34, "shmem": 35, "slab": 36}
	s.Memory.PSI = psi(40)
	s.Pids.Current, s.Pids.Limit = 50, 52
	s.Blkio.Bytes = []runcEntry{{8, 16, "Read", 60}, {8, 16, "Write", 61}, {254, 0, "Read", 0}, {254, 0, "Write", 66}}
	s.Blkio.Serviced = []runcEntry{{8, 16, "Read", 62}, {8, 16, "Write", 63}, {254, 0, "Read", 0}, {254, 0, "Write", 0}}
	s.Blkio.PSI = psi(70)
	s.Hugetlb = map[string]runcHuge{"2MB": {Usage: 80, Failcnt: 82}, "1GB": {}}
	return s
}

func TestEventJSON(t *testing.T) {
	want := func(e runcEvent) string {
		b, err := json.Marshal(&e)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	sameJSON(t, &Event{ID: "c1", Stats: everything()}, want(runcEvent{"stats", "c1", runcView()}))
	sameJSON(t, &Event{ID: "c1"}, `{"type":"oom","id":"c1"}`)

	// Without controllers, and without limits.
	sameJSON(t, &Event{ID: "c1", Stats: &cgroups.Stats{}}, want(runcEvent{"stats", "c1", &runcStats{Hugetlb: map[string]runcHuge{}}}))
	view := &runcStats{Hugetlb: map[string]runcHuge{}}
	view.Memory.Usage.Limit, view.Memory.Swap.Limit = math.MaxUint64, math.MaxUint64
	view.Pids.Current = 1
	sameJSON(t, &Event{ID: "c1", Stats: &cgroups.Stats{
		Memory: &cgroups.MemoryStats{Limit: math.MaxUint64, SwapLimit: 5},
		Pids:   &cgroups.PidsStats{Current: 1, Limit: math.MaxUint64},
		IO:     &cgroups.IOStats{},
	}}, want(runcEvent{"stats", "c1", view}))

	// And it can be read back.
	b, err := (&Event{ID: "c1", Stats: everything()}).MarshalJSON()
	var got runcEvent
	if err == nil {
		err = json.Unmarshal(b, &got)
	}
	if diff := cmp.Diff(runcView(), got.Data); err != nil || diff != "" {
		t.Error(err, diff)
	}
}
