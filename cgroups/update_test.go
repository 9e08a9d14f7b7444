package cgroups

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

func needHugetlb(t *testing.T) {
	t.Helper()
	needCgroup2(t)
	if !slices.Contains(strings.Fields(readFile(t, "/sys/fs/cgroup/cgroup.controllers")), "hugetlb") {
		t.Skip("no hugetlb controller in cgroup2")
	}
}

func compileFor(t *testing.T, g *Group, resources string) []Limit {
	t.Helper()
	limits, _, _, err := g.Compile(parse(t, resources))
	must(t, err)
	return limits
}

// TestUpdateAllOrNothing: whatever fails, and wherever, the files have what they had.
func TestUpdateAllOrNothing(t *testing.T) {
	needHugetlb(t)
	g := testGroup(t, "hugetlb")
	must(t, g.Update(compileFor(t, g, `{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"unified":{"cgroup.max.depth":"7"}}`)))
	before := map[string]string{"hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304", "cgroup.max.depth": "7", "cgroup.max.descendants": "max"}
	wantFiles(t, g.path, before)

	const good = `"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]`
	for name, c := range map[string]struct {
		in    string
		then  []func() error
		words []string
	}{
		"bad value":    {in: `{` + good + `,"unified":{"cgroup.max.depth":"3","cgroup.max.descendants":"junk"}}`, words: []string{"unified/cgroup.max.descendants", `"junk"`}},
		"missing file": {in: `{` + good + `,"unified":{"cgroup.max.depth":"3","hugetlb.3MB.max":"1"}}`, words: []string{"unified/hugetlb.3MB.max", "no huge pages of that size, but of ", "2MB"}},
		"read only":    {in: `{` + good + `,"unified":{"hugetlb.2MB.current":"1"}}`, words: []string{"unified/hugetlb.2MB.current", "not to be written"}},
		"what follows": {in: `{` + good + `,"unified":{"cgroup.max.depth":"3"}}`, then: []func() error{func() error {
			wantFiles(t, g.path, map[string]string{"hugetlb.2MB.max": "2097152", "cgroup.max.depth": "3"})
			return nil
		}, func() error { return errors.New("the unit is gone") }, func() error {
			t.Error("a step is taken after one has failed")
			return nil
		}}, words: []string{"the unit is gone"}},
	} {
		err := g.Update(compileFor(t, g, c.in), c.then...)
		wantError(t, err, nil, c.words...)
		if _, ok := err.(*FieldError); ok != (c.then == nil) || strings.Contains(fmt.Sprint(err), "set back") {
			t.Errorf("%s: %T %v", name, err, err)
		}
		wantFiles(t, g.path, before)
	}
}

// TestRestoreFails: what could not be set back is told, and the field with it.
func TestRestoreFails(t *testing.T) {
	g, dir := fake(t, map[string]string{"pids.max": "9\n", "cpu.max": "max 100000\n"})
	err := g.Update(compileFor(t, g, `{"pids":{"limit":3}}`), func() error {
		must(t, os.Chmod(dir+"/pids.max", 0))
		must(t, os.Remove(dir+"/pids.max"))
		must(t, os.WriteFile(dir+"/pids.max", []byte("77777\n"), 0o644)) // an ordinary file keeps its tail
		return &FieldError{Field: pointer + "devices", Err: unix.EPERM}
	})
	wantError(t, err, unix.EPERM, "/linux/resources/devices", "besides, pids.max", `set back to "9"`)
	if _, ok := err.(*FieldError); !ok {
		t.Errorf("%T", err)
	}
}

