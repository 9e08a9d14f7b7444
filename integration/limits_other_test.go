package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// One huge page: a second is refused where it is reserved, and where it is touched if
// it was not reserved.
func TestLimitHugetlb(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "hugetlb")
		const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
		before, err := os.ReadFile(pool)
		if err != nil {
			t.Skip("needs huge pages of 2 MiB: ", err)
		}
		must(t, os.WriteFile(pool, []byte("8"), 0))
		t.Cleanup(func() { must(t, os.WriteFile(pool, before, 0)) })
		if readString(t, pool) != "8" {
			t.Skip("needs memory for 8 huge pages")
		}
		r := newRoom(t)
		const limit = `{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}`
		one := r.guest("one", limit, "huge", "1")
		one.reads("hugetlb.2MB.max", "2097152", "hugetlb.2MB.rsvd.max", "2097152")
		if out := one.said("ready"); !strings.Contains(out, "touched 1\n") {
			t.Errorf("one page of one: it said %q", out)
		}
		one.reads("hugetlb.2MB.current", "2097152")
		two := r.guest("two", limit, "huge", "2")
		if out := two.said("ready"); !strings.Contains(out, "mmap ENOMEM\n") {
			t.Errorf("two pages of one: it said %q", out)
		}
		lazy := r.guest("lazy", limit, "huge", "2", "lazy")
		lazy.ended() // by SIGBUS
		if out := lazy.said("ready"); !strings.Contains(out, "touched 1\n") || strings.Contains(out, "touched 2\n") {
			t.Errorf("two pages of one without a reservation: it said %q", out)
		}
		if lazy.remains() && lazy.count("hugetlb.2MB.events", "max") == 0 {
			t.Error("not counted")
		}
	})
}

// Files that only unified has: what is written is read back.
func TestLimitUnified(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "memory", "pids", "cpu", "io", "cpuset")
		files := []struct{ file, value, reads string }{
			{"memory.min", "1048576", "1048576"},
			{"memory.high", "50331648", "50331648"},
			{"memory.oom.group", "1", "1"},
			{"memory.swap.high", "8388608", "8388608"},
			{"memory.zswap.max", "0", "0"},
			{"memory.zswap.writeback", "0", "0"},
			{"cpu.weight.nice", "5", "5"},
			{"cpu.uclamp.max", "50.00", "50.00"},
			{"cpuset.cpus.partition", "member", "member"},
			{"io.prio.class", "idle", "idle"},
			{"pids.max", "50", "50"},
			{"cgroup.max.depth", "3", "3"},
			{"cgroup.max.descendants", "7", "7"},
			{"cgroup.pressure", "0", "0"},
		}
		r := newRoom(t)
		all := r.guest("all", `{"memory":{"limit":-1},"pids":{"limit":-1},"cpu":{"shares":100,"cpus":"0"},"blockIO":{"weight":100}}`, "where", "0")
		var unified, pairs []string
		for _, f := range files {
			if !exists(all.file(f.file)) {
				t.Logf("no %s here", f.file)
				continue
			}
			unified = append(unified, quoteJSON(f.file)+":"+quoteJSON(f.value))
			pairs = append(pairs, f.file, f.reads)
		}
		all.gone()
		g := r.guest("unified", `{"pids":{"limit":5},"cpu":{"cpus":"0"},"unified":{`+strings.Join(unified, ",")+`}}`, "where", "0")
		g.reads(pairs...)
	})
}

// Changed while the container runs, a limit has its effect at once.
func TestLimitUpdate(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "cpu", "cpuset", "memory", "pids")
		r := newRoom(t)
		g := r.guest("changes", `{"cpu":{"quota":50000,"period":100000}}`, "cpu", "1")
		g.said("ready")
		for _, percent := range []int{50, 20, 80} {
			g.must("update", "--cpu-quota", itoa(percent*1000), "changes")
			settles(t, "a quota of "+itoa(percent)+"%", float64(percent)-4, float64(percent)+4, func() float64 {
				return rates(1, 2*time.Second, g.cpuTime)[0] / 1e4
			})
		}
		g.must("update", "--cpuset-cpus", "0", "--cpu-quota", "-1", "changes")
		g.reads("cpuset.cpus.effective", "0", "cpu.max", "max 100000")
		p := r.guest("pids", `{}`, "refork", "100")
		p.said("fork ok")
		p.must("update", "--pids-limit", "1", "pids")
		if out := p.said("EAGAIN"); !strings.HasSuffix(out, "fork EAGAIN\n") {
			t.Errorf("it said %q", out)
		}
		// Lower than what is in use: the rest goes to swap.
		needSwap(t)
		m := r.guest("memory", `{"memory":{"limit":-1,"swap":-1}}`, "memory", itoa(32*mib))
		m.said("ready")
		m.must("update", "--memory", "16m", "--memory-swap", "64m", "memory")
		m.reads("memory.max", "16777216", "memory.swap.max", "50331648")
		within(t, "MiB of 32 left in memory", float64(m.count("memory.current", ""))/mib, 1, 16)
		if m.empty() {
			t.Error("it was killed: ", readString(t, m.file("memory.events")))
		}
		m.gone()
	})
}

