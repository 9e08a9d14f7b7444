package cgroups

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// These tests ask a kernel that has the controllers in cgroup2. On a host with
// cgroup v1 they skip; in a VM with cgroup v2 alone they run.

func needController(t *testing.T, names ...string) {
	t.Helper()
	needCgroup2(t)
	have := strings.Fields(readFile(t, "/sys/fs/cgroup/cgroup.controllers"))
	for _, name := range names {
		if !slices.Contains(have, name) {
			t.Skip("no controller in cgroup2: " + name)
		}
	}
}

// apply compiles resources, makes sure of their controllers and writes everything.
func apply(t *testing.T, path, resources string) error {
	t.Helper()
	limits, controllers, _, err := Compile(parse(t, resources))
	must(t, err)
	g := mustCreate(t, path, controllers...)
	if err := g.Apply(limits, false); err != nil {
		return err
	}
	return g.Apply(limits, true)
}

func wantFiles(t *testing.T, path string, want map[string]string) {
	t.Helper()
	for file, value := range want {
		if got := readFile(t, "/sys/fs/cgroup"+path+"/"+file); got != value {
			t.Errorf("%s is %q, want %q", file, got, value)
		}
	}
}

func TestKernelMemory(t *testing.T) {
	needController(t, "memory")
	path := testPath(t)
	must(t, apply(t, path, `{"memory":{"limit":67108864,"swap":67108864,"reservation":1048576},"unified":{"memory.high":"33554432"}}`))
	wantFiles(t, path, map[string]string{"memory.max": "67108864", "memory.low": "1048576", "memory.high": "33554432"})
	if _, err := os.Stat("/sys/fs/cgroup" + path + "/memory.swap.max"); err == nil {
		wantFiles(t, path, map[string]string{"memory.swap.max": "0"})
		must(t, apply(t, path, `{"memory":{"limit":67108864,"swap":100663296}}`))
		wantFiles(t, path, map[string]string{"memory.swap.max": "33554432"})
	}
	must(t, apply(t, path, `{"memory":{"limit":-1,"reservation":-1}}`))
	wantFiles(t, path, map[string]string{"memory.max": "max", "memory.low": "max"})
}

func TestKernelOOM(t *testing.T) {
	needController(t, "memory")
	g := testGroup(t, "memory")
	if g.OOMKilled() {
		t.Error("killed before anything ran")
	}
	must(t, apply(t, g.path, `{"memory":{"limit":33554432,"swap":33554432}}`))
	cmd := spawn(t, g, "exec tail /dev/zero") // it looks for a last line in vain
	_ = cmd.Wait()
	must(t, g.WaitEmpty(soon()))
	ev, err := g.MemoryEvents()
	must(t, err)
	if !g.OOMKilled() || ev.OOM == 0 {
		t.Errorf("%+v", ev)
	}
	spawn(t, g, "exec sleep 60")
	wantError(t, inUse(t, g, `{"memory":{"limit":4096,"checkBeforeUpdate":true}}`), unix.EBUSY, "memory/limit", "in use")
}

// inUse applies to a group in use, which Create refuses.
func inUse(t *testing.T, g *Group, resources string) error {
	t.Helper()
	limits, _, _, err := Compile(parse(t, resources))
	must(t, err)
	if err := g.Apply(limits, false); err != nil {
		return err
	}
	return g.Apply(limits, true)
}

func TestKernelCPU(t *testing.T) {
	needController(t, "cpu")
	path := testPath(t)
	for _, c := range []struct {
		in   string
		want map[string]string
	}{
		{`{"cpu":{"shares":2048,"quota":50000}}`, map[string]string{"cpu.weight": "174", "cpu.max": "50000 100000"}},
		{`{"cpu":{"quota":30000,"period":20000,"burst":10000}}`, map[string]string{"cpu.max": "30000 20000", "cpu.max.burst": "10000"}},
		// Down: the burst must come first. Up: the quota.
		{`{"cpu":{"quota":5000,"burst":4000}}`, map[string]string{"cpu.max": "5000 20000", "cpu.max.burst": "4000"}},
		{`{"cpu":{"quota":90000,"burst":80000}}`, map[string]string{"cpu.max": "90000 20000", "cpu.max.burst": "80000"}},
		{`{"cpu":{"period":50000}}`, map[string]string{"cpu.max": "90000 50000"}},
		{`{"cpu":{"burst":0,"quota":-1,"period":100000}}`, map[string]string{"cpu.max": "max 100000", "cpu.max.burst": "0"}},
	} {
		if err := apply(t, path, c.in); err != nil {
			t.Errorf("%s: %v", c.in, err)
		}
		wantFiles(t, path, c.want)
	}
	if _, err := os.Stat("/sys/fs/cgroup" + path + "/cpu.idle"); err == nil {
		must(t, apply(t, path, `{"cpu":{"idle":1,"shares":1024}}`))
		wantFiles(t, path, map[string]string{"cpu.idle": "1"})
		must(t, apply(t, path, `{"cpu":{"idle":0,"shares":1024}}`))
		wantFiles(t, path, map[string]string{"cpu.idle": "0", "cpu.weight": "100"})
	}
}

