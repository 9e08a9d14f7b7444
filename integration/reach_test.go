package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A space is a network namespace of a test.
type space struct {
	t    *testing.T
	file *os.File
}

// do runs a function in the namespace.
func (s *space) do(f func() error) error {
	return away(func() error { return unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET) }, f)
}

// away runs a function on a thread that goes to another network namespace for it. It comes
// back: one that is the process's first cannot end, and /proc/self would show that one's.
func away(leave, f func() error) error {
	done := make(chan error)
	go func() {
		goruntime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			if err = leave(); err == nil {
				err = f()
			}
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				goruntime.UnlockOSThread()
			}
			home.Close()
		}
		done <- err
	}()
	return <-done
}

// ip runs ip(8) with each line's words.
func (s *space) ip(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		var out []byte
		if err := s.do(func() (err error) {
			out, err = exec.Command("ip", strings.Fields(line)...).CombinedOutput()
			return err
		}); err != nil {
			s.t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

func openSpace(t *testing.T, path string) *space {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return &space{t, f}
}

// newSpace makes a namespace, which lives as long as the test.
func newSpace(t *testing.T) (s *space) {
	t.Helper()
	must(t, away(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		s = openSpace(t, "/proc/thread-self/ns/net")
		return nil
	}))
	s.ip("link set lo up")
	return s
}

// serve tells whoever asks, by TCP and UDP, from which address the question came.
func (s *space) serve(address string) {
	s.t.Helper()
	must(s.t, s.do(func() error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { l.Close(); p.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				io.WriteString(c, host)
				c.Close()
			}
		}()
		go func() {
			b := make([]byte, 1)
			for {
				_, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(from.String())
				p.WriteTo([]byte(host), from)
			}
		}()
		return nil
	}))
}

// ask returns what serve answers, or "" if nobody does in time.
func (s *space) ask(protocol, address string, wait time.Duration) (answer string) {
	return s.askBy(net.Dialer{Timeout: wait}, protocol, address)
}

func (s *space) askBy(dialer net.Dialer, protocol, address string) string {
	answer, err := s.exchange(dialer, protocol, address)
	if err != nil && answer == "" {
		s.t.Log(protocol, address, err)
	}
	return answer
}

func (s *space) exchange(dialer net.Dialer, protocol, address string) (answer string, err error) {
	err = s.do(func() error {
		c, err := dialer.Dial(protocol, address)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(dialer.Timeout))
		if protocol == "udp" {
			c.Write([]byte("?"))
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		answer = string(b[:n])
		return err
	})
	return answer, err
}

// sees makes sure that a server is reached by TCP and UDP, and from which address it
// seems to be, one of several: "" is not at all.
func (s *space) sees(t *testing.T, address string, want ...string) {
	t.Helper()
	wait := patience(3 * time.Second)
	if want[0] == "" {
		wait = 200 * time.Millisecond
	}
	for _, protocol := range []string{"tcp", "udp"} {
		if got := s.ask(protocol, address, wait); !slices.Contains(want, got) {
			t.Errorf("%s %s: asked by %q, want %q", protocol, address, got, want)
		}
	}
}

// refused makes sure that a connection is refused at once.
func (s *space) refused(address string) {
	s.t.Helper()
	must(s.t, s.do(func() error {
		if _, err := net.Dial("tcp", address); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("%s: %v", address, err)
		}
		return nil
	}))
}

// A town is the host, which is the box, and a peer behind a router that knows nothing of
// containers.
type town struct {
	host, router, peer *space
}

func newTown(t *testing.T) town {
	t.Helper()
	w := town{openSpace(t, "/proc/self/ns/net"), newSpace(t), newSpace(t)}
	w.host.ip("link set lo up", "link add up0 type veth peer name r0", "addr add 192.0.2.1/24 dev up0", "addr add 2001:db8:1::1/64 dev up0 nodad", "link set up0 up")
	w.host.ip(fmt.Sprintf("link set r0 netns /proc/%d/fd/%d", os.Getpid(), w.router.file.Fd()))
	w.router.ip("link add r1 type veth peer name p0")
	w.router.ip(fmt.Sprintf("link set p0 netns /proc/%d/fd/%d", os.Getpid(), w.peer.file.Fd()))
	w.router.ip("addr add 192.0.2.254/24 dev r0", "addr add 2001:db8:1::fe/64 dev r0 nodad", "link set r0 up",
		"addr add 198.51.100.254/24 dev r1", "addr add 2001:db8:2::fe/64 dev r1 nodad", "link set r1 up")
	w.peer.ip("addr add 198.51.100.1/24 dev p0", "addr add 2001:db8:2::1/64 dev p0 nodad", "link set p0 up",
		"route add default via 198.51.100.254", "-6 route add default via 2001:db8:2::fe")
	w.host.ip("route add default via 192.0.2.254", "-6 route add default via 2001:db8:1::fe")
	must(t, w.router.do(func() error {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0)
	}))
	t.Cleanup(func() { w.host.ip("link del up0") })
	return w
}

