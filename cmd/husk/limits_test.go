package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "-1": -1, "512k": 512 << 10, "512K": 512 << 10, "512m": 512 << 20, "512 MiB": 512 << 20,
		"1g": 1 << 30, "1gb": 1 << 30, "1.5g": 3 << 29, "2t": 2 << 40, "3P": 3 << 50, "10b": 10, "0.5k": 512,
		"9223372036854775807": 1<<63 - 1, "9007199254740993": 9007199254740993, "8191p": 8191 << 50,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"-2", "x", "m", "1x", "1mm", "1..5m", "1e3", "0x10", "inf", "nan", " 1", "1  m", "9223372036854775808", "8192p", "1_000", "١"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%s: %d", text, got)
		}
	}
}

// Each flag sets its field, wins over what is there, and leaves the rest alone.
func TestLimitFlags(t *testing.T) {
	fs := newFlags("update")
	var l limitFlags
	l.define(fs)
	err := fs.Parse(strings.Fields("--memory 1g --memory-reservation 512m --memory-swap -1 --cpu-share 512 --cpu-quota -1 --cpu-period 50000 " +
		"--cpu-burst 0 --cpu-idle 1 --cpu-rt-period 3 --cpu-rt-runtime 4 --cpuset-cpus 0-1 --cpuset-mems 0 --blkio-weight 500 --pids-limit 0 --cpuset-mems="))
	if err != nil {
		t.Fatal(err)
	}
	got := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: new(int64(7)), CheckBeforeUpdate: new(true)},
		Rdma:   map[string]specs.LinuxRdma{"mlx5": {}},
	}
	l.apply(got)
	want := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: new(int64(1 << 30)), Reservation: new(int64(512 << 20)), Swap: new(int64(-1)), CheckBeforeUpdate: new(true)},
		CPU: &specs.LinuxCPU{
			Shares: new(uint64(512)), Quota: new(int64(-1)), Period: new(uint64(50000)), Burst: new(uint64(0)), Idle: new(int64(1)),
			RealtimePeriod: new(uint64(3)), RealtimeRuntime: new(int64(4)), Cpus: "0-1", Mems: "0",
		},
		BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(500))},
		Pids:    &specs.LinuxPids{Limit: new(int64(0))},
		Rdma:    got.Rdma,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLimitMistakes(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"update c", "update: nothing to change\nhusk: hint: husk help update lists the limits"},
		{"update --memory lots c", `update: invalid value "lots" for flag -memory: not a size`},
		{"update --cpu-share -1 c", `invalid value "-1" for flag -cpu-share: not a whole number in range`},
		{"update --blkio-weight 65546 c", `invalid value "65546" for flag -blkio-weight: not a whole number in range`},
		{"update --mem-bw-schema L3:0=f c", "/linux/intelRdt/memBwSchema: \"L3:0=f\" is not one line that begins with MB:"},
		{"update --resources /no/such/file c", "open /no/such/file: no such file or directory"},
		{"update --resources /dev/zero c", "/dev/zero is too long"},
	} {
		status, stdout, stderr := call(t, strings.Fields(test.line)...)
		if status != 1 || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: status %d: %s", test.line, status, stderr)
		}
	}
}
