package cgroups

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	wantError(t, apply2(t, g, `{"memory":{"limit":4096,"checkBeforeUpdate":true}}`), unix.EBUSY, "memory/limit", "in use")
}

// apply2 applies to a group in use, which Create refuses.
func apply2(t *testing.T, g *Group, resources string) error {
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
	wantError(t, apply(t, path, `{"cpu":{"cpus":"65000"}}`), nil, "/linux/resources/cpu/cpus", "65000", "cpuset.cpus")
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
	disks, _ := filepath.Glob("/sys/block/[vsn][dv]*/dev")
	if len(disks) == 0 {
		t.Skip("no disk")
	}
	major, minor, _ := strings.Cut(readFile(t, disks[0]), ":")
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
