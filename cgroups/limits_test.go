package cgroups

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func parse(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &r
}

// show writes a limit as "FIELD: FILE=VALUE", with marks for what is special.
func show(l Limit) string {
	s := fmt.Sprintf("%s: %s=%s", strings.TrimPrefix(l.Field, pointer), l.File, l.Value)
	if l.Late {
		s += " late"
	}
	if l.Optional {
		s += " optional"
	}
	if l.AltFile != "" {
		s += fmt.Sprintf(" else %s=%s", l.AltFile, l.AltValue)
	}
	if l.KeepFirst {
		s += " keepfirst"
	}
	if l.Check {
		s += " check"
	}
	return s
}

// TestCompile has every row of the table; the controllers stand behind "|".
func TestCompile(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{`{}`, []string{"|"}},
		{`{"memory":{},"cpu":{},"pids":{},"blockIO":{},"network":{},"rdma":{},"unified":{}}`, []string{"|"}},

		{`{"memory":{"limit":1048576}}`, []string{"memory/limit: memory.max=1048576 late", "|memory"}},
		{`{"memory":{"limit":0,"swap":0,"reservation":0}}`, []string{"|"}},
		{`{"memory":{"limit":-1}}`, []string{"memory/limit: memory.max=max late", "memory/swap: memory.swap.max=max late optional", "|memory"}},
		{`{"memory":{"limit":-1,"swap":-1}}`, []string{"memory/limit: memory.max=max late", "memory/swap: memory.swap.max=max late optional", "|memory"}},
		{`{"memory":{"swap":-1}}`, []string{"memory/swap: memory.swap.max=max late optional", "|memory"}},
		{`{"memory":{"limit":100,"swap":100}}`, []string{"memory/limit: memory.max=100 late", "memory/swap: memory.swap.max=0 late optional", "|memory"}},
		{`{"memory":{"limit":100,"swap":150}}`, []string{"memory/limit: memory.max=100 late", "memory/swap: memory.swap.max=50 late", "|memory"}},
		{`{"memory":{"reservation":5}}`, []string{"memory/reservation: memory.low=5 late", "|memory"}},
		{`{"memory":{"reservation":-1}}`, []string{"memory/reservation: memory.low=max late", "|memory"}},
		{`{"memory":{"limit":100,"checkBeforeUpdate":true}}`, []string{"memory/limit: memory.max=100 late check", "|memory"}},
		{`{"memory":{"limit":100,"swap":150,"checkBeforeUpdate":true}}`, []string{"memory/limit: memory.max=100 late check", "memory/swap: memory.swap.max=50 late check", "|memory"}},
		{`{"memory":{"swappiness":18446744073709551615}}`, []string{"|"}}, // a client's −1
		{`{"memory":{"disableOOMKiller":false,"useHierarchy":true,"kernel":0,"kernelTCP":-1}}`, []string{"|"}},
		{`{"memory":{"limit":9223372036854775807}}`, []string{"memory/limit: memory.max=9223372036854775807 late", "|memory"}},

		{`{"cpu":{"shares":1024}}`, []string{"cpu/shares: cpu.weight=100 late", "|cpu"}},
		{`{"cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""}}`, []string{"|"}},
		{`{"cpu":{"quota":50000}}`, []string{"cpu/quota: cpu.max=50000 late", "|cpu"}},
		{`{"cpu":{"quota":50000,"period":20000}}`, []string{"cpu/quota: cpu.max=50000 20000 late", "|cpu"}},
		{`{"cpu":{"quota":-1,"period":20000}}`, []string{"cpu/quota: cpu.max=max 20000 late", "|cpu"}},
		{`{"cpu":{"quota":-1}}`, []string{"cpu/quota: cpu.max=max late", "|cpu"}},
		{`{"cpu":{"period":20000}}`, []string{"cpu/period: cpu.max=max 20000 late keepfirst", "|cpu"}},
		{`{"cpu":{"quota":50000,"burst":10000}}`, []string{"cpu/burst: cpu.max.burst=10000 late", "cpu/quota: cpu.max=50000 late", "|cpu"}},
		{`{"cpu":{"burst":0}}`, []string{"cpu/burst: cpu.max.burst=0 late optional", "|cpu"}},
		{`{"cpu":{"idle":0,"shares":2}}`, []string{"cpu/idle: cpu.idle=0 late optional", "cpu/shares: cpu.weight=1 late", "|cpu"}},
		{`{"cpu":{"idle":1,"shares":512}}`, []string{"cpu/idle: cpu.idle=1 late", "|cpu", "!cpu/shares: ignored, an idle group (cpu/idle 1) has no weight"}},
		{`{"cpu":{"cpus":"0-3,5","mems":"0"}}`, []string{"cpu/cpus: cpuset.cpus=0-3,5", "cpu/mems: cpuset.mems=0", "|cpuset"}},

		{`{"blockIO":{"weight":10}}`, []string{"blockIO/weight: io.bfq.weight=10 else io.weight=1", "blockIO/weight: io.weight=1 optional", "|io"}},
		{`{"blockIO":{"weight":1000}}`, []string{"blockIO/weight: io.bfq.weight=1000 else io.weight=10000", "blockIO/weight: io.weight=10000 optional", "|io"}},
		{`{"blockIO":{"weight":0,"leafWeight":0}}`, []string{"|"}},
		{`{"blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":500},{"major":8,"minor":0,"weight":0},{"major":7,"minor":0}]}}`, []string{
			"blockIO/weightDevice/0: io.bfq.weight=8:16 500 else io.weight=8:16 4950",
			"blockIO/weightDevice/1: io.bfq.weight=8:0 default else io.weight=8:0 default", "|io",
		}},
		{`{"blockIO":{
			"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":16,"rate":18446744073709551615}],
			"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
			"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],
			"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}`, []string{
			"blockIO/throttleReadBpsDevice/0: io.max=8:0 rbps=1",
			"blockIO/throttleReadBpsDevice/1: io.max=8:16 rbps=18446744073709551615",
			"blockIO/throttleWriteBpsDevice/0: io.max=8:0 wbps=2",
			"blockIO/throttleReadIOPSDevice/0: io.max=8:0 riops=3",
			"blockIO/throttleWriteIOPSDevice/0: io.max=8:0 wiops=max", "|io",
		}},

		{`{"hugepageLimits":[{"pageSize":"2MB","limit":4194304},{"pageSize":"64KB","limit":0}]}`, []string{
			"hugepageLimits/0: hugetlb.2MB.max=4194304", "hugepageLimits/0: hugetlb.2MB.rsvd.max=4194304 optional",
			"hugepageLimits/1: hugetlb.64KB.max=0", "hugepageLimits/1: hugetlb.64KB.rsvd.max=0 optional", "|hugetlb",
		}},

		{`{"pids":{"limit":0}}`, []string{"pids/limit: pids.max=0 late", "|pids"}},
		{`{"pids":{"limit":7}}`, []string{"pids/limit: pids.max=7 late", "|pids"}},
		{`{"pids":{"limit":-1}}`, []string{"pids/limit: pids.max=max late", "|pids"}},

		{`{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"a":{"hcaObjects":0}}}`, []string{
			"rdma/a: rdma.max=a hca_object=0", "rdma/mlx5_1: rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "|rdma",
		}},

		{`{"unified":{"memory.high":"1G","io.max":"8:0 rbps=1\n8:16 wbps=2\n","cgroup.max.depth":"3","cpu.pressure":"x","cpuset.cpus":""},"memory":{"limit":5}}`, []string{
			"memory/limit: memory.max=5 late",
			"unified/cgroup.max.depth: cgroup.max.depth=3 late", "unified/cpu.pressure: cpu.pressure=x late", "unified/cpuset.cpus: cpuset.cpus= late",
			"unified/io.max: io.max=8:0 rbps=1 late", "unified/io.max: io.max=8:16 wbps=2 late", "unified/memory.high: memory.high=1G late",
			"|memory,cpuset,io",
		}},

		{`{"memory":{"kernel":1,"kernelTCP":1}}`, []string{"|", "!memory/kernel: ignored, cgroup v2 counts kernel memory in memory/limit", "!memory/kernelTCP: ignored, cgroup v2 counts kernel memory in memory/limit"}},
	} {
		limits, controllers, warnings, err := Compile(parse(t, c.in))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		}
		var got []string
		for _, l := range limits {
			got = append(got, show(l))
		}
		got = append(got, "|"+strings.Join(controllers, ","))
		for _, w := range warnings {
			got = append(got, "!"+strings.TrimPrefix(w, pointer))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.in, diff)
		}
	}
	if limits, controllers, warnings, err := Compile(nil); limits != nil || controllers != nil || warnings != nil || err != nil {
		t.Error("no resources: something")
	}
}

