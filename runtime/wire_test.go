package runtime

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/rootfs"
)

func sampleSteps() []Step {
	return []Step{
		{Op: opHostname, Field: "/hostname", Args: []string{"h"}},
		{Op: opRlimit, Field: "/process/rlimits/0", Args: []string{"RLIMIT_NOFILE"}, Nums: []int64{7, -1, 1 << 62}},
		{Op: opRootfs, Field: "/mounts/0", Mount: &rootfs.Step{
			Op: rootfs.OpMount, Field: "/mounts/0", Source: "tmpfs", Target: "/dev", Type: "tmpfs",
			Data: []string{"mode=755", ""}, Set: 1, Clr: 2, RSet: 3, RClr: 1 << 63, Propagation: 5, Flags: 6,
			Mode: 0o755, UID: 1<<32 - 1, GID: 2, Dev: 259, FD: true,
		}},
		{Op: opReady},
	}
}

func TestStepsSurviveTheWire(t *testing.T) {
	want := sampleSteps()
	got, err := decodeSteps(encodeSteps(want))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestTruncatedStepsAreAnError(t *testing.T) {
	b := encodeSteps(sampleSteps())
	for n := range b {
		if _, err := decodeSteps(b[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(b))
		}
	}
	if _, err := decodeSteps(append(b, 0)); err == nil {
		t.Error("a byte too many was accepted")
	}
}

// FuzzDecodeSteps: no packet may panic or allocate beyond its own size, and what
// decodes is what its encoding decodes to.
func FuzzDecodeSteps(f *testing.F) {
	f.Add(encodeSteps(sampleSteps()))
	f.Add(encodeSteps(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		steps, err := decodeSteps(b)
		if err != nil {
			return
		}
		again, err := decodeSteps(encodeSteps(steps))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(steps, again); d != "" {
			t.Error(d)
		}
	})
}
