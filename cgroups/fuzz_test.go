package cgroups

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FuzzStats puts the same odd content into every file of a group: what comes out
// can be printed, and says nothing that is not there.
func FuzzStats(f *testing.F) {
	for _, s := range []string{
		"", "\n", "max\n", "18446744073709551615\n", "18446744073709551616\n", "-1\n", "0x10\n",
		"usage_usec 10\nuser_usec 7\n", "low 1\nlow 2\nhigh -3\n", "anon 99999999999999999999999\n",
		"some avg10=1.25 avg60=nan avg300=+Inf total=77\nfull avg10=1e999 avg60=0x1p-2 total=max\n", "avg10=3\n",
		"8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n", "7:1 8:0 rbytes=1\n7:2 \n", "8:0", "rbytes=1", "a:b rbytes=1",
		"mlx4_0 hca_handle=2 hca_object=2000\n", "mlx4_0\n", " hca_handle=max\n", "res_a 3\nres_a.max 4\n", "a b c\n\x00 1\n",
		strings.Repeat("anon 1\n", 2000),
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	fd, err := kernfs.Open(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	must(f, err)
	f.Cleanup(func() { kernfs.Close(fd) })
	g := &Group{fd: fd, path: "/fake"}
	files := []string{
		"cgroup.controllers", "cpu.stat", "cpu.pressure", "memory.current", "memory.peak", "memory.max", "memory.events",
		"memory.swap.events", "memory.stat", "pids.current", "pids.events", "io.stat", "hugetlb.2MB.current", "hugetlb.2MB.max",
		"hugetlb.2MB.events", "rdma.current", "rdma.max", "misc.current", "misc.max", "misc.events", "misc.peak", "cpuset.cpus",
		"cgroup.freeze", "cgroup.events", "cpu.max",
	}
	must(f, os.WriteFile(dir+"/all", nil, 0o644))
	for _, file := range files {
		must(f, os.Link(dir+"/all", dir+"/"+file))
	}
	f.Fuzz(func(t *testing.T, content string) {
		must(t, os.WriteFile(dir+"/all", []byte(content), 0o644))
		s, err := g.Stats()
		must(t, err)
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		lines := strings.Count(content, "\n") + 1
		if len(s.IO.Devices) > lines || len(s.Rdma) > lines || len(s.Misc) > lines || len(s.Memory.Raw) > lines {
			t.Errorf("more than %d lines: %+v", lines, s)
		}
		for key := range s.Memory.Raw {
			if !strings.Contains(content, key) {
				t.Errorf("%q is not there", key)
			}
		}
		limits, err := g.Limits()
		must(t, err)
		for file := range limits {
			if _, ok := initially(file); !ok {
				t.Errorf("%s is no limit", file)
			}
		}
		_, _, _, _ = g.Compile(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(5))}})
		_, _ = g.Events()
		g.Freezes()
		_ = g.effective(Limit{File: "cpuset.cpus", Value: content})
		_ = g.keepFirst(Limit{File: "cpu.max", Value: "max 1000"})
	})
}

// FuzzNames: nothing that a configuration names may become anything but the name
// of a file in the group, or more than one line in it.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"memory.high", "../x.max", "a/b.c", "2MB", "2MB/../../memory", "1GB\n", "mlx5_0", "a b", "..", ".", "", "cgroup.procs", "0-3,5", "x.\x00"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		for _, r := range []*specs.LinuxResources{
			{Unified: map[string]string{name: value}},
			{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: name, Limit: 1}}},
			{Rdma: map[string]specs.LinuxRdma{name: {HcaHandles: ptr(uint32(1))}}},
			{CPU: &specs.LinuxCPU{Cpus: name, Mems: value}},
		} {
			limits, controllers, _, err := Compile(r)
			if err != nil {
				continue
			}
			for _, l := range limits {
				if strings.ContainsAny(l.File, "/ \n\x00") || l.File == "" || strings.HasPrefix(l.File, ".") || len(l.File) > unix.NAME_MAX {
					t.Errorf("file %q", l.File)
				}
				if strings.Contains(l.Value, "\n") {
					t.Errorf("value %q", l.Value)
				}
				if l.File == "cgroup.procs" || l.File == "cgroup.kill" || l.File == "cgroup.freeze" || l.File == "cgroup.subtree_control" || l.File == "cgroup.type" {
					t.Errorf("file %q is ours", l.File)
				}
			}
			for _, c := range controllers {
				if strings.ContainsAny(c, "/ \n\x00+-") {
					t.Errorf("controller %q", c)
				}
			}
		}
	})
}
