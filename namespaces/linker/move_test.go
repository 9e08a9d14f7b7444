package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// lab is two network namespaces, the host's, which the test runs in, and the container's.
type lab struct {
	t     *testing.T
	there *os.File
	linker
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip, of the package iproute2")
	}
	// The thread keeps its namespace and ends with the goroutine.
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	l := &lab{t: t, there: open(t)}
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	t.Cleanup(func() { l.release(); l.there.Close() })
	return l
}

func open(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ip runs ip(8) with each line's words on the host.
func (l *lab) ip(lines ...string) string {
	l.t.Helper()
	var all strings.Builder
	for _, line := range lines {
		out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		if err != nil {
			l.t.Fatalf("ip %s: %v: %s", line, err, out)
		}
		all.Write(out)
	}
	return all.String()
}

// inside runs it in the container.
func (l *lab) inside(lines ...string) string {
	l.t.Helper()
	host := open(l.t)
	defer host.Close()
	must(l.t, unix.Setns(int(l.there.Fd()), unix.CLONE_NEWNET))
	defer func() { must(l.t, unix.Setns(int(host.Fd()), unix.CLONE_NEWNET)) }()
	return l.ip(lines...)
}

func (l *lab) move(devices ...string) (int, error) {
	var list []namespaces.Device
	for _, d := range devices {
		host, name, _ := strings.Cut(d, ">")
		list = append(list, namespaces.Device{Host: host, Name: name})
	}
	return l.Wire(int(l.there.Fd()), "test 1", list)
}

// furnish makes a device with everything that is to survive.
func (l *lab) furnish() (shown func() string) {
	l.ip(
		"link add v0 type veth peer name p0", "link add br0 type bridge", "link set br0 up", "link set v0 master br0",
		"link set v0 mtu 1400 address 02:00:00:00:00:07 up", "link set p0 up",
		"addr add 10.0.0.2/24 dev v0 label v0:a", "addr add 10.0.0.3/24 dev v0", "addr add 192.0.2.1 peer 192.0.2.2/32 dev v0",
		"addr add 10.3.0.1/24 dev v0 scope link",
		"addr add fd00::2/64 dev v0 nodad", "addr add fd00::3/64 dev v0 nodad noprefixroute",
		"addr add fd01::1/64 dev v0 nodad valid_lft 1000 preferred_lft 900",
		"route add default via 10.9.0.1 dev v0 onlink", "route add 10.9.0.0/24 dev v0", "route add 10.10.0.0/16 via 10.9.0.1 metric 7 table 77",
		"route add fd09::/64 via fd00::1 dev v0",
	)
	return func() string {
		out := l.ip("-o link show v0", "-o addr show v0", "-4 route show table all", "-6 route show table all")
		var lines []string
		for line := range strings.Lines(out) {
			if strings.Contains(line, "fe80:") || strings.HasPrefix(line, "multicast") || strings.HasPrefix(line, "local") {
				continue // as fast as the kernel gets to it
			}
			line, _, _ = strings.Cut(line, " expires")
			line, _, _ = strings.Cut(line, "sec preferred_lft")
			line = strings.ReplaceAll(strings.ReplaceAll(line, "valid_lft 999", "valid_lft 1000"), " linkdown", "")
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
}

func TestMove(t *testing.T) {
	l := newLab(t)
	shown := l.furnish()
	before := shown()
	if i, err := l.move("v0>eth0"); err != nil {
		t.Fatal(i, err)
	}
	got := l.inside("-o link show eth0", "-o addr show eth0 scope global")
	for _, want := range []string{
		"mtu 1400", "02:00:00:00:00:07", ",UP", "inet 10.0.0.2/24", "eth0:a", "inet 10.0.0.3/24", "inet 192.0.2.1 peer 192.0.2.2/32",
		"inet6 fd00::2/64", "inet6 fd00::3/64 scope global nodad noprefixroute",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	// Neither what has a lifetime nor what is not global comes along.
	for _, not := range []string{"10.3.0.1", "fd01::1"} {
		if strings.Contains(l.inside("addr show eth0"), not) {
			t.Errorf("%s moved", not)
		}
	}
	if out := l.ip("link"); strings.Contains(out, "v0@") && !strings.Contains(out, "p0@") {
		t.Errorf("left behind:\n%s", out)
	}
	must(t, l.Back())
	if after := shown(); after != before {
		t.Errorf("back as\n%s\nwas\n%s", after, before)
	}
	if out := l.inside("link"); strings.Contains(out, "eth0") {
		t.Errorf("still in the container:\n%s", out)
	}
}

// TestNames: explicit names and templates, against what is there and among themselves.
func TestNames(t *testing.T) {
	for _, test := range []struct {
		there, devices string
		want           string // names there, in the order of devices
		fails          string // for which device, and why
	}{
		{there: "", devices: "a>a b>b", want: "a b"},
		{there: "", devices: "a>b b>a", want: "b a"},
		{there: "", devices: "a>eth%d b>eth%d", want: "eth0 eth1"},
		{there: "", devices: "a>eth%d b>eth0", want: "eth1 eth0"},
		{there: "eth0", devices: "a>eth%d b>eth%d", want: "eth1 eth2"},
		{there: "eth0", devices: "a>eth%d", want: "eth1"},
		{there: "a", devices: "a>x", want: "x"},
		{there: "a", devices: "a>a%d", want: "a1"}, // numbered as it arrives, and again when it is renamed
		{there: "a", devices: "b>b a>a", fails: "1 the container has a network device a already: file exists"},
		{there: "", devices: "b>lo", fails: "0 the container has a network device lo already: file exists"},
		{there: "alias", devices: "a>other", fails: "0 the container has a network device other already: file exists"},
		{there: "", devices: "a>a c>c", fails: "1 find network device c: no such device"},
		{there: "", devices: "a>a lo>x", fails: "1 move network device lo: "},
		{there: "", devices: "a>a b>b%", fails: "1 move network device b: invalid argument"},
	} {
		t.Run(test.there+"+"+test.devices, func(t *testing.T) {
			l := newLab(t)
			l.ip("link add name a index 20 type veth peer name pa", "link add name b index 21 type veth peer name pb")
			taken := map[string]bool{"lo": true}
			if test.there != "" {
				// Its index is taken as well.
				l.inside("link add name "+test.there+" index 20 type veth peer name there index 30", "link property add dev "+test.there+" altname other")
				taken[test.there], taken["there"] = true, true
			}
			before, inside := l.ip("-br link"), l.inside("-br link")
			i, err := l.move(strings.Fields(test.devices)...)
			if test.fails != "" {
				if got := fmt.Sprint(i, " ", err); !strings.HasPrefix(got, test.fails) {
					t.Errorf("got %s", got)
				}
				if l.ip("-br link") != before || l.inside("-br link") != inside {
					t.Errorf("host:\n%sthere:\n%s", l.ip("-br link"), l.inside("-br link"))
				}
				return
			}
			must(t, err)
			names := map[int]string{}
			for line := range strings.Lines(l.inside("-o link")) {
				var index int
				var name string
				fmt.Sscanf(strings.ReplaceAll(line, ":", " "), "%d %s", &index, &name)
				if name, _, _ = strings.Cut(name, "@"); !taken[name] {
					names[index] = name
				}
			}
			var got []string
			slices.SortFunc(l.moved, func(a, b *device) int { return strings.Compare(a.Host, b.Host) })
			for _, d := range l.moved {
				got = append(got, names[d.index])
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v, want %s", got, test.want)
			}
			must(t, l.Back())
			if after := l.ip("-br link"); after != before {
				t.Errorf("back as\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// TestAddressRefused: whatever fails after the move takes it back.
func TestAddressRefused(t *testing.T) {
	l := newLab(t)
	shown := l.furnish()
	before := shown()
	func() {
		host := open(t)
		defer host.Close()
		must(t, unix.Setns(int(l.there.Fd()), unix.CLONE_NEWNET))
		defer unix.Setns(int(host.Fd()), unix.CLONE_NEWNET)
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
			t.Skip(err)
		}
	}()
	i, err := l.move("v0>eth0")
	if i != 0 || err == nil || !strings.Contains(err.Error(), "give v0 its addresses again: ") {
		t.Error(i, err)
	}
	if after := shown(); after != before {
		t.Errorf("back as\n%s\nwas\n%s", after, before)
	}
}

// TestBackTaken: what was free when the device left may be taken when it returns.
func TestBackTaken(t *testing.T) {
	for _, name := range []string{"eth0", "v1"} {
		l := newLab(t)
		l.ip("link add name v0 index 50 type veth peer name p0 index 51", "addr add 10.0.0.2/24 dev v0")
		if i, err := l.move("v0>" + name); err != nil {
			t.Fatal(i, err)
		}
		l.ip("link add name v0 index 50 type veth peer name v1 index 52")
		err := l.Back()
		want := map[string]string{"eth0": "eth0", "v1": "dev1"}[name]
		if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "put back network device v0: its name is taken, it is called "+want) {
			t.Error(err)
		}
		if out := l.ip("-o addr show " + want); !strings.Contains(out, "10.0.0.2/24") {
			t.Errorf("%s has\n%s", want, out)
		}
	}
}

// TestBackGone: a hook may have removed it.
func TestBackGone(t *testing.T) {
	l := newLab(t)
	l.ip("link add v0 type veth peer name p0")
	if i, err := l.move("v0>eth0"); err != nil {
		t.Fatal(i, err)
	}
	l.inside("link del eth0")
	if err := l.Back(); !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
}

// TestBackForged: who has rights over the container's namespace has put another device
// there; the host does not take it up.
func TestBackForged(t *testing.T) {
	l := newLab(t)
	l.ip("link add name v0 index 50 type veth peer name p0 index 51", "addr add 10.0.0.2/24 dev v0", "link set v0 up")
	if i, err := l.move("v0>eth0"); err != nil {
		t.Fatal(i, err)
	}
	l.inside("link del eth0")
	l.inside("link add name eth0 index 50 type veth peer name spy index 51")
	if err := l.Back(); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "put back network device v0: another device has taken its place in the container") {
		t.Error(err)
	}
	if out := l.ip("-o addr show"); strings.Contains(out, "v0") || strings.Contains(out, "10.0.0.2") {
		t.Errorf("the host has\n%s", out)
	}
}

func TestLabelled(t *testing.T) {
	for _, test := range []struct{ old, name, label, want string }{
		{"eth0", "net1", "eth0", "net1"},
		{"eth0", "net1", "eth0:7", "net1:7"},
		{"eth0", "net1", "eth01", "eth01"},
		{"eth0", "net1", "mine", "mine"},
		{"e", "fifteen-letters", "e:7", "fifteen-letters"},
	} {
		a := address{attrs: parts(text(unix.IFA_LABEL, test.label))}
		if got := labelOf(a.labelled(test.old, test.name)); got != test.want || labelOf(a) != test.label {
			t.Errorf("%v: %s", test, got)
		}
	}
}

func TestKernelError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{unix.EINVAL, "invalid argument"},
		{fmt.Errorf("%w: Attribute failed policy validation.", unix.EINVAL), "Attribute failed policy validation: invalid argument"},
		{os.ErrClosed, os.ErrClosed.Error()},
	} {
		if got := kernelError(test.err); got.Error() != test.want || !errors.Is(got, test.err) && !errors.Is(got, unix.EINVAL) {
			t.Error(got)
		}
	}
	if err := kernelError(nil); err != nil {
		t.Error(err)
	}
}

func parts(p ...nl.NetlinkRequestData) []nl.NetlinkRequestData { return p }

func labelOf(a address) string { return unix.ByteSliceToString(a.attrs[0].(*nl.RtAttr).Data) }
