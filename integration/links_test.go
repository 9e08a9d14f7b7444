package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func ip(t *testing.T, words string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", words, err, out)
	}
	return string(out)
}

// netDevice is one to move, v0, whose other end is p0, and what it looks like.
type netDevice struct {
	t     *testing.T
	shown string
}

func newNetDevice(t *testing.T) *netDevice {
	t.Helper()
	d := &netDevice{t: t}
	ip(t, "link add v0 type veth peer name p0")
	ip(t, "addr add 10.0.0.2/24 dev v0")
	ip(t, "addr add fd00::2/64 dev v0 nodad")
	d.shown = d.show()
	return d
}

// show is empty while the device is away. The kernel says what it makes of an address a
// moment later.
func (d *netDevice) show() string {
	out, _ := exec.Command("ip", "-o", "addr", "show", "v0").Output()
	return strings.Join(slices.DeleteFunc(strings.Fields(string(out)), func(s string) bool { return s == "tentative" }), " ")
}

// settle waits until the device is back as it was, or gone for good: its network
// namespace has ended, and the other end went with it.
func (d *netDevice) settle() (back bool) {
	d.t.Helper()
	for end := time.Now().Add(patience(5 * time.Second)); ; time.Sleep(time.Millisecond) {
		switch {
		case d.show() == d.shown:
			return true
		case !slices.Contains(linkNames(), "p0"):
			return false
		case time.Now().After(end):
			d.t.Fatalf("the device is neither back nor gone: %v", linkNames())
		}
	}
}

// A create with network devices that is killed at any system call: the device is back,
// with its name and addresses, without anybody's help, unless the container was created.
func TestKillSweepNetDevices(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip, of the package iproute2")
	}
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			probeArgs("hold")(s)
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"v0": {Name: "eth0"}}
		})
		d := newNetDevice(t)
		total := b.calls(0, parent, "create", "c1")
		b.must("delete", "-f", "c1")
		if d.settle() {
			t.Fatal("delete moved the device back")
		}
		d = newNetDevice(t)
		killed := 0
		tried := sweep(t, total, func(n int) bool {
			r := b.traced(0, parent, []string{"kill", itoa(n)}, "create", "c1")
			s, ok := b.state("c1")
			created := ok && s.Status == specs.StateCreated
			if r.code != 0 {
				killed++
			}
			if !created && !d.settle() {
				t.Errorf("killed at system call %d of %d: the device is gone", n, total)
			}
			b.must("delete", "-f", "c1")
			if !d.settle() {
				d = newNetDevice(t)
			}
			return created || !t.Failed()
		})
		t.Logf("%d of %d system calls tried, %d killed it", tried, total, killed)
		if killed < tried/2 {
			t.Error("too few tries disturbed it")
		}
		ip(t, "link del v0")
	})
}

// networked gives the container an interface on a bridge that is made for it, and the
// packet filter something to do.
func (b *bundle) networked() {
	b.t.Helper()
	b.annotate("bridge=husk0,address=auto,masquerade,publish=8080:80/tcp,forwarding")
}

func (b *bundle) annotate(words string) {
	b.t.Helper()
	path := filepath.Join(b.dir, "config.json")
	doc, err := os.ReadFile(path)
	must(b.t, err)
	doc, err = editJSON(doc, "set", "/annotations", `{"run.husk.net.eth0":"`+words+`"}`)
	must(b.t, err)
	must(b.t, os.WriteFile(path, doc, 0o644))
}

// confined has the packet filter guard its end.
func (b *bundle) confined() {
	b.t.Helper()
	b.annotate("bridge=husk0,address=auto,masquerade,forwarding,allow=192.0.2.7:443")
}

// Whoever is killed when, the next command leaves no interface and no bridge.
func TestKillSweepCreateNet(t *testing.T) {
	box(t, func(t *testing.T) { killSweep(t, parent, "create", (*bundle).networked) })
}

func TestKillSweepCreateNetHelper(t *testing.T) {
	box(t, func(t *testing.T) { killSweep(t, child, "create", (*bundle).networked) })
}

func TestKillSweepCreateAllowHelper(t *testing.T) {
	box(t, func(t *testing.T) { killSweep(t, child, "create", (*bundle).confined) })
}

func TestKillSweepDeleteNet(t *testing.T) {
	box(t, func(t *testing.T) { killSweep(t, parent, "delete", (*bundle).networked) })
}

// Many containers come and go on one bridge at once: nobody removes it under another.
func TestNetTogether(t *testing.T) {
	box(t, func(t *testing.T) {
		n := 64
		if patience(1) > 1 {
			n = 4 // an emulated machine takes seconds for each
		}
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh", "-c", "ip -o addr show eth0"} })
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() {
				address := "10.88.0." + itoa(i+2)
				for _, words := range []string{"bridge=husk0,gateway=10.88.0.1,address=", "bridge=husk1,address="} {
					r := b.husk("run", "--net", "eth0:"+words+address+"/24", "c"+itoa(i))
					if r.code != 0 || !strings.Contains(r.stdout, address+"/24") {
						t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
					}
				}
			})
		}
		group.Wait()
		b.together(n)
		if links := linkNames(); len(links) != 1 {
			t.Errorf("left behind: %v", links)
		}
	})
}

// together runs many containers at once and makes sure that each has addresses of its own.
func (b *bundle) together(n int) {
	b.t.Helper()
	var mu sync.Mutex
	seen := map[string]string{}
	var group sync.WaitGroup
	for i := range n {
		id := "c" + itoa(i)
		group.Go(func() {
			port := itoa(8000 + i)
			b.must("create", "--net", "eth0:bridge=husk0,address=auto,masquerade,forwarding,publish="+port+":80/tcp", id)
			s, _ := b.state(id)
			openSpace(b.t, filepath.Join("/proc", itoa(s.Pid), "ns/net")).serve(":80")
			out, err := exec.Command("nsenter", "-t", itoa(s.Pid), "-n", "ip", "-o", "addr", "show", "eth0", "scope", "global").CombinedOutput()
			if err != nil {
				b.t.Errorf("%v: %s", err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(string(out)) {
				address := strings.Fields(line)[3]
				if seen[address] != "" {
					b.t.Errorf("%s is that of %s and %s", address, seen[address], id)
				}
				seen[address] = id
			}
		})
	}
	group.Wait()
	if len(seen) != 2*n {
		b.t.Errorf("%d addresses: %v", len(seen), seen)
	}
	host := openSpace(b.t, "/proc/self/ns/net")
	host.ip("link set lo up")
	for i := range n {
		if got := host.ask("tcp", "127.0.0.1:"+itoa(8000+i), patience(3*time.Second)); got != "10.88.0.1" {
			b.t.Errorf("port %d: asked by %q", 8000+i, got)
		}
	}
	for i := range n {
		b.must("delete", "-f", "c"+itoa(i))
	}
}