func TestCompileErrors(t *testing.T) {
	for _, c := range []struct{ in, field, text string }{
		{`{"memory":{"limit":-2}}`, "memory/limit", "-1 for no limit"},
		{`{"memory":{"reservation":-5}}`, "memory/reservation", "-1 for no limit"},
		{`{"memory":{"swap":-2}}`, "memory/swap", "-1 for no limit"},
		{`{"memory":{"swap":100}}`, "memory/swap", "set memory/limit too"},
		{`{"memory":{"swap":100,"limit":-1}}`, "memory/swap", "set memory/limit too"},
		{`{"memory":{"swap":99,"limit":100}}`, "memory/swap", "at least that"},
		{`{"memory":{"swappiness":0}}`, "memory/swappiness", "remove it"},
		{`{"memory":{"disableOOMKiller":true}}`, "memory/disableOOMKiller", "oomScoreAdj"},
		{`{"memory":{"useHierarchy":false}}`, "memory/useHierarchy", "remove it"},
		{`{"memory":{"kernel":-5}}`, "memory/kernel", "-1 for no limit"},
		{`{"memory":{"kernelTCP":-2}}`, "memory/kernelTCP", "-1 for no limit"},
		{`{"pids":{"limit":4194305}}`, "pids/limit", "0 to 4194304, or -1"},
		{`{"cpu":{"quota":17592186044416}}`, "cpu/quota", "at most 17592186044415"},
		{`{"cpu":{"burst":17592186044416}}`, "cpu/burst", "0 to 17592186044415"},
		{`{"hugepageLimits":[{"pageSize":"2MB","limit":1},{"pageSize":"2MB","limit":1},{"pageSize":"2MB","limit":2}]}`, "hugepageLimits/2", "contradicts /linux/resources/hugepageLimits/1;"},
		{`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":11},{"major":8,"minor":0,"rate":1}]}}`, "blockIO/throttleReadBpsDevice/1", "contradicts /linux/resources/blockIO/throttleReadBpsDevice/0;"},
		{`{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":11},{"major":8,"minor":0,"weight":12}]}}`, "blockIO/weightDevice/1", "contradicts"},
		{`{"cpu":{"quota":-2}}`, "cpu/quota", "at least 1000"},
		{`{"cpu":{"quota":999}}`, "cpu/quota", "at least 1000"},
		{`{"cpu":{"period":999}}`, "cpu/period", "1000 to 1000000"},
		{`{"cpu":{"period":1000001,"quota":5000}}`, "cpu/period", "1000 to 1000000"},
		{`{"cpu":{"burst":5001,"quota":5000}}`, "cpu/burst", "at most that"},
		{`{"cpu":{"idle":2}}`, "cpu/idle", "neither 0"},
		{`{"cpu":{"realtimeRuntime":1}}`, "cpu/realtimeRuntime", "remove it"},
		{`{"cpu":{"realtimePeriod":1}}`, "cpu/realtimePeriod", "remove it"},
		{`{"cpu":{"cpus":"0-"}}`, "cpu/cpus", "0-3,5"},
		{`{"cpu":{"cpus":"3-1"}}`, "cpu/cpus", "0-3,5"},
		{`{"cpu":{"mems":"0\n1"}}`, "cpu/mems", "0-3,5"},
		{`{"cpu":{"mems":"0,,1"}}`, "cpu/mems", "0-3,5"},
		{`{"blockIO":{"weight":9}}`, "blockIO/weight", "10 to 1000"},
		{`{"blockIO":{"weight":1001}}`, "blockIO/weight", "10 to 1000"},
		{`{"blockIO":{"leafWeight":10}}`, "blockIO/leafWeight", "remove it"},
		{`{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1}]}}`, "blockIO/weightDevice/0/weight", "10 to 1000"},
		{`{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":10}]}}`, "blockIO/weightDevice/0/leafWeight", "remove it"},
		{`{"blockIO":{"weightDevice":[{"major":-8,"minor":0,"weight":10}]}}`, "blockIO/weightDevice/0", "not a device"},
		{`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0},{"major":8,"minor":-1}]}}`, "blockIO/throttleReadBpsDevice/1", "not a device"},
		{`{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}`, "hugepageLimits/0/pageSize", "2MB or 1GB"},
		{`{"hugepageLimits":[{"pageSize":"2MB/../../memory","limit":1}]}`, "hugepageLimits/0/pageSize", "2MB or 1GB"},
		{`{"hugepageLimits":[{"pageSize":"2M","limit":1}]}`, "hugepageLimits/0/pageSize", "2MB or 1GB"},
		{`{"hugepageLimits":[{"pageSize":"B M","limit":1}]}`, "hugepageLimits/0/pageSize", "2MB or 1GB"},
		{`{"hugepageLimits":[{"pageSize":"+2MB","limit":1}]}`, "hugepageLimits/0/pageSize", "2MB or 1GB"},
		{`{"hugepageLimits":[{"pageSize":"1B G","limit":1}]}`, "hugepageLimits/0/pageSize", "2MB or 1GB"},
		{`{"pids":{"limit":-2}}`, "pids/limit", "-1 for no limit"},
		{`{"rdma":{"a b":{"hcaHandles":1}}}`, "rdma/a b", "not the name"},
		{`{"rdma":{"a/~b":{"hcaHandles":1}}}`, "rdma/a~1~0b", "not the name"},
		{`{"rdma":{"mlx":{}}}`, "rdma/mlx", "hcaHandles"},
		{`{"network":{"classID":1}}`, "network", "nftables"},
		{`{"network":{"priorities":[{"name":"eth0","priority":1}]}}`, "network", "nftables"},
		{`{"unified":{"../x.max":"1"}}`, "unified/..~1x.max", `contains "/"`},
		{`{"unified":{"..":"1"}}`, "unified/..", "CONTROLLER.PARAMETER"},
		{`{"unified":{"memory":"1"}}`, "unified/memory", "CONTROLLER.PARAMETER"},
		{`{"unified":{"":"1"}}`, "unified/", "CONTROLLER.PARAMETER"},
		{`{"unified":{"cgroup.procs":"1"}}`, "unified/cgroup.procs", "under husk's control"},
		{`{"unified":{"cgroup.kill":"1"}}`, "unified/cgroup.kill", "under husk's control"},
		{`{"unified":{"memory.max":""}}`, "unified/memory.max", "leave the key out"},
		{`{"unified":{"hugetlb.2MB.max":" \n"}}`, "unified/hugetlb.2MB.max", "leave the key out"},
		{`{"unified":{"io.max":"8:0 rbps=1\n\n8:16 rbps=1"}}`, "unified/io.max", "a line of it"},
		{`{"unified":{"memory.max":"\u0000 5"}}`, "unified/memory.max", "control characters"},
		{`{"unified":{"memory.high\n":"1"}}`, "unified/memory.high\n", "control characters"},
	} {
		_, _, _, err := Compile(parse(t, c.in))
		fe, ok := errors.AsType[*FieldError](err)
		if !ok || fe.Field != pointer+c.field {
			t.Errorf("%s: error %v, want one for %s", c.in, err, c.field)
			continue
		}
		wantError(t, err, nil, c.text)
	}
	// All of them at once.
	_, _, _, err := Compile(parse(t, `{"memory":{"limit":-2,"swappiness":3},"cpu":{"idle":7},"unified":{"x":""}}`))
	wantError(t, err, nil, "memory/limit", "memory/swappiness", "cpu/idle", "unified/x")
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{1: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 60: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("shares %d: weight %d, want %d", shares, got, want)
		}
	}
	for s := uint64(2); s < 262144; s += 1 + s/100 {
		if got, want := weight(s), cgroup2.ConvertCPUSharesToCgroupV2Value(s); got != want {
			t.Fatalf("shares %d: weight %d, containerd says %d", s, got, want)
		}
		if weight(s) > weight(s+1) {
			t.Fatalf("not monotonic at %d", s)
		}
	}
}

