package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A disk is a block device that a test may write on.
type disk struct {
	name         string // in /dev and /sys/block
	major, minor int64
}

func newDisk(t *testing.T, name string) disk {
	t.Helper()
	var major, minor int64
	_, err := fmt.Sscanf(readString(t, "/sys/block/"+name+"/dev"), "%d:%d", &major, &minor)
	must(t, err)
	return disk{name, major, minor}
}

func (d disk) String() string { return fmt.Sprintf("%d:%d", d.major, d.minor) }

// json is the device in the words of blockIO.
func (d disk) json(key string, value int) string {
	return fmt.Sprintf(`[{"major":%d,"minor":%d,%q:%d}]`, d.major, d.minor, key, value)
}

// allow shows the disk to a container as /dev/disk.
func (d disk) allow(s *specs.Spec) {
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/disk", Type: "b", Major: d.major, Minor: d.minor})
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
		specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &d.major, Minor: &d.minor, Access: "rw"})
}

// loopDisk is a file as a disk.
func loopDisk(t *testing.T, size int64) disk {
	t.Helper()
	_ = exec.Command("modprobe", "loop").Run()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skip("needs loop devices: ", err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	must(t, err)
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	must(t, err)
	defer file.Close()
	must(t, file.Truncate(size))
	name := "loop" + itoa(n)
	loop, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
	must(t, err)
	defer loop.Close()
	must(t, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(file.Fd())))
	t.Cleanup(func() {
		loop, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
		must(t, err)
		defer loop.Close()
		must(t, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0))
	})
	return newDisk(t, name)
}

// slowDisk is a disk that needs a millisecond for everything, so that two who want
// it have to share. It is outside of any box, since schedulers are
// set up in the root of the hierarchy.
func slowDisk(t *testing.T) disk {
	t.Helper()
	const name = "nullb7"
	if err := exec.Command("modprobe", "null_blk", "nr_devices=0").Run(); err != nil {
		t.Skip("needs the module null_blk: ", err)
	}
	configfs := t.TempDir()
	must(t, unix.Mount("configfs", configfs, "configfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(configfs, unix.MNT_DETACH)) })
	dir := filepath.Join(configfs, "nullb", name)
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { must(t, os.Remove(dir)) })
	for _, attribute := range []string{
		"size=64", "blocksize=4096", "memory_backed=0", "submit_queues=1",
		"irqmode=2", "completion_nsec=1000000", "power=1",
	} {
		key, value, _ := strings.Cut(attribute, "=")
		must(t, os.WriteFile(filepath.Join(dir, key), []byte(value), 0))
	}
	if exists("/sys/block/" + name) {
		return newDisk(t, name)
	}
	return newDisk(t, "nullb"+readString(t, filepath.Join(dir, "index"))) // before Linux 6.6
}

// io is a counter of the guest's use of a disk.
func (g *guest) io(d disk, key string) func() uint64 {
	return func() uint64 {
		for line := range strings.Lines(readString(g.t, g.file("io.stat"))) {
			fields := strings.Fields(line)
			if len(fields) == 0 || fields[0] != d.String() {
				continue
			}
			for _, f := range fields[1:] {
				if n, ok := strings.CutPrefix(f, key+"="); ok {
					return parseUint(g.t, n)
				}
			}
		}
		return 0
	}
}

// Each of the four limits on a disk holds, and only that.
func TestLimitIO(t *testing.T) {
	quietBox(t, func(t *testing.T) {
		needControllers(t, "io")
		d := loopDisk(t, 16*mib)
		r := newRoom(t)
		run := func(id, resources, verb, size string) *guest {
			return r.guestAs("/"+id, resources, d.allow, verb, "/dev/disk", size)
		}
		limits := []struct {
			field, key, verb, size, counter string
			rate                            int
		}{
			{"throttleReadBpsDevice", "rbps", "read", "16384", "rbytes", mib},
			{"throttleWriteBpsDevice", "wbps", "write", "16384", "wbytes", mib},
			{"throttleReadIOPSDevice", "riops", "read", "4096", "rios", 50},
			{"throttleWriteIOPSDevice", "wiops", "write", "4096", "wios", 50},
		}
		var counters []func() uint64
		for _, l := range limits {
			g := run(l.key, `{"blockIO":{"`+l.field+`":`+d.json("rate", l.rate)+`}}`, l.verb, l.size)
			want := d.String() + " rbps=max wbps=max riops=max wiops=max"
			g.reads("io.max", strings.Replace(want, l.key+"=max", l.key+"="+itoa(l.rate), 1))
			g.said("ready")
			counters = append(counters, g.io(d, l.counter))
		}
		for i, got := range rates(3, 2*time.Second, counters...) {
			rate := float64(limits[i].rate)
			within(t, limits[i].key+" per second", got, rate*0.9, rate*1.1)
		}
		free := run("free", `{"blockIO":{"throttleReadBpsDevice":`+d.json("rate", mib)+`}}`, "write", "16384")
		free.said("ready")
		within(t, "writes beside a limit on reads, MiB per second", rates(1, time.Second, free.io(d, "wbytes"))[0]/mib, 4, 1e6)
	})
}

// Two who write to one disk share it by their weights: as the BFQ scheduler does,
// and as io.cost does, for the weight in general and for that on this disk.
func TestLimitIOWeight(t *testing.T) {
	for name, setup := range map[string]func(*testing.T, disk){"bfq": useBFQ, "iocost": useIOCost} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv(envTest) == "" {
				d := outerDisk(t)
				setup(t, d)
				t.Setenv("HUSK_DISK", d.name)
			}
			quietBox(t, func(t *testing.T) {
				needControllers(t, "io")
				shareDisk(t, newDisk(t, os.Getenv("HUSK_DISK")), name == "bfq")
			})
		})
	}
}

