package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// denied makes sure that neither TCP nor UDP reach a server, and that whoever tries by TCP
// is told so at once.
func (s *space) denied(t *testing.T, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		s.deniedBy(t, net.Dialer{}, "tcp", address)
		s.unanswered(t, net.Dialer{}, "udp", address)
	}
}

func (s *space) deniedBy(t *testing.T, dialer net.Dialer, protocol, address string) {
	t.Helper()
	dialer.Timeout = patience(5 * time.Second)
	_, err := s.exchange(dialer, protocol, address)
	if !slices.ContainsFunc([]error{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.EACCES}, func(e error) bool { return errors.Is(err, e) }) {
		t.Errorf("%s %s: %v", protocol, address, err)
	}
}

// unanswered makes sure that a server is not reached, whatever the client hears of it.
func (s *space) unanswered(t *testing.T, dialer net.Dialer, protocol, address string) {
	t.Helper()
	dialer.Timeout = 300 * time.Millisecond
	if got := s.askBy(dialer, protocol, address); got != "" {
		t.Errorf("%s %s: asked by %q", protocol, address, got)
	}
}

// know has a file in place of /etc/hosts for as long as the test runs.
func know(t *testing.T, hosts string) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "hosts")
	must(t, err)
	_, err = f.WriteString(hosts)
	must(t, errors.Join(err, f.Close()))
	if there, err := os.OpenFile("/etc/hosts", os.O_CREATE, 0o644); err == nil {
		there.Close() // a machine for tests may have none
	}
	must(t, unix.Mount(f.Name(), "/etc/hosts", "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount("/etc/hosts", 0)) })
}

const allowing = "bridge=husk0,address=auto,masquerade,forwarding"

// A container with a list of what it may reach reaches that, and hears at once that it
// does not reach anything else.
func TestNetAllow(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		know(t, "198.51.100.1 world.example\n2001:db8:2::1 world.example\n127.0.0.1 world.example\n")
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		other := b.inhabit("c1", allowing)
		c := b.inhabit("c2", allowing+",allow=world.example:7,allow=world.example:7/udp,allow=world.example:7,allow=198.51.100.0/24:8/tcp,allow=[2001:db8::/32]:8,allow=10.88.0.2:80,allow=192.0.2.1:9/udp")
		for _, address := range []string{"198.51.100.1:7", "[2001:db8:2::1]:7", "198.51.100.1:8", "[2001:db8:2::1]:8", "198.51.100.1:6", "[2001:db8:2::1]:6"} {
			w.peer.serve(address)
		}
		for _, address := range []string{"192.0.2.1:9", "10.88.0.1:9", "[fd68:7573:6b00::1]:9"} {
			w.host.serve(address)
		}
		other.serve(":80")
		c.serve(":80")
		c.sees(t, "198.51.100.1:7", "192.0.2.1")
		c.sees(t, "[2001:db8:2::1]:7", "2001:db8:1::1")
		for _, address := range []string{"198.51.100.1:8", "[2001:db8:2::1]:8", "10.88.0.2:80"} {
			if got := c.ask("tcp", address, patience(3*time.Second)); got == "" {
				t.Errorf("%s is not reached", address)
			}
			c.deniedBy(t, net.Dialer{}, "udp", address)
		}
		if got := c.ask("udp", "192.0.2.1:9", patience(3*time.Second)); got != "10.88.0.3" {
			t.Errorf("the host is asked by %q", got)
		}
		c.denied(t, "198.51.100.1:6", "[2001:db8:2::1]:6", "10.88.0.1:9", "[fd68:7573:6b00::1]:9", "192.0.2.2:9",
			"169.254.169.254:80", "[fd68:7573:6b00::2]:80", "203.0.113.1:7", "[2001:db9::1]:8")
		c.deniedBy(t, net.Dialer{}, "tcp", "192.0.2.1:9")
		// Nobody gets an answer that the container was not asked to give.
		for _, s := range []*space{other, w.host} {
			s.unanswered(t, net.Dialer{}, "tcp", "10.88.0.3:80")
			s.unanswered(t, net.Dialer{}, "udp", "[fd68:7573:6b00::3]:80")
		}
		// The others are as free as before.
		other.sees(t, "198.51.100.1:6", "192.0.2.1")
		other.sees(t, "10.88.0.1:9", "10.88.0.2")
	})
}

