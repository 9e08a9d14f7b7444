package runtime

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseList(t *testing.T) {
	for list, want := range map[string][]int64{
		"0":         {1},
		"0-3,7":     {0x8f},
		"1, 3":      {0xa},
		"63-64":     {-1 << 63, 1},
		"128":       {0, 0, 1},
		"5-5,5,4":   {0x30},
		"65535":     append(make([]int64, 1023), -1<<63),
		"00001":     {2},
		"0-1,64-65": {3, 3},
	} {
		if got, ok := parseList(list); !ok || !slices.Equal(got, want) {
			t.Errorf("%q: %x, want %x", list, got, want)
		}
	}
	for _, list := range []string{"", ",", "1,", ",1", "-", "1-", "-1", "3-1", "a", "1-2-3", "65536", "1 2", "+1", "0x1", "1:2", "all"} {
		if got, ok := parseList(list); ok {
			t.Errorf("%q: %x", list, got)
		}
	}
}

// The caller's thread is bound while the process is started, and free again afterwards,
// also if that fails.
func TestOnCPUs(t *testing.T) {
	var before, during, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	last := -1
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			last = cpu
		}
	}
	err := onCPUs(strconv.Itoa(last), func() error {
		if err := unix.SchedGetaffinity(0, &during); err != nil {
			t.Fatal(err)
		}
		return os.ErrInvalid
	})
	if err != os.ErrInvalid || during.Count() != 1 || !during.IsSet(last) {
		t.Errorf("%v, bound to %v", err, during)
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("%v, left bound to %v", err, after)
	}
	if err := onCPUs("60000", func() error { t.Error("called"); return nil }); err == nil {
		t.Error("a CPU that is not there was taken")
	}
}