// TestOracle compares with containerd/cgroups where that is right. It is not:
// for a quota without period (lost), -1 (written as it is), bfq weights
// (converted to io.weight's range), unified and rdma with one value (lost).
func TestOracle(t *testing.T) {
	for _, in := range []string{
		`{"memory":{"limit":1048576,"swap":2097152,"reservation":5}}`,
		`{"memory":{"limit":100,"swap":100}}`,
		`{"cpu":{"shares":2048,"quota":50000,"period":20000,"cpus":"0-1","mems":"0"}}`,
		`{"pids":{"limit":100}}`,
		`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}`,
		`{"blockIO":{"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}]}}`,
		`{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}]}}`,
		`{"blockIO":{"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":4}]}}`,
		`{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":4}}}`,
		`{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}`,
	} {
		r := parse(t, in)
		want := map[string]bool{}
		for _, v := range cgroup2.ToResources(r).Values() {
			// The fields are not exported; %v prints through pointers here.
			want[strings.Trim(fmt.Sprint(v), "{}")] = true
		}
		limits, _, _, err := Compile(r)
		must(t, err)
		got := map[string]bool{}
		for _, l := range limits {
			if !strings.Contains(l.File, ".rsvd.") { // containerd does not know it
				got[l.File+" "+l.Value] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
}

func fake(t *testing.T, files map[string]string) (*Group, string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		must(t, os.WriteFile(dir+"/"+name, []byte(content), 0o644))
	}
	return fakeGroup(t, dir), dir
}

func TestApply(t *testing.T) {
	limits, _, _, err := Compile(parse(t, `{"memory":{"limit":100,"swap":100},"cpu":{"shares":1024,"period":20000},"blockIO":{"weight":10},"hugepageLimits":[{"pageSize":"2MB","limit":5}]}`))
	must(t, err)
	empty := map[string]string{"memory.max": "", "cpu.weight": "", "io.weight": "", "hugetlb.2MB.max": "", "cpu.max": "70000 100000\n"}
	g, dir := fake(t, empty)
	must(t, g.Apply(limits, false))
	got := func(file string) string { return readFile(t, dir+"/"+file) }
	for file, want := range map[string]string{"io.weight": "1", "hugetlb.2MB.max": "5", "cpu.weight": "", "memory.max": "", "cpu.max": "70000 100000"} {
		if got(file) != want {
			t.Errorf("early: %s is %q, want %q", file, got(file), want)
		}
	}
	must(t, g.Apply(limits, true)) // no memory.swap.max here: 0 is what such a kernel does
	if got("memory.max") != "100" || got("cpu.weight") != "100" {
		t.Errorf("memory.max is %q, cpu.weight %q", got("memory.max"), got("cpu.weight"))
	}
	if got("cpu.max") != "70000 20000" {
		t.Errorf("cpu.max is %q: a period alone must keep the quota", got("cpu.max"))
	}
}

func TestApplyErrors(t *testing.T) {
	for _, c := range []struct {
		in    string
		files map[string]string
		is    error
		words []string
	}{
		{`{"memory":{"limit":100}}`, map[string]string{"cgroup.controllers": "cpu\n"}, unix.ENOENT, []string{"memory/limit", `"100"`, "memory.max", `controller "memory"`}},
		{`{"memory":{"limit":100,"swap":150}}`, map[string]string{"cgroup.controllers": "memory\n", "memory.max": ""}, unix.ENOENT, []string{"memory/swap", "this kernel has no file memory.swap.max"}},
		{`{"memory":{"limit":100,"checkBeforeUpdate":true}}`, map[string]string{"memory.max": "", "memory.current": "100\n"}, unix.EBUSY, []string{"100 bytes are in use", "checkBeforeUpdate"}},
		{`{"blockIO":{"weight":10}}`, map[string]string{"cgroup.controllers": "io\n"}, unix.ENOENT, []string{"neither io.bfq.weight nor io.weight"}},
		{`{"hugepageLimits":[{"pageSize":"3MB","limit":5}]}`, map[string]string{"cgroup.controllers": "hugetlb\n"}, unix.ENOENT, []string{"hugepageLimits/0", "no huge pages of that size"}},
		{`{"unified":{"memory.nonsense":"1"}}`, map[string]string{"cgroup.controllers": "memory\n"}, unix.ENOENT, []string{"unified/memory.nonsense", "no file memory.nonsense"}},
	} {
		limits, _, _, err := Compile(parse(t, c.in))
		must(t, err)
		g, _ := fake(t, c.files)
		wantError(t, errors.Join(g.Apply(limits, false), g.Apply(limits, true)), c.is, c.words...)
	}
}

// TestCheckUsage: a limit above the usage, and no limit, pass.
func TestCheckUsage(t *testing.T) {
	g, _ := fake(t, map[string]string{"memory.current": "100\n", "memory.swap.current": "100\n"})
	check := func(file, value string) error { return g.check(Limit{File: file, Value: value, Check: true}) }
	must(t, check("memory.max", "101"))
	must(t, check("memory.max", "max"))
	wantError(t, check("memory.max", "100"), unix.EBUSY)
	must(t, check("memory.swap.max", "100"))
	wantError(t, check("memory.swap.max", "99"), unix.EBUSY)
}

func TestHugetlb(t *testing.T) {
	path := testPath(t)
	if !strings.Contains(readFile(t, "/sys/fs/cgroup/cgroup.controllers"), "hugetlb") {
		t.Skip("no hugetlb controller in cgroup2")
	}
	limits, controllers, _, err := Compile(parse(t, `{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}`))
	must(t, err)
	g := mustCreate(t, path, controllers...)
	must(t, g.Apply(limits, false))
	for _, file := range []string{"hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"} {
		if got := readFile(t, "/sys/fs/cgroup"+path+"/"+file); got != "4194304" {
			t.Errorf("%s is %s", file, got)
		}
	}
	limits, _, _, err = Compile(parse(t, `{"hugepageLimits":[{"pageSize":"4MB","limit":1}],"unified":{"hugetlb.2MB.max":"junk"}}`))
	must(t, err)
	wantError(t, g.Apply(limits, false), unix.ENOENT, "hugepageLimits/0", "no huge pages of that size")
	wantError(t, g.Apply(limits, true), unix.EINVAL, "unified/hugetlb.2MB.max", `"junk"`)
}
