package runtime

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/seccomp"
	"golang.org/x/sys/unix"
)

func TestReportJSON(t *testing.T) {
	stats := everything()
	stats.CPU.Bandwidth = true
	sameJSON(t, &Report{
		ID: "c1", Status: 7, Started: time.Unix(1, 5e6).In(time.FixedZone("", 3600)), Ended: true, Wall: 1234567 * time.Nanosecond, Unseen: 3 * time.Microsecond, Stats: stats,
		Network: &Traffic{81, 82}, Counted: true, Denied: []seccomp.Denial{{Call: "mount", Count: 2}},
	}, `{"id":"c1","exitStatus":7,"signal":null,"error":null,"started":"1970-01-01T00:00:01.005Z","wallUsec":1234,"unseenUsec":3,
"cpu":{"usageUsec":1,"userUsec":2,"systemUsec":3,"throttledUsec":6,"pressureUsec":{"some":11,"full":12}},
"memory":{"peakBytes":21,"swapPeakBytes":24,"oomKills":30,"pressureUsec":{"some":41,"full":42}},
"pids":{"peak":51},
"io":{"readBytes":60,"writeBytes":127,"pressureUsec":{"some":71,"full":72}},
"network":{"receivedBytes":81,"sentBytes":82},"deniedCalls":{"mount":2}}`)

	// An old kernel without pressure, and with cpu.stat only.
	sameJSON(t, &Report{ID: "c1", Status: -1, Signal: unix.SIGKILL, Started: time.Unix(1, 0), Ended: true, Stats: &cgroups.Stats{
		CPU: &cgroups.CPUStats{}, Memory: &cgroups.MemoryStats{}, Pids: &cgroups.PidsStats{},
	}}, `{"id":"c1","exitStatus":null,"signal":"SIGKILL","error":null,"started":"1970-01-01T00:00:01Z","wallUsec":0,"unseenUsec":0,
"cpu":{"usageUsec":0,"userUsec":0,"systemUsec":0,"throttledUsec":null,"pressureUsec":null},
"memory":{"peakBytes":null,"swapPeakBytes":null,"oomKills":0,"pressureUsec":null},
"pids":{"peak":null},"io":null,"network":null,"deniedCalls":null}`)

	sameJSON(t, &Report{ID: "c1", Status: -1, Err: errors.New("no \"x\"")},
		`{"id":"c1","exitStatus":null,"signal":null,"error":"no \"x\"","started":null,"wallUsec":null,"unseenUsec":null,"cpu":null,"memory":null,"pids":null,"io":null,"network":null,"deniedCalls":null}`)
}

// Of a cgroup with a past, counters start anew, and peaks are unknown.
func TestReportForgets(t *testing.T) {
	stats, before := everything(), everything()
	stats.CPU.Bandwidth, stats.CPU.UsageUsec, stats.CPU.ThrottledUsec = true, 101, 106
	stats.Memory.Events.OOMKill = 31
	stats.IO.Devices[0].ReadBytes, stats.IO.Devices[1].WriteBytes = 75, 166
	stats.IO.Devices = append(stats.IO.Devices, cgroups.IODevice{Major: 1, ReadBytes: 5})
	stats.CPU.PSI.Some.TotalUsec = 111
	forget(stats, nil)
	if *stats.Memory.Peak != 21 {
		t.Error("a new cgroup's peak is forgotten")
	}
	forget(stats, before)
	sameJSON(t, &Report{ID: "c1", Status: -1, Stats: stats}, `{"id":"c1","exitStatus":null,"signal":null,"error":null,"started":null,"wallUsec":null,"unseenUsec":null,
"cpu":{"usageUsec":100,"userUsec":0,"systemUsec":0,"throttledUsec":100,"pressureUsec":{"some":100,"full":0}},
"memory":{"peakBytes":null,"swapPeakBytes":null,"oomKills":1,"pressureUsec":{"some":0,"full":0}},
"pids":{"peak":null},
"io":{"readBytes":20,"writeBytes":100,"pressureUsec":{"some":0,"full":0}},"network":null,"deniedCalls":null}`)
	forget(&cgroups.Stats{CPU: &cgroups.CPUStats{}}, &cgroups.Stats{})
}

func TestSignalName(t *testing.T) {
	for signal, want := range map[unix.Signal]string{0: "", 9: "SIGKILL", 15: "SIGTERM", 40: "40"} {
		if got := signalName(signal); got != want {
			t.Errorf("%d: %q", signal, got)
		}
	}
}

func TestParseDevices(t *testing.T) {
	const titles = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n"
	got := parseDevices(titles + "    lo:  9 9 9 9 9 9 9 9 9 9\n  eth0: 12 1 0 0 0 0 0 0 34 2 0\n  x:y: 1\neth1:5 1 0 0 0 0 0 0 6 2\n")
	if want := map[string]Traffic{"eth0": {12, 34}, "eth1": {5, 6}}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := parseDevices("eth0: x 1 0 0 0 0 0 0 34 2\n"); got != nil {
		t.Errorf("%v", got)
	}
}
