package sandbox

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/cgroups"
)

// What is not known is not there.
func TestFigures(t *testing.T) {
	for want, s := range map[string]*cgroups.Stats{
		"sandbox  1m5s": {},
		"sandbox  1m5s  cpu 2m10s (2.0)  memory 3M  pids 7": {
			CPU: &cgroups.CPUStats{UsageUsec: 130e6}, Memory: &cgroups.MemoryStats{Usage: 3 << 20, Limit: math.MaxUint64}, Pids: &cgroups.PidsStats{Current: 7},
		},
		"sandbox  1m5s  memory 3M of 64M": {Memory: &cgroups.MemoryStats{Usage: 3 << 20, Limit: 64 << 20}},
	} {
		if got := strings.Join(figures(65*time.Second, s), ""); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
