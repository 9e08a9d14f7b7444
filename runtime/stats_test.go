package runtime

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/cgroups"
)

// everything has a different number in each place.
func everything() *cgroups.Stats {
	psi := func(n float64) *cgroups.PSI {
		return &cgroups.PSI{
			Some: cgroups.PSIData{Avg10: n + .1, Avg60: n + .25, Avg300: n, TotalUsec: uint64(n) + 1},
			Full: cgroups.PSIData{Avg10: 0, Avg60: 99.99, Avg300: 100, TotalUsec: uint64(n) + 2},
		}
	}
	return &cgroups.Stats{
		CPU: &cgroups.CPUStats{
			UsageUsec: 1, UserUsec: 2, SystemUsec: 3, Periods: 4, Throttled: 5, ThrottledUsec: 6,
			Bursts: 7, BurstUsec: 8, PSI: psi(10),
		},
		Memory: &cgroups.MemoryStats{
			Usage: 20, Peak: new(uint64(21)), Limit: 22, High: math.MaxUint64, SwapUsage: 23, SwapPeak: new(uint64(24)), SwapLimit: 25,
			Events: cgroups.MemoryEvents{Low: 26, High: 27, Max: 28, OOM: 29, OOMKill: 30, OOMGroupKill: 31},
			Raw:    map[string]uint64{"anon": 32, "file": 33, "kernel": 34, "shmem": 35, "slab": 36}, PSI: psi(40),
		},
		Pids: &cgroups.PidsStats{Current: 50, Peak: new(uint64(51)), Limit: 52, Events: cgroups.PidsEvents{Max: 53}},
		IO: &cgroups.IOStats{Devices: []cgroups.IODevice{
			{Major: 8, Minor: 16, ReadBytes: 60, WriteBytes: 61, ReadIOs: 62, WriteIOs: 63, DiscardBytes: 64, DiscardIOs: 65},
			{Major: 254, Minor: 0, WriteBytes: 66},
		}, PSI: psi(70)},
		Hugetlb: map[string]cgroups.HugetlbStats{
			"2MB": {Usage: 80, Limit: 81, Failures: 82, Reserved: 83, ReservedLimit: math.MaxUint64},
			"1GB": {Limit: math.MaxUint64},
		},
		Rdma: []cgroups.RdmaStats{{Device: "mlx5_0", HcaHandles: 90, HcaObjects: 91, HandlesLimit: 92}},
		Misc: map[string]cgroups.MiscStats{"sev": {Current: 93, Peak: new(uint64(94)), Limit: 95, Failures: 96}},
	}
}

func TestStateStatsJSON(t *testing.T) {
	s := &StateStats{
		State:     State{ID: "c1", Status: "running", Created: time.Unix(0, 0).UTC()},
		Resources: map[string]string{"memory.max": "22", "io.max": "8:0 rbps=1\n8:16 wbps=2"}, Stats: everything(),
	}
	const want = `{"ociVersion":"","id":"c1","pid":0,"status":"running","bundle":"","rootfs":"","created":"1970-01-01T00:00:00Z","owner":"",
"resources":{"io.max":"8:0 rbps=1\n8:16 wbps=2","memory.max":"22"},
"stats":{
"cpu":{"usageUsec":1,"userUsec":2,"systemUsec":3,"periods":4,"throttledPeriods":5,"throttledUsec":6,"bursts":7,"burstUsec":8,
"pressure":{"some":{"avg10":10.1,"avg60":10.25,"avg300":10,"totalUsec":11},"full":{"avg10":0,"avg60":99.99,"avg300":100,"totalUsec":12}}},
"memory":{"usage":20,"peak":21,"swapUsage":23,"swapPeak":24,"anon":32,"file":33,"kernel":34,"shmem":35,
"events":{"low":26,"high":27,"max":28,"oom":29,"oom_kill":30,"oom_group_kill":31},
"pressure":{"some":{"avg10":40.1,"avg60":40.25,"avg300":40,"totalUsec":41},"full":{"avg10":0,"avg60":99.99,"avg300":100,"totalUsec":42}}},
"pids":{"current":50,"peak":51,"refused":53},
"io":{"devices":{
"8:16":{"readBytes":60,"writeBytes":61,"readIOs":62,"writeIOs":63,"discardBytes":64,"discardIOs":65},
"254:0":{"readBytes":0,"writeBytes":66,"readIOs":0,"writeIOs":0,"discardBytes":0,"discardIOs":0}},
"pressure":{"some":{"avg10":70.1,"avg60":70.25,"avg300":70,"totalUsec":71},"full":{"avg10":0,"avg60":99.99,"avg300":100,"totalUsec":72}}},
"hugetlb":{"1GB":{"usage":0,"reserved":0,"failures":0},"2MB":{"usage":80,"reserved":83,"failures":82}},
"rdma":{"mlx5_0":{"hcaHandles":90,"hcaObjects":91}},
"misc":{"sev":{"current":93,"peak":94,"failures":96}}}}`
	sameJSON(t, s, want)

	// What is not there is left out.
	s = &StateStats{State: s.State, Resources: map[string]string{}, Stats: &cgroups.Stats{
		CPU: &cgroups.CPUStats{}, Memory: &cgroups.MemoryStats{}, Pids: &cgroups.PidsStats{}, IO: &cgroups.IOStats{},
	}}
	sameJSON(t, s, `{"ociVersion":"","id":"c1","pid":0,"status":"running","bundle":"","rootfs":"","created":"1970-01-01T00:00:00Z","owner":"",
"resources":{},"stats":{"cpu":{"usageUsec":0,"userUsec":0,"systemUsec":0,"periods":0,"throttledPeriods":0,"throttledUsec":0,"bursts":0,"burstUsec":0},
"memory":{"usage":0,"swapUsage":0,"events":{"low":0,"high":0,"max":0,"oom":0,"oom_kill":0,"oom_group_kill":0}},
"pids":{"current":0,"refused":0},"io":{"devices":{}}}}`)
	sameJSON(t, &StateStats{State: s.State}, `{"ociVersion":"","id":"c1","pid":0,"status":"running","bundle":"","rootfs":"","created":"1970-01-01T00:00:00Z","owner":""}`)
}

// sameJSON compares, but for line ends, what v is written as.
func sameJSON(t *testing.T, v json.Marshaler, want string) {
	t.Helper()
	got, err := v.MarshalJSON()
	if err != nil || !json.Valid(got) {
		t.Errorf("%v: %s", err, got)
	}
	// One member a line, for the difference to be readable.
	lines := func(s string) []string { return strings.SplitAfter(strings.ReplaceAll(s, "\n", ""), ",") }
	if diff := cmp.Diff(lines(want), lines(string(got))); diff != "" {
		t.Error(diff)
	}
}