// So does one that is root in its network, which no job is: whatever address it takes,
// whatever it says of others'.
func TestNetAllowAttack(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		other := b.inhabit("c1", allowing)
		c := b.inhabit("c2", allowing+",allow=198.51.100.1:7,allow=198.51.100.1:7/udp,allow=[fd68:7573:6b00::1]:7,allow=10.88.0.1:5/udp,allow=[fd68:7573:6b00::1]:5/udp")
		w.peer.serve("198.51.100.1:7")
		w.host.serve(":7")
		w.host.serve(":8")
		other.serve(":80")
		c.sees(t, "198.51.100.1:7", "192.0.2.1")
		if got := c.ask("tcp", "[fd68:7573:6b00::1]:7", patience(3*time.Second)); got != "fd68:7573:6b00::3" {
			t.Errorf("the host is asked by %q", got)
		}
		t.Run("source", func(t *testing.T) {
			c.ip("addr add 10.88.0.77/24 dev eth0", "addr add fd68:7573:6b00::77/64 dev eth0 nodad")
			for _, test := range []struct{ to, own, other string }{
				{"10.88.0.1", "10.88.0.3", "10.88.0.77"}, {"fd68:7573:6b00::1", "fd68:7573:6b00::3", "fd68:7573:6b00::77"},
			} {
				server := &net.UDPAddr{IP: net.ParseIP(test.to), Port: 5}
				if got := w.host.hears(t, server, func() { c.say(t, test.own, server) }); got != test.own {
					t.Errorf("%v has heard of %q", server, got)
				}
				if got := w.host.hears(t, server, func() { c.say(t, test.other, server) }); got != "" {
					t.Errorf("%v has heard of %q", server, got)
				}
			}
			c.ip("addr del 10.88.0.77/24 dev eth0", "addr del fd68:7573:6b00::77/64 dev eth0")
		})
		t.Run("link", func(t *testing.T) {
			var own string
			must(t, w.host.do(func() error {
				i, err := net.InterfaceByName("husk0")
				if err != nil {
					return err
				}
				list, err := i.Addrs()
				for _, a := range list {
					if ip := a.(*net.IPNet).IP; ip.To4() == nil && ip.IsLinkLocalUnicast() {
						own = ip.String()
					}
				}
				return err
			}))
			if got := other.ask("tcp", "["+own+"%"+other.zone(t)+"]:8", patience(3*time.Second)); got == "" {
				t.Error("who may does not reach it either")
			}
			for _, protocol := range []string{"tcp", "udp"} {
				c.unanswered(t, net.Dialer{}, protocol, "["+own+"%"+c.zone(t)+"]:8")
			}
		})
		t.Run("options", func(t *testing.T) {
			// Loose source routing by way of an address that it may reach.
			dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				e := raw.Control(func(fd uintptr) {
					err = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, "\x83\x07\x04\xc6\x33\x64\x01\x01")
				})
				return errors.Join(e, err)
			}}
			c.deniedBy(t, dialer, "tcp4", "198.51.100.1:7")
		})
		t.Run("neighbour", func(t *testing.T) {
			// It claims the addresses of another container.
			mac := c.eth0(t).HardwareAddr
			claimed := func() (list []string) {
				out, err := exec.Command("ip", "neigh", "show", "dev", "husk0").Output()
				must(t, err)
				for line := range strings.Lines(string(out)) {
					if address, _, _ := strings.Cut(line, " "); strings.Contains(line, mac.String()) {
						list = append(list, address)
					}
				}
				slices.Sort(list)
				return list
			}
			for _, address := range []string{"10.88.0.2:80", "[fd68:7573:6b00::2]:80"} {
				if got := w.host.ask("tcp", address, patience(3*time.Second)); got == "" {
					t.Errorf("%s is not reached", address)
				}
			}
			before := claimed()
			c.send(t, 0x0806, slices.Concat([]byte("\x00\x01\x08\x00\x06\x04\x00\x01"), mac, []byte("\x0a\x58\x00\x02\x00\x00\x00\x00\x00\x00\x0a\x58\x00\x01")))
			c.advertise(t, "fd68:7573:6b00::1", "fd68:7573:6b00::2", mac)
			time.Sleep(100 * time.Millisecond) // for what must not happen
			if after := claimed(); !slices.Equal(after, before) {
				t.Errorf("the host has believed it: %v, before %v", after, before)
			}
		})
		t.Run("frames", func(t *testing.T) {
			// What a bridge would carry from one container to another, whatever it is.
			heard := other.listen(t, 0x88b5)
			c.send(t, 0x88b5, make([]byte, 50))
			if n, err := unix.Read(heard, make([]byte, 100)); err != unix.EAGAIN {
				t.Errorf("a frame of %d bytes: %v", n, err)
			}
			// Nor does the bridge take it for one who has another address of Ethernet.
			server := &net.UDPAddr{IP: net.IPv4(10, 88, 0, 1), Port: 5}
			c.ip("neigh replace 10.88.0.1 lladdr 02:00:00:00:00:01 dev eth0", "link set eth0 address "+other.eth0(t).HardwareAddr.String(),
				"neigh replace 10.88.0.1 lladdr 02:00:00:00:00:01 dev eth0")
			c.say(t, "10.88.0.3", server)
			if got := w.host.ask("tcp", "10.88.0.2:80", patience(3*time.Second)); got == "" {
				t.Error("what the other should get goes astray")
			}
		})
		b.must("delete", "-f", "c2")
		third := b.inhabit("c3", allowing)
		third.sees(t, "198.51.100.1:7", "192.0.2.1")
		third.sees(t, "10.88.0.1:8", "10.88.0.3")
	})
}

