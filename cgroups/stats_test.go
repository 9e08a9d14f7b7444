package cgroups

import (
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStats(t *testing.T) {
	g, _ := fake(t, map[string]string{
		"cgroup.controllers": "cpu io memory hugetlb pids rdma misc\n",
		"cpu.stat": "usage_usec 10\nuser_usec 7\nsystem_usec 3\nnice_usec 0\nnr_periods 5\nnr_throttled 2\n" +
			"throttled_usec 900\nnr_bursts 1\nburst_usec 4\n",
		"cpu.pressure":             "some avg10=1.25 avg60=0.50 avg300=0.01 total=77\n",
		"memory.current":           "4096\n",
		"memory.peak":              "8192\n",
		"memory.max":               "max\n",
		"memory.high":              "10000\n",
		"memory.low":               "0\n",
		"memory.min":               "max\n",
		"memory.swap.current":      "1\n",
		"memory.swap.peak":         "2\n",
		"memory.swap.max":          "3\n",
		"memory.events":            "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 0\n",
		"memory.swap.events":       "high 1\nmax 2\nfail 3\n",
		"memory.stat":              "anon 12\nfile 13\n",
		"memory.pressure":          "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=100.00 total=2\n",
		"pids.current":             "3\n",
		"pids.peak":                "9\n",
		"pids.max":                 "10\n",
		"pids.events":              "max 4\n",
		"io.stat":                  "7:1 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n7:2 \n253:16 rbytes=9 wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n",
		"hugetlb.2MB.current":      "2097152\n",
		"hugetlb.2MB.max":          "4194304\n",
		"hugetlb.2MB.events":       "max 3\n",
		"hugetlb.2MB.rsvd.current": "5\n",
		"hugetlb.2MB.rsvd.max":     "max\n",
		"hugetlb.1GB.current":      "0\n",
		"rdma.current":             "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=0 hca_object=1\n",
		"rdma.max":                 "mlx4_0 hca_handle=3 hca_object=max\n",
		"misc.current":             "res_a 3\nres_b 0\n",
		"misc.max":                 "res_a max\nres_b 4\n",
		"misc.peak":                "res_a 10\n",
		"misc.events":              "res_a.max 0\nres_b.max 2\n",
	})
	got, err := g.Stats()
	must(t, err)
	none := uint64(math.MaxUint64)
	want := &Stats{
		CPU: &CPUStats{
			UsageUsec: 10, UserUsec: 7, SystemUsec: 3, Bandwidth: true, Periods: 5, Throttled: 2, ThrottledUsec: 900, Bursts: 1, BurstUsec: 4,
			PSI: &PSI{Some: PSIData{1.25, 0.5, 0.01, 77}},
		},
		Memory: &MemoryStats{
			Usage: 4096, Peak: ptr(uint64(8192)), Limit: none, High: 10000, Min: none,
			SwapUsage: 1, SwapPeak: ptr(uint64(2)), SwapLimit: 3, SwapHigh: none,
			Events: MemoryEvents{1, 2, 3, 4, 5, 6}, SwapEvents: SwapEvents{1, 2, 3},
			Raw: map[string]uint64{"anon": 12, "file": 13},
			PSI: &PSI{Some: PSIData{TotalUsec: 1}, Full: PSIData{0, 0, 100, 2}},
		},
		Pids: &PidsStats{Current: 3, Peak: ptr(uint64(9)), Limit: 10, Events: PidsEvents{4}},
		IO: &IOStats{Devices: []IODevice{
			{8, 0, 1, 2, 3, 4, 5, 6},
			{Major: 253, Minor: 16, ReadBytes: 9},
		}},
		Hugetlb: map[string]HugetlbStats{
			"2MB": {Usage: 2097152, Limit: 4194304, Failures: 3, Reserved: 5, ReservedLimit: none},
			"1GB": {Limit: none, ReservedLimit: none},
		},
		Rdma: []RdmaStats{
			{"mlx4_0", 2, 2000, 3, none},
			{Device: "ocrdma1", HcaObjects: 1},
		},
		Misc: map[string]MiscStats{
			"res_a": {Current: 3, Peak: ptr(uint64(10)), Limit: none},
			"res_b": {Limit: 4, Failures: 2},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatsGone(t *testing.T) {
	g := testGroup(t)
	s, err := g.Stats()
	must(t, err)
	have := strings.Fields(readFile(t, "/sys/fs/cgroup"+g.path+"/cgroup.controllers"))
	for c, part := range map[string]bool{"memory": s.Memory != nil, "pids": s.Pids != nil, "io": s.IO != nil, "hugetlb": s.Hugetlb != nil, "misc": s.Misc != nil} {
		if part != slices.Contains(have, c) {
			t.Errorf("controllers %v: %s: %v", have, c, part)
		}
	}
	if s.CPU == nil {
		t.Error("every group has usage of cpu")
	}
	must(t, os.Remove("/sys/fs/cgroup"+g.path))
	s, err = g.Stats()
	wantError(t, err, fs.ErrNotExist, g.path)
	if s == nil {
		t.Error("nil")
	}
}
