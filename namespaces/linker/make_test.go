package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

func (l *lab) make(owner string, devices ...string) (int, error) {
	l.t.Helper()
	var list []namespaces.Device
	for _, d := range devices {
		name, words, _ := strings.Cut(d, ":")
		list = append(list, namespaces.Device{Name: name, Make: words})
	}
	return l.Wire(int(l.there.Fd()), owner, list)
}

func TestMakeBridged(t *testing.T) {
	l := newLab(t)
	l.inside("link set lo up")
	i, err := l.make("c1 7", "eth0:bridge=husk0,address=10.88.0.2/24,address=fd88::2/64,gateway=10.88.0.1,gateway=fd88::1,route=10.9.0.0/16@10.88.0.7,route=10.10.0.0/16,mtu=1400,mac=02:00:00:00:00:09")
	if err != nil {
		t.Fatal(i, err)
	}
	got := l.inside("-o link show eth0", "-o addr show eth0 scope global", "route", "-6 route")
	for _, want := range []string{
		"mtu 1400", "02:00:00:00:00:09", ",UP", "inet 10.88.0.2/24 brd 10.88.0.255 scope global eth0", "inet6 fd88::2/64 scope global nodad",
		"default via 10.88.0.1 dev eth0 proto static", "10.9.0.0/16 via 10.88.0.7", "10.10.0.0/16 via 10.88.0.1", "default via fd88::1 dev eth0 proto static",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	got = l.ip("-o link", "-o addr")
	for _, want := range []string{"husk0:", "group 1752527723", "hveth0@", "master husk0", "alias husk c1 7", "inet 10.88.0.1/24", "inet6 fd88::1/64"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	l.pings()
	must(t, l.Back())
	l.bare()
}

// pings makes sure that the ends reach one another.
func (l *lab) pings() {
	l.t.Helper()
	for _, ip := range []string{"10.88.0.2", "fd88::2"} {
		l.reach(ip)
	}
}

// reach connects to a listener in the container.
func (l *lab) reach(ip string) {
	l.t.Helper()
	host := open(l.t)
	defer host.Close()
	must(l.t, unix.Setns(int(l.there.Fd()), unix.CLONE_NEWNET))
	server, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	must(l.t, unix.Setns(int(host.Fd()), unix.CLONE_NEWNET))
	must(l.t, err)
	defer server.Close()
	address, _ := netip.ParseAddrPort(server.Addr().String())
	kind, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(address.Port()), Addr: address.Addr().As16()})
	if address.Addr().Is4() {
		kind, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	}
	fd, err := unix.Socket(kind, unix.SOCK_STREAM, 0)
	must(l.t, err)
	defer unix.Close(fd)
	must(l.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5}))
	if err := unix.Connect(fd, to); err != nil {
		l.t.Errorf("%s: %v", ip, err)
	}
}

// bare makes sure that nothing is left.
func (l *lab) bare() {
	l.t.Helper()
	for _, out := range []string{l.ip("-br link"), l.inside("-br link")} {
		if fields := strings.Fields(out); fields[0] != "lo" || strings.Count(out, "\n") != 1 {
			l.t.Errorf("left behind:\n%s", out)
		}
	}
	if out := l.ip("route", "-6 route"); out != "" {
		l.t.Errorf("left behind:\n%s", out)
	}
}