// inhabit creates a container and returns its network namespace.
func (b *bundle) inhabit(id, words string) *space {
	b.t.Helper()
	b.must("create", "--net", "eth0:"+words, id)
	b.t.Cleanup(func() { b.must("delete", "-f", id) })
	s, _ := b.state(id)
	return openSpace(b.t, filepath.Join("/proc", itoa(s.Pid), "ns/net"))
}

// Containers reach the world by the host's address, and the world reaches what they
// publish; everything else does not reach them.
func TestNetReach(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		c1 := b.inhabit("c1", "bridge=husk0,address=auto,masquerade,forwarding,publish=8080:80/tcp,publish=8080:80/udp")
		c2 := b.inhabit("c2", "bridge=husk0,address=auto,masquerade")
		c3 := b.inhabit("c3", "bridge=husk1,address=auto,masquerade")
		c4 := b.inhabit("c4", "bridge=husk2,address=auto")
		w.peer.serve("198.51.100.1:7")
		w.peer.serve("[2001:db8:2::1]:7")
		for _, c := range []*space{c1, c4} {
			c.serve(":80")
		}
		t.Run("out", func(t *testing.T) {
			for _, c := range []*space{c1, c2, c3} {
				c.sees(t, "198.51.100.1:7", "192.0.2.1")
				c.sees(t, "[2001:db8:2::1]:7", "2001:db8:1::1")
			}
			c4.sees(t, "198.51.100.1:7", "")
		})
		t.Run("in", func(t *testing.T) {
			w.peer.sees(t, "192.0.2.1:8080", "198.51.100.1")
			w.peer.sees(t, "[2001:db8:1::1]:8080", "2001:db8:2::1")
		})
		t.Run("host", func(t *testing.T) {
			for _, address := range []string{"192.0.2.1:8080", "127.0.0.1:8080", "10.88.1.1:8080"} {
				w.host.sees(t, address, "10.88.0.1")
			}
			w.host.sees(t, "[2001:db8:1::1]:8080", "fd68:7573:6b00::1")
			w.host.sees(t, "127.0.1.1:8080", "10.88.0.1")
			// What cannot be answered is not sent: who tries it goes on with 127.0.0.1.
			w.host.refused("[::1]:8080")
		})
		// A neighbour's address may be hidden where bridges show the packet filter nothing.
		for _, filtered := range []string{"0", "1"} {
			t.Run("hairpin "+filtered, func(t *testing.T) {
				for _, name := range []string{"iptables", "ip6tables"} {
					if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte(filtered), 0); err != nil {
						t.Log(err) // the module is not loaded: they do not
					}
				}
				for _, c := range []*space{c1, c2} {
					c.sees(t, "192.0.2.1:8080", "10.88.0.1", "10.88.0.3")
					c.sees(t, "[2001:db8:1::1]:8080", "fd68:7573:6b00::1", "fd68:7573:6b00::3")
				}
				c2.sees(t, "10.88.0.2:80", "10.88.0.3")
				c2.sees(t, "[fd68:7573:6b00::2]:80", "fd68:7573:6b00::3")
				c3.sees(t, "192.0.2.1:8080", "10.88.1.2")
				c4.sees(t, "192.0.2.1:8080", "10.88.2.2")
				c4.sees(t, "[2001:db8:1::1]:8080", "fd68:7573:6b00:2::2")
			})
		}
		t.Run("isolated", func(t *testing.T) {
			w.router.ip("route add 10.88.0.0/16 via 192.0.2.1", "-6 route add fd68:7573:6b00::/48 via 2001:db8:1::1")
			w.peer.sees(t, "10.88.0.2:80", "")
			for _, c := range []*space{c3, c4} {
				c.sees(t, "10.88.0.2:80", "")
				c.sees(t, "[fd68:7573:6b00::2]:80", "")
			}
			c1.sees(t, "10.88.2.2:80", "")
		})
	})
}