// listen waits for frames of a kind.
func (s *space) listen(t *testing.T, kind uint16) (fd int) {
	t.Helper()
	must(t, s.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(kind>>8|kind<<8))
		if err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(300 * time.Millisecond))
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	}))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// send sends one to everybody.
func (s *space) send(t *testing.T, kind uint16, b []byte) {
	t.Helper()
	device := s.eth0(t)
	must(t, s.do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Protocol: kind>>8 | kind<<8, Ifindex: device.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		return unix.Sendto(fd, b, 0, to)
	}))
}

// advertise tells a neighbour by IPv6 who has an address, which need not be true.
func (s *space) advertise(t *testing.T, to, target string, mac net.HardwareAddr) {
	t.Helper()
	must(t, s.do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		const override = 0x20
		b := slices.Concat([]byte{136, 0, 0, 0, override, 0, 0, 0}, []byte(net.ParseIP(target)), []byte{2, 1}, mac)
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255),
			unix.Sendto(fd, b, 0, &unix.SockaddrInet6{Addr: [16]byte(net.ParseIP(to))}))
	}))
}

// say sends a datagram from an address.
func (s *space) say(t *testing.T, from string, to *net.UDPAddr) {
	t.Helper()
	must(t, s.do(func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, to)
		if err == nil {
			_, err = c.Write([]byte("!"))
			err = errors.Join(err, c.Close())
		}
		return err
	}))
}

// hears returns of whom a server hears, "" if of nobody.
func (s *space) hears(t *testing.T, at *net.UDPAddr, f func()) (from string) {
	t.Helper()
	must(t, s.do(func() error {
		p, err := net.ListenUDP("udp", at)
		if err != nil {
			return err
		}
		defer p.Close()
		f()
		p.SetDeadline(time.Now().Add(patience(300 * time.Millisecond)))
		if _, a, err := p.ReadFromUDP(make([]byte, 1)); err == nil {
			from = a.IP.String()
		}
		return nil
	}))
	return from
}

// eth0 is the container's device.
func (s *space) eth0(t *testing.T) (i *net.Interface) {
	t.Helper()
	must(t, s.do(func() (err error) {
		i, err = net.InterfaceByName("eth0")
		return err
	}))
	return i
}

// zone is a number because names are remembered, whatever namespace they are of.
func (s *space) zone(t *testing.T) string { return itoa(s.eth0(t).Index) }

// Without a bridge, and on somebody else's, it is the same.
func TestNetAllowOtherwise(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		w.host.ip("link add br0 type bridge", "addr add 10.66.0.1/24 dev br0", "link set br0 up")
		t.Cleanup(func() { w.host.ip("link del br0") })
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		const only = ",masquerade,forwarding,allow=198.51.100.1:7,allow=198.51.100.1:7/udp,allow=[2001:db8:2::1]:7,allow=[2001:db8:2::1]:7/udp"
		point := b.inhabit("c1", "address=10.77.0.2/32,address=fd77::2/128,gateway=10.77.0.1,gateway=fd77::1,host-name=web0"+only)
		foreign := b.inhabit("c2", "bridge=br0,address=auto"+only)
		w.host.serve(":7")
		for _, address := range []string{"198.51.100.1:7", "[2001:db8:2::1]:7", "198.51.100.1:6"} {
			w.peer.serve(address)
		}
		point.sees(t, "198.51.100.1:7", "192.0.2.1")
		point.sees(t, "[2001:db8:2::1]:7", "2001:db8:1::1")
		point.denied(t, "198.51.100.1:6", "10.77.0.1:7", "[fd77::1]:7", "192.0.2.1:7")
		foreign.sees(t, "198.51.100.1:7", "192.0.2.1")
		foreign.denied(t, "198.51.100.1:6", "10.66.0.1:7", "192.0.2.1:7")
	})
}

// Many at once each have their own list.
func TestNetAllowTogether(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		n := 64
		if patience(1) > 1 {
			n = 4
		}
		spaces := make([]*space, n)
		t.Run("create", func(t *testing.T) {
			done := make(chan error)
			for i := range n {
				go func() {
					r := b.husk("create", "--net", fmt.Sprintf("eth0:%s,allow=192.0.2.1:%d", allowing, 7000+i), "c"+itoa(i))
					var err error
					if r.code != 0 {
						err = errors.New(r.stderr)
					}
					done <- err
				}()
			}
			for range n {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
		for i := range n {
			s, _ := b.state("c" + itoa(i))
			spaces[i] = openSpace(t, "/proc/"+itoa(s.Pid)+"/ns/net")
			w.host.serve(":" + itoa(7000+i))
		}
		for i, s := range spaces {
			if got := s.ask("tcp", "192.0.2.1:"+itoa(7000+i), patience(3*time.Second)); got == "" {
				t.Errorf("container %d does not reach its port", i)
			}
			s.deniedBy(t, net.Dialer{}, "tcp", "192.0.2.1:"+itoa(7000+(i+1)%n))
		}
		for i := range n {
			b.must("delete", "-f", "c"+itoa(i))
		}
	})
}