func TestMakePoint(t *testing.T) {
	l := newLab(t)
	i, err := l.make("c1 7", "eth0:address=10.88.0.2/32,address=fd88::2/128,gateway=10.88.0.1,gateway=fd88::1,host-name=mine")
	if err != nil {
		t.Fatal(i, err)
	}
	got := l.ip("-o addr show mine scope global", "route", "-6 route")
	for _, want := range []string{"inet 10.88.0.1/32", "inet6 fd88::1/128", "10.88.0.2 dev mine", "fd88::2 dev mine"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	l.pings()
	must(t, l.Remove("c1 7", nil))
	l.bare()
}

// TestMakeShared: a bridge stays as long as somebody is on it, and what is somebody
// else's stays as it is.
func TestMakeShared(t *testing.T) {
	l := newLab(t)
	one, two := "bridge=husk0,address=10.88.0.2/24,gateway=10.88.0.1", "bridge=husk0,address=10.88.0.3/24"
	if i, err := l.make("c1 7", "eth0:"+one); err != nil {
		t.Fatal(i, err)
	}
	if i, err := l.make("c2 8", "eth1:"+two); err != nil {
		t.Fatal(i, err)
	}
	remove := func(owner string) {
		t.Helper()
		must(t, l.Remove(owner, []string{"husk0", "", "br9"}))
	}
	remove("c1 7")
	remove("c1 7")
	if out := l.ip("-o link"); strings.Count(out, "veth") != 1 || !strings.Contains(out, "husk0") {
		t.Errorf("%s", out)
	}
	remove("c2 8")
	l.bare()

	// An administrator's bridge of that name.
	l.ip("link add husk0 type bridge", "addr add 10.7.0.1/24 dev husk0")
	before := l.ip("-o addr show husk0")
	if i, err := l.make("c1 7", "eth0:"+one); err != nil {
		t.Fatal(i, err)
	}
	remove("c1 7")
	if after := l.ip("-o addr show husk0"); after != before {
		t.Errorf("now\n%swas\n%s", after, before)
	}
}

func TestMakeRefused(t *testing.T) {
	for _, test := range []struct {
		setup, devices, want string
		errno                unix.Errno
	}{
		{"", "eth0:bridge=br0", "0 bridge: there is no br0, and only one whose name begins with husk is made: no such device", unix.ENODEV},
		{"link add br0 type veth peer name p0", "eth0:bridge=br0", "0 bridge: br0 is no bridge: invalid argument", unix.EINVAL},
		{"", "lo:bridge=husk0", "0 the container has a network device lo already: file exists", unix.EEXIST},
		{"link add v0 type veth peer name p0", "eth0:bridge=husk0,host-name=v0", "0 host-name: the host has a network device v0 already: file exists", unix.EEXIST},
		{"link add br9 type bridge;addr add 10.88.1.1/16 dev br9", "eth0:bridge=husk0,address=10.88.0.2/24,gateway=10.88.0.1", "0 bridge husk0: the network of 10.88.0.1/24 overlaps with 10.88.1.1/16 of br9: address already in use", unix.EADDRINUSE},
		{"", "eth0:bridge=husk0,address=10.88.0.2/24,gateway=10.88.0.1 eth1:bridge=husk0,address=10.89.0.2/24,gateway=10.89.0.1", "1 bridge husk0: its address is 10.88.0.1/24, not the gateway's 10.89.0.1/24: address already in use", unix.EADDRINUSE},
		{"", "eth0:bridge=husk0 eth0:bridge=husk0", "1 make network device eth0: ", unix.EEXIST},
		{"", "eth0:nonsense", "0 \"nonsense\" is none of the words ", unix.EINVAL},
	} {
		l := newLab(t)
		for _, line := range strings.Split(test.setup, ";") {
			if line != "" {
				l.ip(line)
			}
		}
		before, inside := l.ip("-o link"), l.inside("-o link")
		i, err := l.make("c1 7", strings.Fields(test.devices)...)
		if got := fmt.Sprint(i, " ", err); !strings.HasPrefix(got, test.want) || !errors.Is(err, test.errno) {
			t.Errorf("got %s, want %s", got, test.want)
		}
		if l.ip("-o link") != before || l.inside("-o link") != inside {
			t.Errorf("%s: host:\n%sthere:\n%s", test.devices, l.ip("-o link"), l.inside("-o link"))
		}
	}
}

// TestMakeLocked: whoever has the lock of the host's namespace, by a descriptor of his
// own, is waited for, but not for ever; another namespace's is nobody's business.
func TestMakeLocked(t *testing.T) {
	l := newLab(t)
	other := open(t)
	defer other.Close()
	lock := func(how int) { t.Helper(); must(t, unix.Flock(int(other.Fd()), how)) }
	must(t, unix.Flock(int(l.there.Fd()), unix.LOCK_EX))
	defer func(d time.Duration) { patience = d }(patience)

	const words = "eth0:bridge=husk0,address=auto"
	patience = 20 * time.Millisecond
	lock(unix.LOCK_EX)
	if i, err := l.make("c1 7", words); i != 0 || !errors.Is(err, unix.EWOULDBLOCK) || !strings.HasPrefix(err.Error(), "lock the host's network namespace: another program holds it") {
		t.Error(i, err)
	}
	lock(unix.LOCK_UN)
	l.bare()

	patience = 5 * time.Second
	lock(unix.LOCK_EX)
	time.AfterFunc(50*time.Millisecond, func() { _ = unix.Flock(int(other.Fd()), unix.LOCK_UN) })
	if i, err := l.make("c1 7", words); err != nil {
		t.Fatal(i, err)
	}
	patience = 20 * time.Millisecond
	lock(unix.LOCK_EX) // nobody keeps it longer than he works
	if err := new(linker).Remove("c1 7", []string{"husk0"}); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Error(err)
	}
	lock(unix.LOCK_UN)
	must(t, l.Remove("c1 7", []string{"husk0"}))
	l.bare()
}