// So do those without a bridge, and those on somebody else's, which stays as it is: the
// host's 127.0.0.1 has no way to these. A port may be published at one address only.
func TestNetReachOtherwise(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		w.host.ip("link add br0 type bridge", "addr add 10.66.0.1/24 dev br0", "link set br0 up")
		t.Cleanup(func() { w.host.ip("link del br0") })
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		point := b.inhabit("c1", "address=10.77.0.2/32,address=fd77::2/128,gateway=10.77.0.1,gateway=fd77::1,masquerade,forwarding,publish=81:80/tcp,publish=81:80/udp,"+
			"publish=127.0.0.1:83:80/tcp,publish=127.0.0.1:83:80/udp,publish=192.0.2.1:84:80/tcp,publish=192.0.2.1:84:80/udp,publish=[2001:db8:1::1]:84:80/tcp,publish=[2001:db8:1::1]:84:80/udp")
		foreign := b.inhabit("c2", "bridge=br0,address=auto,masquerade,publish=82:80/tcp,publish=82:80/udp")
		neighbour := b.inhabit("c3", "bridge=br0,address=auto")
		w.peer.serve("198.51.100.1:7")
		w.peer.serve("[2001:db8:2::1]:7")
		for _, c := range []*space{point, foreign} {
			c.serve(":80")
			c.sees(t, "198.51.100.1:7", "192.0.2.1")
		}
		point.sees(t, "[2001:db8:2::1]:7", "2001:db8:1::1")
		w.peer.sees(t, "192.0.2.1:81", "198.51.100.1")
		w.peer.sees(t, "[2001:db8:1::1]:81", "2001:db8:2::1")
		w.peer.sees(t, "192.0.2.1:82", "198.51.100.1")
		w.host.sees(t, "127.0.0.1:81", "10.77.0.1")
		w.host.sees(t, "192.0.2.1:82", "10.66.0.1")
		w.host.refused("127.0.0.1:82")
		w.host.sees(t, "127.0.0.1:83", "10.77.0.1")
		w.host.refused("192.0.2.1:83")
		w.peer.refused("192.0.2.1:83")
		w.peer.sees(t, "192.0.2.1:84", "198.51.100.1")
		w.peer.sees(t, "[2001:db8:1::1]:84", "2001:db8:2::1")
		w.host.refused("127.0.0.1:84")
		neighbour.sees(t, "192.0.2.1:84", "10.66.0.3")
		point.sees(t, "192.0.2.1:81", "10.77.0.1")
		foreign.sees(t, "192.0.2.1:82", "10.66.0.1", "10.66.0.2")
		foreign.sees(t, "192.0.2.1:81", "10.66.0.2")
		neighbour.sees(t, "192.0.2.1:82", "10.66.0.1", "10.66.0.3")
		neighbour.sees(t, "10.66.0.2:80", "10.66.0.3")
	})
}

// Who asks a published port by UDP from the same port of its own for as long as it lives
// reaches the container that publishes it now, and who has the address of another
// container gets none of its answers.
func TestNetSuccession(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		asked := func(want4, want6 string) {
			t.Helper()
			for address, want := range map[string]string{"192.0.2.1:8080": want4, "[2001:db8:1::1]:8080": want6} {
				dialer := net.Dialer{Timeout: patience(3 * time.Second), LocalAddr: &net.UDPAddr{Port: 5000}}
				if want == "" {
					dialer.Timeout = 200 * time.Millisecond
				}
				if got := w.peer.askBy(dialer, "udp", address); got != want {
					t.Errorf("%s: asked by %q, want %q", address, got, want)
				}
			}
		}
		const words = "masquerade,forwarding,publish=8080:80/udp"
		b.inhabit("c0", "bridge=husk1,address=auto,forwarding,publish=81:80/tcp") // the kernel begins to remember
		for _, address := range []string{"192.0.2.1:9", "[2001:db8:1::1]:9"} {
			w.peer.refused(address) // the way there is known
		}
		asked("", "")
		c1 := b.inhabit("c1", "bridge=husk0,address=auto,"+words)
		c1.serve(":80")
		asked("198.51.100.1", "2001:db8:2::1")
		// One of its own.
		var peer net.PacketConn
		must(t, w.peer.do(func() (err error) {
			peer, err = net.ListenPacket("udp4", ":7")
			return err
		}))
		defer peer.Close()
		peer.SetReadDeadline(time.Now().Add(patience(3 * time.Second)))
		own := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.UDPAddr{Port: 5001}}
		c1.askBy(own, "udp", "198.51.100.1:7")
		_, from, err := peer.ReadFrom(make([]byte, 1))
		must(t, err)

		b.must("delete", "-f", "c1")
		c2 := b.inhabit("c2", "bridge=husk0,address=auto,masquerade")
		c3 := b.inhabit("c3", "bridge=husk0,address=auto,"+words)
		c3.serve(":80")
		asked("198.51.100.1", "2001:db8:2::1")
		must(t, c2.do(func() error {
			p, err := net.ListenPacket("udp", ":5001")
			if err != nil {
				return err
			}
			defer p.Close()
			if _, err := peer.WriteTo([]byte("!"), from); err != nil {
				return err
			}
			p.SetDeadline(time.Now().Add(300 * time.Millisecond))
			if _, from, err := p.ReadFrom(make([]byte, 1)); err == nil {
				return fmt.Errorf("an answer to the container before from %v", from)
			}
			return nil
		}))
		b.must("delete", "-f", "c3")
		asked("", "")
	})
}