func TestKernelCPUSet(t *testing.T) {
	needController(t, "cpuset")
	path := testPath(t)
	must(t, apply(t, path, `{"cpu":{"cpus":"0","mems":"0"}}`))
	wantFiles(t, path, map[string]string{"cpuset.cpus": "0", "cpuset.mems": "0", "cpuset.cpus.effective": "0"})
	wantError(t, apply(t, path, `{"cpu":{"cpus":"65000"}}`), nil, "/linux/resources/cpu/cpus", "65000", "cpuset.cpus", "not available here, where the group above has 0-")
}

func TestKernelPids(t *testing.T) {
	needController(t, "pids")
	g := testGroup(t, "pids")
	must(t, apply(t, g.path, `{"pids":{"limit":2}}`))
	wantFiles(t, g.path, map[string]string{"pids.max": "2"})
	if spawn(t, g, "sleep 0.1 & sleep 0.1 & sleep 0.1 & wait").Wait() == nil {
		t.Error("four processes fit into two")
	}
	must(t, g.WaitEmpty(soon()))
	must(t, apply(t, g.path, `{"pids":{"limit":0}}`))
	wantFiles(t, g.path, map[string]string{"pids.max": "0"})
	must(t, apply(t, g.path, `{"pids":{"limit":-1}}`))
	wantFiles(t, g.path, map[string]string{"pids.max": "max"})
}

func TestKernelIO(t *testing.T) {
	needController(t, "io")
	major, minor, _ := strings.Cut(scratchDisks(t)[0], ":")
	dev := `{"major":` + major + `,"minor":` + minor + `,`
	path := testPath(t)
	must(t, apply(t, path, `{"blockIO":{
		"throttleReadBpsDevice":[`+dev+`"rate":1048576}],"throttleWriteBpsDevice":[`+dev+`"rate":2097152}],
		"throttleReadIOPSDevice":[`+dev+`"rate":10}],"throttleWriteIOPSDevice":[`+dev+`"rate":20}]}}`))
	wantFiles(t, path, map[string]string{"io.max": major + ":" + minor + " rbps=1048576 wbps=2097152 riops=10 wiops=20"})
	must(t, apply(t, path, `{"blockIO":{"throttleReadBpsDevice":[`+dev+`"rate":0}]}}`))
	wantFiles(t, path, map[string]string{"io.max": major + ":" + minor + " rbps=max wbps=2097152 riops=10 wiops=20"})
	wantError(t, apply(t, path, `{"blockIO":{"throttleReadBpsDevice":[{"major":4000,"minor":0,"rate":1}]}}`), unix.ENODEV, "throttleReadBpsDevice/0", "4000:0")

	err := apply(t, path, `{"blockIO":{"weight":500}}`)
	bfq, _ := os.ReadFile("/sys/fs/cgroup" + path + "/io.bfq.weight")
	iocost, _ := os.ReadFile("/sys/fs/cgroup" + path + "/io.weight")
	switch {
	case bfq != nil:
		must(t, err)
		wantFiles(t, path, map[string]string{"io.bfq.weight": "default 500"})
	case iocost != nil:
		must(t, err)
		wantFiles(t, path, map[string]string{"io.weight": "default 4950"})
	default:
		wantError(t, err, unix.ENOENT, "neither")
	}
	if bfq == nil && iocost == nil {
		return
	}
	if bfq == nil {
		err := apply(t, path, `{"blockIO":{"weightDevice":[`+dev+`"weight":500}]}}`)
		wantError(t, err, unix.EOPNOTSUPP, "weightDevice/0", "io.weight", "neither the BFQ scheduler nor io.cost")
	}
	if err := os.WriteFile("/sys/fs/cgroup/io.cost.qos", []byte(major+":"+minor+" enable=1"), 0); err != nil {
		t.Skip("no io.cost: ", err)
	}
	defer os.WriteFile("/sys/fs/cgroup/io.cost.qos", []byte(major+":"+minor+" enable=0"), 0)
	must(t, apply(t, path, `{"blockIO":{"weightDevice":[`+dev+`"weight":500}]}}`))
	if got := readFile(t, "/sys/fs/cgroup"+path+"/io.weight"); !strings.Contains(got, major+":"+minor+" 4950") {
		t.Errorf("io.weight is %q", got)
	}
	must(t, apply(t, path, `{"blockIO":{"weightDevice":[`+dev+`"weight":0}]}}`))
}

