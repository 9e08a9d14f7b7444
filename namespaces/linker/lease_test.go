package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/huskrun/husk/namespaces"
)

// lease makes an interface with chosen addresses for an owner and returns them.
func (l *lab) lease(owner, words string) string {
	l.t.Helper()
	if i, err := l.make(owner, "e"+strings.ReplaceAll(owner, " ", "")+":"+words); err != nil {
		return fmt.Sprint(i, " ", err)
	}
	var got []string
	for _, a := range l.made[0].Addresses {
		got = append(got, a.String())
	}
	for _, g := range l.made[0].Gateways {
		got = append(got, "via "+g.Alone())
	}
	l.made = nil // as if it were kept
	return strings.Join(got, " ")
}

func (l *lab) remove(owner string) {
	l.t.Helper()
	must(l.t, l.Remove(owner, []string{"husk0", "husk1"}))
}

func TestLeases(t *testing.T) {
	l := newLab(t)
	const auto, noRoute = "bridge=husk0,address=auto", " via 10.88.0.1 via fd68:7573:6b00::1"
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	want(l.lease("a 1", auto), "10.88.0.2/24 fd68:7573:6b00::2/64"+noRoute)
	l.reach("10.88.0.2")
	if out := l.inside("-o link show ea1"); !strings.Contains(out, "0a:68:0a:58:00:02") {
		t.Errorf("MAC address of %s", out)
	}
	l.inside("link set ea1 down") // its default route would be in the way
	// One that is given is taken as well, wherever it is.
	want(l.lease("b 2", "bridge=husk0,address=10.88.0.3/24"), "10.88.0.3/24")
	l.ip("link add v0 type veth peer name p0", "addr add 10.88.0.4/32 dev v0")
	want(l.lease("c 3", auto), "10.88.0.5/24 fd68:7573:6b00::3/64"+noRoute)
	l.inside("link set ec3 down")
	// What is free is given again.
	l.remove("a 1")
	want(l.lease("d 4", auto+",gateway=10.88.0.2"), "10.88.0.6/24 fd68:7573:6b00::2/64 via 10.88.0.2 via fd68:7573:6b00::1")
	l.inside("link set ed4 down")
	want(l.lease("e 5", auto), "10.88.0.2/24 fd68:7573:6b00::4/64"+noRoute)
	l.inside("link set ee5 down")
	// The next bridge has other networks.
	want(l.lease("f 6", "bridge=husk1,address=auto"), "10.88.1.2/24 fd68:7573:6b00:1::2/64 via 10.88.1.1 via fd68:7573:6b00:1::1")
	for _, owner := range []string{"b 2", "c 3", "d 4", "e 5", "f 6"} {
		l.remove(owner)
	}
	l.ip("link del v0")
	l.bare()
}

// TestLeasesElsewhere: on an administrator's bridge, and where there is no room.
func TestLeasesElsewhere(t *testing.T) {
	l := newLab(t)
	l.ip("link add br0 type bridge", "link set br0 up mtu 1400", "addr add 10.7.0.1/30 dev br0", "link add br1 type bridge")
	before := l.ip("-o addr show br0")
	if got := l.lease("a 1", "bridge=br0,address=auto"); got != "10.7.0.2/30 via 10.7.0.1" {
		t.Error(got)
	}
	if out := l.inside("-o link show ea1"); !strings.Contains(out, "mtu 1400") {
		t.Errorf("not the bridge's MTU: %s", out)
	}
	for owner, test := range map[string][2]string{
		"b 2": {"bridge=br0,address=auto", "0 bridge br0: all addresses of its network 10.7.0.0/30 are taken: cannot assign requested address"},
		"c 3": {"bridge=br1,address=auto", "0 bridge br1: it has no address, and so no network to take one from: cannot assign requested address"},
		"d 4": {"bridge=husk0,address=auto,gateway=192.0.2.1", "0 bridge husk0: the gateway 192.0.2.1 is in none of its networks: invalid argument"},
	} {
		if got := l.lease(owner, test[0]); got != test[1] {
			t.Error(got)
		}
	}
	l.ip("link add br2 type bridge", "addr add 10.88.9.9/16 dev br2", "link set br2 up")
	if got := l.lease("e 5", "bridge=husk0,address=auto"); !strings.HasPrefix(got, "0 bridge husk0: every network from 10.88.0.0/24 on is somebody's: ") {
		t.Error(got)
	}
	l.remove("a 1")
	if after := l.ip("-o addr show br0"); after != before {
		t.Errorf("now\n%swas\n%s", after, before)
	}
	for _, name := range []string{"br0", "br1", "br2"} {
		l.ip("link del " + name)
	}
	l.bare()
}

func TestLowest(t *testing.T) {
	network := func(last byte, bits int) namespaces.Address {
		return namespaces.Address{IP: []byte{10, 0, 0, last}, Bits: bits}
	}
	for _, test := range []struct {
		network namespaces.Address
		taken   []string
		want    string
	}{
		{network(0, 24), nil, "10.0.0.1"},
		{network(0, 24), []string{"10.0.0.1", "10.0.0.2", "10.0.0.4"}, "10.0.0.3"},
		{network(4, 30), []string{"10.0.0.5"}, "10.0.0.6"},
		{network(4, 30), []string{"10.0.0.5", "10.0.0.6"}, ""},
		{network(4, 31), nil, ""},
		{network(4, 32), nil, ""},
		{namespaces.Address{IP: []byte{255, 255, 255, 252}, Bits: 30}, []string{"255.255.255.253", "255.255.255.254"}, ""},
		{namespaces.Address{IP: slices.Repeat([]byte{0xff}, 16), Bits: 128}, nil, ""},
	} {
		taken := map[string]bool{}
		for _, s := range test.taken {
			taken[s] = true
		}
		got := lowest(test.network, taken)
		if got.IP == nil != (test.want == "") || got.IP != nil && got.Alone() != test.want {
			t.Errorf("%v %v: got %v, want %s", test.network, test.taken, got, test.want)
		}
	}
}