// mistake has a container take 127.0.0.1 for an address behind its gateway.
func (s *space) mistake(own string) {
	s.t.Helper()
	s.ip("addr del 127.0.0.1/8 dev lo", "route add 127.0.0.0/8 via 10.88.0.1 src "+own)
	must(s.t, s.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0)
	}))
}

// Nor does one that stays when the last container that publishes anything, and with it the
// table, goes.
func TestNetAttackLater(t *testing.T) {
	box(t, func(t *testing.T) {
		host := openSpace(t, "/proc/self/ns/net")
		host.ip("link set lo up")
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		b.inhabit("c1", "bridge=husk0,address=auto,forwarding,publish=8080:80/tcp")
		c := b.inhabit("c2", "bridge=husk0,address=auto")
		host.serve("127.0.0.1:7")
		c.mistake("10.88.0.3")
		c.sees(t, "127.0.0.1:7", "")
		b.must("delete", "-f", "c1")
		c.sees(t, "127.0.0.1:7", "")
	})
}

// A container that wants to reach what listens on the host's 127.0.0.1, or be taken for
// it, does not, though the host reaches published ports from there; nor do the abstract
// sockets of the host.
func TestNetAttack(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		c := b.inhabit("c1", "bridge=husk0,address=auto,masquerade,forwarding,publish=8080:80/tcp,publish=8080:80/udp")
		w.host.serve("127.0.0.1:7")
		w.host.serve("10.88.0.1:8")
		c.sees(t, "10.88.0.1:8", "10.88.0.2")
		c.mistake("10.88.0.2")
		c.sees(t, "127.0.0.1:7", "")
		// From there: an answer would come by UDP only, and the host's log tells.
		heard := make(chan string, 1)
		must(t, w.host.do(func() error {
			p, err := net.ListenPacket("udp4", "10.88.0.1:9")
			if err != nil {
				return err
			}
			t.Cleanup(func() { p.Close() })
			go func() {
				if _, from, err := p.ReadFrom(make([]byte, 1)); err == nil {
					heard <- from.String()
				}
			}()
			return nil
		}))
		c.ip("addr add 127.0.0.1/32 dev eth0")
		must(t, c.do(func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}}
			conn, err := d.Dial("udp4", "10.88.0.1:9")
			if err == nil {
				_, err = conn.Write([]byte("x"))
				conn.Close()
			}
			return err
		}))
		select {
		case from := <-heard:
			t.Errorf("the host believes %s", from)
		case <-time.After(300 * time.Millisecond):
		}

		l, err := net.Listen("unix", "@host")
		must(t, err)
		defer l.Close()
		if err := c.do(func() error { _, err := net.Dial("unix", "@host"); return err }); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("an abstract socket of the host: %v", err)
		}
	})
}

// A container that says it is a router does not become the host's.
func TestNetAdvertisement(t *testing.T) {
	box(t, func(t *testing.T) {
		host := openSpace(t, "/proc/self/ns/net")
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		for id, words := range map[string]string{"c1": "bridge=husk0,address=auto", "c2": "address=10.77.0.2/32,address=fd77::2/128"} {
			c := b.inhabit(id, words)
			c.ip("addr add fe80::1/64 dev eth0 nodad")
			must(t, c.do(func() error {
				conn, err := net.ListenPacket("ip6:ipv6-icmp", "fe80::1%eth0")
				if err != nil {
					return err
				}
				defer conn.Close()
				raw, _ := conn.(*net.IPConn).SyscallConn()
				raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255) })
				if err != nil {
					return err
				}
				// Type, code, checksum, hops, flags, lifetime, two timers.
				_, err = conn.WriteTo([]byte{134, 0, 0, 0, 64, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: "eth0"})
				return err
			}))
		}
		time.Sleep(200 * time.Millisecond)
		must(t, host.do(func() error {
			out, err := exec.Command("ip", "-6", "route", "show", "default").CombinedOutput()
			if len(out) > 0 {
				t.Errorf("the host's default route: %s", out)
			}
			return err
		}))
	})
}