func TestUpdateFrozen(t *testing.T) {
	needHugetlb(t)
	g := testGroup(t, "hugetlb")
	spawn(t, g, "exec sleep 60")
	must(t, kernfs.Write(g.fd, "cgroup.freeze", "1"))
	eventually(t, "frozen", g.Frozen)
	begin := time.Now()
	must(t, g.Update(compileFor(t, g, `{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}`), func() error {
		p, err := CompileDevices(nil)
		must(t, err)
		return g.AttachDevices(p)
	}))
	wantFiles(t, g.path, map[string]string{"hugetlb.2MB.max": "2097152", "cgroup.freeze": "1"})
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestUpdateRefusesBefore: what can be known before is refused before anything is written.
func TestUpdateRefusesBefore(t *testing.T) {
	files := map[string]string{
		"cgroup.controllers": "memory pids cpu\n", "pids.max": "9\n", "cpu.max": "max 100000\n",
		"memory.max": "1000\n", "memory.current": "500\n", "memory.swap.max": "1000\n", "memory.swap.current": "300\n",
	}
	for in, words := range map[string][]string{
		`{"pids":{"limit":3},"memory":{"limit":500,"checkBeforeUpdate":true}}`:            {"memory/limit", "500 bytes are in use"},
		`{"pids":{"limit":3},"memory":{"limit":600,"swap":899,"checkBeforeUpdate":true}}`: {"memory/swap", "300 bytes are in use"},
		`{"pids":{"limit":3},"memory":{"swap":1299,"checkBeforeUpdate":true}}`:            {"memory/swap", "300 bytes are in use"},
		`{"pids":{"limit":3},"cpu":{"idle":1}}`:                                           {"cpu/idle", "no file cpu.idle"},
		`{"pids":{"limit":3},"unified":{"io.max":"8:0 rbps=1"}}`:                          {"unified/io.max", `controller "io"`},
	} {
		g, dir := fake(t, files)
		wantError(t, g.Update(compileFor(t, g, in)), nil, words...)
		if got := readFile(t, dir+"/pids.max"); got != "9" {
			t.Errorf("%s: pids.max is %q", in, got)
		}
	}
	g, dir := fake(t, files)
	must(t, g.Update(compileFor(t, g, `{"pids":{"limit":3},"memory":{"limit":600,"swap":900,"checkBeforeUpdate":true}}`)))
	if got := readFile(t, dir+"/pids.max"); got != "3" {
		t.Errorf("pids.max is %q", got)
	}
}

// TestUpdateOrder: room first, memory away last, and swap after that.
func TestUpdateOrder(t *testing.T) {
	g, _ := fake(t, map[string]string{"memory.max": "1000\n", "memory.swap.max": "max\n"})
	for in, want := range map[string]string{
		`{"memory":{"limit":500,"swap":700},"cpu":{"quota":2000},"pids":{"limit":1}}`: "pids.max=1 cpu.max=2000 memory.max=500 memory.swap.max=200",
		`{"memory":{"limit":2000,"swap":2500},"pids":{"limit":1}}`:                    "memory.max=2000 pids.max=1 memory.swap.max=500",
		`{"memory":{"limit":500,"swap":-1},"pids":{"limit":1}}`:                       "memory.swap.max=max pids.max=1 memory.max=500",
		`{"memory":{"limit":500},"unified":{"memory.max":"3000","memory.high":"1"}}`:  "memory.max=3000 memory.high=1",
		`{"memory":{"limit":3000},"unified":{"memory.max":"1G","memory.high":"1"}}`:   "memory.high=1 memory.max=1G",
		`{"memory":{"limit":-1},"cpu":{"idle":0,"shares":2}}`:                         "memory.max=max memory.swap.max=max cpu.idle=0 cpu.weight=1",
	} {
		var got []string
		for _, l := range g.order(compileFor(t, g, in)) {
			got = append(got, l.File+"="+l.Value)
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
}

// TestMakeRoom: it waits for pages that are being written out, and for nothing else.
func TestMakeRoom(t *testing.T) {
	g, dir := fake(t, map[string]string{"memory.current": "1000\n", "memory.reclaim": "", "memory.stat": "file_writeback 0\n"})
	room := func(limit string) string {
		must(t, os.WriteFile(dir+"/memory.reclaim", nil, 0o644))
		g.makeRoom(limit, time.Now().Add(20*time.Millisecond))
		return readFile(t, dir+"/memory.reclaim")
	}
	for limit, want := range map[string]string{"600": "400", "1000": "", "1G": "", "max": ""} {
		if got := room(limit); got != want {
			t.Errorf("%s: reclaims %q, want %q", limit, got, want)
		}
	}
	must(t, os.Remove(dir+"/memory.reclaim"))
	begin := time.Now()
	g.makeRoom("600", begin.Add(time.Minute)) // a kernel without
	if time.Since(begin) > 10*time.Second {
		t.Error("waited for nothing")
	}
}

// TestCompileInUse: swap counts together with memory, so alone it is relative to what is in force.
func TestCompileInUse(t *testing.T) {
	g, dir := fake(t, map[string]string{"memory.max": "1000\n"})
	limits := compileFor(t, g, `{"memory":{"swap":1500},"pids":{"limit":1}}`)
	if len(limits) != 2 || show(limits[0]) != "memory/swap: memory.swap.max=500 late" {
		t.Error(limits)
	}
	_, _, _, err := g.Compile(parse(t, `{"memory":{"swap":999}}`))
	wantError(t, err, nil, "memory/swap", "below memory/limit 1000")
	limits = compileFor(t, g, `{"memory":{"swap":1500,"limit":600}}`)
	if len(limits) != 2 || show(limits[1]) != "memory/swap: memory.swap.max=900 late" {
		t.Error(limits)
	}
	must(t, os.WriteFile(dir+"/memory.max", []byte("max\n"), 0o644))
	_, _, _, err = g.Compile(parse(t, `{"memory":{"swap":1500}}`))
	wantError(t, err, nil, "memory/swap", "set memory/limit too")
}

// TestEffective: processors that the groups above lack are refused, not replaced.
func TestEffective(t *testing.T) {
	above, dir := fake(t, map[string]string{"cpuset.cpus.effective": "0-1,4,6\n"})
	must(t, os.Mkdir(dir+"/g", 0o755))
	for file, text := range map[string]string{"cpuset.cpus": "", "cpuset.cpus.effective": "0-1,4\n", "cpuset.mems": ""} {
		must(t, os.WriteFile(dir+"/g/"+file, []byte(text), 0o644))
	}
	g, err := above.Below("g")
	must(t, err)
	defer g.Close()
	for list, ok := range map[string]bool{"0": true, "0-1,4": true, "2": false, "0-2": false, "3-5": false} {
		err := g.Apply(compileFor(t, g, `{"cpu":{"cpus":"`+list+`"}}`), early)
		if ok {
			must(t, err)
		} else {
			wantError(t, err, unix.EINVAL, "cpu/cpus", "not available here, where the group above has 0-1,4,6")
		}
	}
	must(t, g.Apply(compileFor(t, g, `{"cpu":{"mems":"0"}}`), early)) // nothing to compare with
}

// TestInvalidReasons: the kernel says EINVAL, we say which other value is in the way.
func TestInvalidReasons(t *testing.T) {
	g, _ := fake(t, map[string]string{"cpu.idle": "1\n", "cpu.max": "5000 100000\n", "cpu.max.burst": "4000\n"})
	for file, words := range map[string]string{
		"cpu.weight":    "set cpu/idle to 0 too",
		"cpu.max":       "cpu.max.burst, which is 4000; set cpu/burst too",
		"cpu.max.burst": "cpu.max, which is 5000; set cpu/quota too",
	} {
		wantError(t, g.reason(Limit{File: file}, unix.EINVAL), unix.EINVAL, words)
	}
	wantError(t, g.reason(Limit{File: "io.max"}, unix.ENODEV), unix.ENODEV, "whole disks")
	wantError(t, g.reason(Limit{File: "pids.max"}, unix.EROFS), unix.EROFS, "mounted read-only")
	wantError(t, g.reason(Limit{File: "pids.max"}, unix.EACCES), unix.EACCES, "delegated")
}

func TestRequire(t *testing.T) {
	needHugetlb(t)
	g := testGroup(t)
	inner := mustCreate(t, g.path+"/a/b")
	if exists(inner.path + "/hugetlb.2MB.max") {
		t.Skip("hugetlb is everywhere")
	}
	spawn(t, inner, "exec sleep 60")
	must(t, inner.Require(nil))
	must(t, inner.Require([]string{"hugetlb"}))
	must(t, inner.Require([]string{"hugetlb"}))
	if !exists(inner.path + "/hugetlb.2MB.max") {
		t.Error("not there")
	}
	err := inner.Require([]string{"nonsense"})
	if ce, ok := errors.AsType[*ControllerError](err); !ok || ce.Controller != "nonsense" {
		t.Error(err)
	}
	// The process sits between: it forbids controllers below its group.
	below := mustCreate(t, inner.path+"/c")
	wantError(t, below.Require([]string{"hugetlb"}), unix.EBUSY, inner.path, "move them")
	must(t, os.Remove("/sys/fs/cgroup"+below.path))
	wantError(t, below.Require([]string{"hugetlb"}), nil, below.path)
}

func TestLimits(t *testing.T) {
	g, _ := fake(t, map[string]string{
		"memory.max": "100\n", "memory.high": "max\n", "memory.low": "0\n", "memory.current": "7\n", "memory.stat": "anon 1\n",
		"cpu.max": "max 50000\n", "cpu.weight": "100\n", "cpuset.cpus": "\n", "pids.max": "3\n",
		"io.max": "8:0 rbps=1 wbps=max riops=max wiops=max\n", "io.weight": "default 100\n", "io.bfq.weight": "default 100\n8:0 500\n",
		"hugetlb.2MB.max": "0\n", "hugetlb.2MB.rsvd.max": "max\n",
		"rdma.max": "a hca_handle=max hca_object=max\nb hca_handle=2 hca_object=max\n", "misc.max": "x max\ny 3\n",
	})
	got, err := g.Limits()
	must(t, err)
	want := map[string]string{
		"memory.max": "100", "cpu.max": "max 50000", "pids.max": "3", "io.max": "8:0 rbps=1 wbps=max riops=max wiops=max",
		"io.bfq.weight": "default 100\n8:0 500", "hugetlb.2MB.max": "0", "rdma.max": "b hca_handle=2 hca_object=max", "misc.max": "y 3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLimitsOfNewGroup: what the kernel gives a new group is what we take for it.
func TestLimitsOfNewGroup(t *testing.T) {
	needCgroup2(t)
	have := strings.Fields(readFile(t, "/sys/fs/cgroup/cgroup.controllers"))
	g := testGroup(t, have...)
	got, err := g.Limits()
	must(t, err)
	if len(got) > 0 {
		t.Error(got)
	}
	must(t, os.Remove("/sys/fs/cgroup"+g.path))
	if got, err := g.Limits(); err != nil && !kernfs.Gone(err) || len(got) > 0 {
		t.Error(got, err)
	}
}

// TestKeep: what somebody else changes meanwhile is changed back, in all limit files.
func TestKeep(t *testing.T) {
	needController(t, "hugetlb")
	g := testGroup(t, "hugetlb")
	set := func(file, value string) { must(t, kernfs.Write(g.fd, file, value)) }
	set("hugetlb.2MB.max", "4194304")
	set("cgroup.max.depth", "7")
	must(t, g.Keep(func() error {
		set("hugetlb.2MB.max", "2097152")
		set("hugetlb.2MB.rsvd.max", "2097152")
		set("cgroup.max.depth", "max")
		return nil
	}))
	wantFiles(t, g.path, map[string]string{"hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "max", "cgroup.max.depth": "7"})
	failed := errors.New("failed")
	if err := g.Keep(func() error { set("cgroup.max.depth", "8"); return failed }); err != failed {
		t.Error(err)
	}
	wantFiles(t, g.path, map[string]string{"cgroup.max.depth": "7"})
}