func TestKernelUnified(t *testing.T) {
	needController(t, "memory", "pids")
	path := testPath(t)
	must(t, apply(t, path, `{"pids":{"limit":5},"unified":{"pids.max":"7","cgroup.max.depth":"3","memory.min":"4096"}}`))
	wantFiles(t, path, map[string]string{"pids.max": "7", "cgroup.max.depth": "3", "memory.min": "4096"})
	wantError(t, apply(t, path, `{"unified":{"memory.events":"1"}}`), nil, "unified/memory.events")
}

// scratchDisks names two whole disks, "MAJOR:MINOR", that tests may limit: loop
// devices before others.
func scratchDisks(t *testing.T) (disks []string) {
	t.Helper()
	files, _ := filepath.Glob("/sys/block/[lnsv][dov]*/dev")
	for _, f := range files {
		disks = append(disks, readFile(t, f))
	}
	if len(disks) < 2 {
		t.Skip("no two disks")
	}
	return disks[:2]
}

// TestKernelUpdateAllOrNothing changes a value of every kind and fails at the end.
func TestKernelUpdateAllOrNothing(t *testing.T) {
	needController(t, "memory", "cpu", "cpuset", "io", "pids")
	disks := scratchDisks(t)
	dev := func(i int) string {
		major, minor, _ := strings.Cut(disks[i], ":")
		return `{"major":` + major + `,"minor":` + minor + `,`
	}
	g := testGroup(t, "memory", "cpu", "cpuset", "io", "pids")
	spawn(t, g, "exec sleep 60")
	must(t, g.Update(compileFor(t, g, `{
		"memory":{"limit":67108864,"swap":100663296,"reservation":4096},"pids":{"limit":20},
		"cpu":{"shares":512,"quota":50000,"period":50000,"burst":40000,"cpus":"0","mems":"0"},
		"blockIO":{"throttleReadBpsDevice":[`+dev(0)+`"rate":1048576}]},
		"unified":{"memory.high":"33554432","io.weight":"77"}}`)))
	before := snapshot(t, g)
	if before["io.max"] == "" || before["cpu.max.burst"] != "40000\n" {
		t.Fatalf("%q", before)
	}
	for name, in := range map[string]string{
		"everything": `"memory":{"limit":50331648,"swap":-1,"reservation":8192},"pids":{"limit":9},
			"cpu":{"shares":1024,"quota":20000,"period":20000,"burst":10000,"cpus":"1"},
			"blockIO":{"weight":500,"throttleReadBpsDevice":[` + dev(0) + `"rate":5},` + dev(1) + `"rate":7}],"throttleWriteIOPSDevice":[` + dev(1) + `"rate":9}]}`,
		"a larger burst":  `"cpu":{"quota":90000,"burst":80000}`,
		"an idle group":   `"cpu":{"idle":1}`,
		"a wider cpuset":  `"cpu":{"cpus":"0-1"}`,
		"no limits":       `"memory":{"limit":-1},"cpu":{"quota":-1,"burst":0},"pids":{"limit":-1}`,
		"nothing else":    `"pids":{"limit":20}`,
		"the same values": `"memory":{"limit":67108864},"cpu":{"quota":50000}`,
	} {
		err := g.Update(compileFor(t, g, `{`+in+`,"unified":{"memory.min":"junk"}}`))
		wantError(t, err, unix.EINVAL, "unified/memory.min")
		if strings.Contains(err.Error(), "set back") {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, snapshot(t, g)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}

	// An idle group shows a weight of 0, which cannot be written.
	must(t, g.Update(compileFor(t, g, `{"cpu":{"idle":1}}`)))
	before = snapshot(t, g)
	err := g.Update(compileFor(t, g, `{"cpu":{"idle":0,"shares":2048},"unified":{"memory.min":"junk"}}`))
	wantError(t, err, unix.EINVAL, "unified/memory.min")
	if diff := cmp.Diff(before, snapshot(t, g)); diff != "" || strings.Contains(err.Error(), "set back") {
		t.Error(diff, err)
	}
}

// snapshot has all files that can be written and read.
func snapshot(t *testing.T, g *Group) map[string]string {
	t.Helper()
	all := map[string]string{}
	list, err := os.ReadDir("/sys/fs/cgroup" + g.path)
	must(t, err)
	for _, e := range list {
		if _, ok := initially(e.Name()); !ok {
			continue
		}
		text, err := kernfs.Read(g.fd, e.Name())
		must(t, err)
		all[e.Name()] = text
	}
	return all
}

// TestKernelUpdateOrder: a container that fills its memory and swap gets less of
// both, and more, without being killed where there is room.
func TestKernelUpdateOrder(t *testing.T) {
	needController(t, "memory")
	g := testGroup(t, "memory")
	must(t, inUse(t, g, `{"memory":{"limit":134217728,"swap":268435456}}`))
	if free, _ := os.ReadFile("/proc/swaps"); strings.Count(string(free), "\n") < 2 {
		t.Skip("no swap")
	}
	spawnHelper(t, g, "pages")
	for _, in := range []string{
		`{"memory":{"limit":33554432,"swap":134217728}}`,  // both down: reclaim needs the swap that there is
		`{"memory":{"limit":134217728,"swap":167772160}}`, // memory up, swap down
		`{"memory":{"limit":16777216,"swap":167772160}}`,  // memory down, swap up
		`{"memory":{"swap":201326592}}`,                   // swap alone
	} {
		must(t, g.Update(compileFor(t, g, in)))
		s, err := g.Stats()
		must(t, err)
		if s.Memory.Events.OOMKill > 0 {
			t.Fatalf("killed by %s: %+v", in, s.Memory)
		}
	}
	wantFiles(t, g.path, map[string]string{"memory.max": "16777216", "memory.swap.max": "184549376"})
	s, err := g.Stats()
	must(t, err)
	if s.Memory.SwapUsage < 16<<20 {
		t.Errorf("the test says little: %+v", s.Memory)
	}
	// Not enough for both together, and we want to know before.
	wantError(t, g.Update(compileFor(t, g, `{"memory":{"limit":1048576,"swap":1048576,"checkBeforeUpdate":true}}`)), unix.EBUSY, "in use")
	wantFiles(t, g.path, map[string]string{"memory.max": "16777216", "memory.swap.max": "184549376"})
}

// TestKernelBounds: what Compile refuses the kernel refuses, and takes what is within.
func TestKernelBounds(t *testing.T) {
	needController(t, "pids", "cpu", "memory")
	g := testGroup(t, "pids", "cpu", "memory")
	for _, in := range []string{
		`{"pids":{"limit":4194304}}`, `{"cpu":{"quota":17592186044415,"period":1000000}}`, `{"cpu":{"quota":1000,"period":1000}}`,
		`{"cpu":{"shares":262144}}`, `{"cpu":{"shares":1}}`, `{"memory":{"limit":9223372036854775807}}`,
	} {
		if err := g.Update(compileFor(t, g, in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []string{
		`"pids.max":"4194305"`, `"cpu.max":"17592186044416"`, `"cpu.max":"999"`, `"cpu.max":"max 999"`, `"cpu.max":"max 1000001"`,
		`"cpu.max.burst":"17592186044416"`, `"cpu.weight":"0"`, `"cpu.weight":"10001"`,
	} {
		if err := g.Update(compileFor(t, g, `{"unified":{`+in+`}}`)); err == nil {
			t.Errorf("the kernel takes %s", in)
		}
	}
}

// TestKernelReasons: errors say which other value is in the way.
func TestKernelReasons(t *testing.T) {
	needController(t, "cpu", "cpuset", "io")
	g := testGroup(t, "cpu", "cpuset", "io")
	must(t, g.Update(compileFor(t, g, `{"cpu":{"quota":50000,"burst":40000,"cpus":"0"}}`)))
	for in, words := range map[string][]string{
		`{"cpu":{"quota":20000}}`: {"cpu/quota", "cpu.max.burst, which is 40000", "set cpu/burst too"},
		`{"cpu":{"burst":60000}}`: {"cpu/burst", "cpu.max, which is 50000", "set cpu/quota too"},
		`{"blockIO":{"throttleReadBpsDevice":[{"major":4000,"minor":0,"rate":1}]}}`: {"throttleReadBpsDevice/0", "whole disks"},
	} {
		wantError(t, g.Update(compileFor(t, g, in)), nil, words...)
	}
	must(t, g.Update(compileFor(t, g, `{"cpu":{"idle":1}}`)))
	wantError(t, g.Update(compileFor(t, g, `{"cpu":{"shares":2048}}`)), unix.EINVAL, "cpu/shares", "set cpu/idle to 0 too")
	inner := mustCreate(t, g.path+"/inner", "cpuset")
	wantError(t, inner.Update(compileFor(t, inner, `{"cpu":{"cpus":"0-1"}}`)), unix.EINVAL, "cpu/cpus", "1 is not available here, where the group above has 0")
	wantFiles(t, inner.path, map[string]string{"cpuset.cpus": ""})
}