// What is larger than the MTU is refused where it is sent, and TCP knows better.
func TestNetMTU(t *testing.T) {
	box(t, func(t *testing.T) {
		w := newTown(t)
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		c := b.inhabit("c1", "bridge=husk0,address=auto,masquerade,forwarding,mtu=1400,publish=8080:80/tcp,publish=8080:80/udp")
		for _, test := range []struct {
			address string
			headers int
		}{{"198.51.100.1:9", 28}, {"[2001:db8:2::1]:9", 48}} {
			must(t, c.do(func() error {
				conn, err := net.Dial("udp", test.address)
				if err != nil {
					return err
				}
				defer conn.Close()
				raw, _ := conn.(*net.UDPConn).SyscallConn()
				raw.Control(func(fd uintptr) {
					unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
					unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
				})
				if _, err := conn.Write(make([]byte, 1400-test.headers)); err != nil {
					return fmt.Errorf("%s: %w", test.address, err)
				}
				if _, err := conn.Write(make([]byte, 1401-test.headers)); !errors.Is(err, unix.EMSGSIZE) {
					return fmt.Errorf("%s: one byte too many: %v", test.address, err)
				}
				return nil
			}))
		}
		// From outside a stream of many segments, whose sender has a larger MTU.
		const size = 1 << 20
		must(t, c.do(func() error {
			l, err := net.Listen("tcp", ":80")
			if err == nil {
				t.Cleanup(func() { l.Close() })
				go func() {
					conn, _ := l.Accept()
					n, _ := io.Copy(io.Discard, conn)
					fmt.Fprint(conn, n)
					conn.Close()
				}()
			}
			return err
		}))
		must(t, w.peer.do(func() error {
			conn, err := net.DialTimeout("tcp", "192.0.2.1:8080", patience(5*time.Second))
			if err != nil {
				return err
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience(10 * time.Second)))
			if _, err := conn.Write(make([]byte, size)); err != nil {
				return err
			}
			conn.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(conn)
			if string(got) != itoa(size) {
				return fmt.Errorf("%s of %d bytes arrived: %v", got, size, err)
			}
			return nil
		}))
	})
}

// throughput is how many bytes a server in the namespace gets from another one in a while.
func (s *space) throughput(from *space, address string) (n int64) {
	s.t.Helper()
	var l net.Listener
	must(s.t, s.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}))
	defer l.Close()
	counted := make(chan int64)
	go func() {
		var n int64
		if conn, err := l.Accept(); err == nil {
			n, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
		counted <- n
	}()
	must(s.t, from.do(func() error {
		conn, err := net.DialTimeout("tcp", address, patience(5*time.Second))
		if err != nil {
			return err
		}
		b := make([]byte, 128<<10)
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end) && err == nil; {
			_, err = conn.Write(b)
		}
		return errors.Join(err, conn.Close())
	}))
	return <-counted
}

// A pair of devices made by husk carries what one made by hand does: measured in turns,
// since what else the machine does changes from one moment to the next: half as much can
// be chance on a busy one, and without offloading it is less.
func TestNetThroughput(t *testing.T) {
	if patience(1) > 1 {
		t.Skip("an emulated machine says nothing about it")
	}
	quietBox(t, func(t *testing.T) {
		host, other := openSpace(t, "/proc/self/ns/net"), newSpace(t)
		host.ip("link add v0 type veth peer name p0", "addr add 10.90.0.1/24 dev v0", "link set v0 up",
			fmt.Sprintf("link set p0 netns /proc/%d/fd/%d", os.Getpid(), other.file.Fd()))
		other.ip("addr add 10.90.0.2/24 dev p0", "link set p0 up")
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		c := b.inhabit("c1", "address=10.89.0.2/24,gateway=10.89.0.1")
		var ratios []float64
		for range 25 {
			byHand := other.throughput(host, "10.90.0.2:80")
			ratios = append(ratios, float64(c.throughput(host, "10.89.0.2:80"))/float64(max(byHand, 1)))
		}
		slices.Sort(ratios)
		if median := ratios[len(ratios)/2]; median < 0.5 {
			t.Errorf("a median of %.2f of what a pair made by hand carries: %.2f", median, ratios)
		} else {
			t.Logf("%.2f (%.2f to %.2f) of what a pair made by hand carries", median, ratios[0], ratios[len(ratios)-1])
		}
		host.ip("link del v0")
	})
}