// outerDisk makes a disk where there is a chance that the test will use it.
func outerDisk(t *testing.T) disk {
	t.Helper()
	if os.Geteuid() != 0 || !strings.Contains(rootFile(t, "cgroup.controllers"), "io") {
		t.Skip("needs the io controller on cgroup2")
	}
	return slowDisk(t)
}

// rootPath names a file of the hierarchy's root.
func rootPath(t *testing.T, name string) string {
	t.Helper()
	root, err := harness.CgroupRoot()
	if err != nil {
		t.Skipf("needs root with a cgroup2 file system: %v", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", root, name)
}

// rootFile reads one.
func rootFile(t *testing.T, name string) string {
	t.Helper()
	return readString(t, rootPath(t, name))
}

func writeRootFile(t *testing.T, name, value string) error {
	t.Helper()
	return os.WriteFile(rootPath(t, name), []byte(value), 0)
}

func useBFQ(t *testing.T, d disk) {
	t.Helper()
	_ = exec.Command("modprobe", "bfq").Run()
	queue := "/sys/block/" + d.name + "/queue/"
	if err := os.WriteFile(queue+"scheduler", []byte("bfq"), 0); err != nil {
		t.Skip("needs the BFQ scheduler: ", err)
	}
	// No favours for who is new or for a fast disk, and turns that are short enough to
	// be even within a second.
	for file, value := range map[string]string{
		"rotational": "1", "iosched/low_latency": "0", "iosched/strict_guarantees": "1", "iosched/max_budget": "64",
	} {
		must(t, os.WriteFile(queue+file, []byte(value), 0))
	}
}

// useIOCost tells io.cost what the disk can do, and not to find out by itself.
func useIOCost(t *testing.T, d disk) {
	t.Helper()
	model := d.String() + " ctrl=user model=linear rbps=8000000 rseqiops=400 rrandiops=400 wbps=8000000 wseqiops=400 wrandiops=400"
	if err := writeRootFile(t, "io.cost.model", model); err != nil {
		t.Skip("needs io.cost: ", err)
	}
	// It counts in periods of twice the latency, which have to be worth many writes.
	must(t, writeRootFile(t, "io.cost.qos", d.String()+" enable=1 ctrl=user rpct=95.00 rlat=50000 wpct=95.00 wlat=50000 min=100.00 max=100.00"))
	t.Cleanup(func() { must(t, writeRootFile(t, "io.cost.qos", d.String()+" enable=0")) })
}

func shareDisk(t *testing.T, d disk, bfq bool) {
	r := newRoom(t)
	weights := []struct{ what, two, one string }{
		{"weights", `{"blockIO":{"weight":400}}`, `{"blockIO":{"weight":200}}`},
		{"weights on the device", `{"blockIO":{"weightDevice":` + d.json("weight", 400) + `}}`, `{"blockIO":{"weightDevice":` + d.json("weight", 200) + `}}`},
	}
	for _, w := range weights {
		two := r.guestAs("/two", w.two, d.allow, "write", "/dev/disk", "4096", "4")
		one := r.guestAs("/one", w.one, d.allow, "write", "/dev/disk", "4096", "4")
		for _, g := range []*guest{two, one} {
			for _, file := range []string{"io.bfq.weight", "io.weight"} {
				if exists(g.file(file)) {
					t.Logf("%s: %s: %q", g.id, file, readString(t, g.file(file)))
				}
			}
			if out := g.said("ready"); strings.Contains(out, "open") {
				t.Fatal(out)
			}
		}
		time.Sleep(time.Second)
		settles(t, w.what+" 400 and 200", 1.8, 2.2, func() float64 {
			return ratio(3, 2*time.Second, two.io(d, "wios"), one.io(d, "wios"))
		})
		two.gone()
		one.gone()
	}
}