// rdma.max knows devices only; a software one is made where the kernel has the driver.
func TestLimitRdma(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "rdma")
		r := newRoom(t)
		bad := r.prepare("/bad", `{"rdma":{"nothing0":{"hcaHandles":3}}}`, nil, "where", "0")
		if got := bad.husk("create", "bad"); got.code == 0 || !strings.Contains(got.stderr, "/linux/resources/rdma/nothing0") {
			t.Errorf("a device that is not there: exit %d: %s", got.code, got.stderr)
		}
		devices, _ := os.ReadDir("/sys/class/infiniband")
		if len(devices) == 0 {
			t.Skip("rdma.max: needs an RDMA device")
		}
		name := devices[0].Name()
		g := r.guest("rdma", `{"rdma":{"`+name+`":{"hcaHandles":3,"hcaObjects":1000}}}`, "where", "0")
		g.reads("rdma.max", name+" hca_handle=3 hca_object=1000")
		file := filepath.Join(t.TempDir(), "update")
		must(t, os.WriteFile(file, []byte(`{"rdma":{"`+name+`":{"hcaHandles":5}}}`), 0o644))
		g.must("update", "-r", file, "rdma")
		g.reads("rdma.max", name+" hca_handle=5 hca_object=1000")
	})
}

// A container that may manage its cgroup makes groups, passes controllers on and
// limits them, but cannot raise its own limit.
func TestLimitDelegation(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "memory", "pids")
		const script = `cd /sys/fs/cgroup
mkdir leaf payload && echo 0 >leaf/cgroup.procs || echo cannot make groups
echo '+memory +pids' >cgroup.subtree_control || echo cannot enable controllers
echo 4 >payload/pids.max && echo 8388608 >payload/memory.max || echo cannot limit
(echo 0 >payload/cgroup.procs; for i in 1 2 3 4 5 6 7 8; do sleep 100 & done) 2>&1 | grep -q fork && echo payload is limited
for f in memory.max pids.max; do (echo max >$f) 2>/dev/null && echo raised $f; done
echo ready; sleep 1000`
		r := newRoom(t)
		for name, edit := range map[string]func(*specs.Spec){
			"user-namespace": func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
				s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
			},
			"user-in-namespace": func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
				s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
				s.Process.User = specs.User{UID: 1000, GID: 1000}
			},
			"user": func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1000} },
		} {
			g := r.guestAs("/"+name, `{"memory":{"limit":67108864},"pids":{"limit":20}}`, func(s *specs.Spec) {
				edit(s)
				s.Mounts[6].Options = []string{"nosuid", "noexec", "nodev", "rw"}
			}, "/bin/sh", "-c", script)
			if out := g.said("ready"); strings.TrimSpace(out) != "payload is limited\nready" {
				t.Errorf("%s: it said %q", name, out)
			}
			g.reads("memory.max", "67108864", "pids.max", "20", "payload/pids.max", "4", "payload/memory.max", "8388608")
			g.gone()
		}
		// Mounted read-only nothing of this is possible.
		g := r.guest("fixed", `{"memory":{"limit":67108864},"pids":{"limit":20}}`, "/bin/sh", "-c", "mkdir /sys/fs/cgroup/leaf; echo max >/sys/fs/cgroup/memory.max; echo ready; sleep 1000")
		if out := g.said("ready"); strings.Count(out, "Read-only file system") != 2 {
			t.Errorf("read-only: it said %q", out)
		}
	})
}

// An ordinary user limits containers in a subtree that was delegated to it.
func TestLimitRootless(t *testing.T) {
	box(t, func(t *testing.T) {
		needControllers(t, "memory", "pids")
		const uid, dir = 1000, "/sys/fs/cgroup/pod"
		pod(t, nil)
		must(t, os.Mkdir(dir+"/own", 0o755))
		t.Cleanup(func() { must(t, os.Remove(dir+"/own")) })
		for _, file := range []string{"", "/cgroup.procs", "/cgroup.subtree_control", "/own", "/own/cgroup.procs"} {
			must(t, os.Chown(dir+file, uid, uid))
		}
		r := room{newOwnedBundle(t, uid, nil)}
		must(t, copyFile(tool("hog"), r.rootfs("hog")))
		run := t.TempDir()
		must(t, os.Chown(run, uid, uid))
		must(t, os.Chmod(run, 0o700))
		open(t, run)
		g := r.prepare("/pod/c1", `{"memory":{"limit":33554432,"swap":33554432},"pids":{"limit":10}}`, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uid, Size: 1}}
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
		}, "fork", "50")
		as := func(args string) *exec.Cmd {
			cmd := exec.Command("sh", "-c", "echo 0 >"+dir+"/own/cgroup.procs; export XDG_RUNTIME_DIR="+run+
				"; exec setpriv --reuid 1000 --regid 1000 --clear-groups "+runtimePath()+" "+args)
			cmd.Dir, cmd.Stdout, cmd.Stderr = g.dir, g.out, g.out
			return cmd
		}
		t.Cleanup(func() { as("delete -f c1").Run() })
		if err := as("run -d c1").Run(); err != nil {
			t.Fatalf("%v: %s", err, readString(t, g.out.Name()))
		}
		g.reads("memory.max", "33554432", "pids.max", "10")
		if out := g.said("ready"); !strings.Contains(out, "forked 9 EAGAIN\n") {
			t.Errorf("it said %q", out)
		}
		if err := as("update --pids-limit 12 c1").Run(); err != nil {
			t.Errorf("update: %v: %s", err, readString(t, g.out.Name()))
		}
		g.reads("pids.max", "12")
	})
}

// open lets everybody pass through the directories above a path.
func open(t *testing.T, path string) {
	t.Helper()
	for dir := path; dir != workRoot && len(dir) > 1; {
		dir = dir[:strings.LastIndex(dir, "/")]
		if dir != "" {
			os.Chmod(dir, 0o755)
		}
	}
}
