package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// pair is an interface to be made: both its ends.
type pair struct {
	*namespaces.Interface
	owner string
	there int    // index of the container's end
	host  int    // index of the host's end
	mac   []byte // of the container's end

	allowed []namespaces.Target // Allow with the addresses of names
	names   []string            // and what these are
}

// What is made is in a group of its own from its birth, which tells that it may be
// removed. The alias of a host's end says for whom it was made; a bridge is anybody's.
const (
	group     = 'h'<<24 | 'u'<<16 | 's'<<8 | 'k'
	dying     = group + 1 // what is removed together
	aliasPair = "husk "
)

// hostName is the template of the names of the hosts' ends.
const hostName = "hveth%d"

func (l *linker) plan(d namespaces.Device, owner string) (*pair, error) {
	i, err := namespaces.ParseInterface(d.Name, d.Make)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	p := &pair{Interface: i, owner: owner}
	if i.Host != "" {
		if _, err := l.host.link(0, i.Host); err == nil {
			return nil, fmt.Errorf("host-name: the host has a network device %s already: %w", i.Host, unix.EEXIST)
		}
	}
	if err := p.feasible(); err != nil {
		return nil, err
	}
	if err := p.resolve(); err != nil {
		return nil, err
	}
	if i.Bridge == "" {
		return p, nil
	}
	switch bridge, err := l.host.whole(0, i.Bridge); {
	case errors.Is(err, unix.ENODEV) && strings.HasPrefix(i.Bridge, namespaces.BridgePrefix):
	case errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("bridge: there is no %s, and only one whose name begins with %s is made: %w", i.Bridge, namespaces.BridgePrefix, err)
	case err != nil:
		return nil, fmt.Errorf("bridge: find %s: %w", i.Bridge, err)
	case bridge.Type() != "bridge":
		return nil, fmt.Errorf("bridge: %s is no bridge: %w", i.Bridge, unix.EINVAL)
	}
	return p, nil
}

func (l *linker) makeIf(p *pair) error {
	if p == nil {
		return nil
	}
	unlock, err := l.host.exclude()
	if err != nil {
		return err
	}
	defer unlock()
	return l.make(p)
}

func (l *linker) make(p *pair) error {
	if err := l.vacate(p); err != nil {
		return err
	}
	l.made = append(l.made, p)
	bridge := 0
	if p.Bridge != "" {
		var err error
		if bridge, err = l.bridge(p); err != nil {
			return fmt.Errorf("bridge %s: %w", p.Bridge, err)
		}
	}
	if err := l.unclaimed(p, bridge); err != nil {
		return err
	}
	if err := l.pair(p, bridge); err != nil {
		return fmt.Errorf("make network device %s: %w", p.Name, err)
	}
	if err := l.guard(p); err != nil {
		return err
	}
	if err := l.inside(p); err != nil {
		return err
	}
	if p.Bridge == "" {
		if err := l.point(p); err != nil {
			return err
		}
	}
	return l.reachable(p, cmp.Or(bridge, p.host))
}

// bridge finds the bridge, or makes it, and gives one of husk's the gateways' addresses.
func (l *linker) bridge(p *pair) (int, error) {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	b, err := l.host.link(0, p.Bridge)
	if errors.Is(err, unix.ENODEV) {
		_, err = l.host.ask(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, byIndex(0), text(unix.IFLA_IFNAME, p.Bridge), number(unix.IFLA_GROUP, group), info)
		if err != nil {
			return 0, err
		}
		if b, err = l.host.link(0, p.Bridge); err == nil {
			err = deaf(b.Name)
		}
		if err == nil {
			err = l.host.up(b.Index)
		}
	}
	if err != nil {
		return 0, err
	}
	if p.MTU == 0 {
		p.MTU = b.MTU
	}
	if b.Group == group { // somebody else's is not altered
		err = l.gateways(b.Index, p)
	}
	if err == nil && p.Auto {
		err = l.lease(b.Index, p)
	}
	return b.Index, err
}

func (l *linker) gateways(bridge int, p *pair) error {
	if p.Auto {
		return l.networks(bridge)
	}
	for _, g := range p.Gateways {
		g.Bits = p.Within(g).Bits
		if err := l.gateway(bridge, g); err != nil {
			return err
		}
	}
	return nil
}

// gateway gives a bridge an address, unless it has that. It must be the only one of its
// family there, and its network nobody else's.
func (l *linker) gateway(bridge int, g namespaces.Address) error {
	all, err := l.host.addresses(0)
	if err != nil {
		return err
	}
	for _, a := range all {
		have := a.plain()
		if have.Is4() != g.Is4() || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		switch mine := int(a.Index) == bridge; {
		case mine && have.String() == g.String():
			return nil
		case mine:
			return fmt.Errorf("its address is %s, not the gateway's %s: %w", have, g, unix.EADDRINUSE)
		case have.Overlaps(g):
			name := fmt.Sprint("device ", a.Index)
			if other, err := l.host.link(int(a.Index), ""); err == nil {
				name = other.Name
			}
			return fmt.Errorf("the network of %s overlaps with %s of %s: %w", g, have, name, unix.EADDRINUSE)
		}
	}
	return l.host.give(bridge, g)
}

// unclaimed makes sure that nobody else has one of the interface's addresses where it is
// going to be: on the bridge or, without one, at ends like it. Those that were chosen are
// nobody's.
func (l *linker) unclaimed(p *pair, bridge int) error {
	if p.Auto || len(p.Addresses) == 0 {
		return nil
	}
	all, err := l.host.addresses(0)
	if err != nil {
		return err
	}
	links, err := l.host.links()
	if err != nil {
		return err
	}
	for _, a := range p.Addresses {
		mine := func(b address) bool { return bridge != 0 && int(b.Index) == bridge && slices.Equal(b.plain().IP, a.IP) }
		if slices.ContainsFunc(all, mine) {
			return fmt.Errorf("address: %s is that of %s: %w", a.Alone(), p.Bridge, unix.EADDRINUSE)
		}
		for _, link := range links {
			words := strings.Fields(link.Alias)
			if ownerOf(link) != "" && link.MasterIndex == bridge && slices.Contains(words[3:], a.Alone()) {
				return fmt.Errorf("address: %s is that of container %s: %w", a.Alone(), words[1], unix.EADDRINUSE)
			}
		}
	}
	return nil
}

// pair makes both ends where they belong, the host's as a port of the bridge, if any.
func (l *linker) pair(p *pair, bridge int) error {
	peer := nl.NewRtAttr(nl.VETH_INFO_PEER, nil)
	peer.AddChild(byIndex(0))
	peer.AddChild(text(unix.IFLA_IFNAME, p.Name))
	peer.AddChild(l.there.reference())
	if p.MAC == nil && p.Auto {
		p.MAC = derivedMAC(p.Addresses[0])
	}
	if p.MAC != nil {
		peer.AddRtAttr(unix.IFLA_ADDRESS, p.MAC)
	}
	name := p.Host
	if name == "" {
		name = hostName
	}
	parts := []nl.NetlinkRequestData{byIndex(0), text(unix.IFLA_IFNAME, name), number(unix.IFLA_GROUP, group)}
	if p.MTU != 0 {
		peer.AddChild(number(unix.IFLA_MTU, uint32(p.MTU)))
		parts = append(parts, number(unix.IFLA_MTU, uint32(p.MTU)))
	}
	if bridge != 0 {
		parts = append(parts, number(unix.IFLA_MASTER, uint32(bridge)))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddChild(peer)
	_, err := l.host.ask(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, append(parts, info)...)
	if err != nil {
		return err
	}
	end, err := l.there.link(0, p.Name)
	if err != nil {
		return err
	}
	p.there, p.host, p.mac = end.Index, end.ParentIndex, end.HardwareAddr
	if bridge == 0 {
		b, err := l.host.link(p.host, "")
		if err == nil {
			err = deaf(b.Name)
		}
		if err != nil {
			return err
		}
	}
	parts = []nl.NetlinkRequestData{withFlags(p.host, unix.IFF_UP, unix.IFF_UP), text(unix.IFLA_IFALIAS, p.alias())}
	if bridge != 0 && len(p.Publish) > 0 {
		parts = append(parts, hairpin())
	}
	_, err = l.host.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, parts...)
	return err
}

// hairpin lets a port of a bridge have back what came from it: a container that asks for
// a port that it publishes itself, on a bridge that shows the packet filter what it
// forwards.
func hairpin() *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(nl.IFLA_BRPORT_MODE, []byte{1})
	return info
}

// alias marks the host's end: with the owner, and with the addresses, which nobody else
// gets as long as it exists.
func (p *pair) alias() string {
	alias := aliasPair + p.owner
	for _, a := range p.Addresses {
		if next := alias + " " + a.Alone(); len(next) < ifAliasSize {
			alias = next
		}
	}
	return alias
}

// ifAliasSize is the kernel's IFALIASZ.
const ifAliasSize = 256

// inside sets up the container's end.
func (l *linker) inside(p *pair) error {
	for _, a := range p.Addresses {
		if err := l.there.give(p.there, a); err != nil {
			return fmt.Errorf("give %s the address %s: %w", p.Name, a, err)
		}
	}
	if err := l.there.up(p.there); err != nil {
		return fmt.Errorf("bring up %s: %w", p.Name, err)
	}
	for _, g := range p.Gateways {
		to := namespaces.Address{IP: make([]byte, len(g.IP))}
		if err := l.there.route(p.there, to, g); err != nil {
			return fmt.Errorf("make %s the gateway: %w", g.Alone(), err)
		}
	}
	for _, r := range p.Routes {
		via := r.Via
		if g := p.Gateway(r.To.Is4()); via.IP == nil && g != nil {
			via = *g
		}
		if err := l.there.route(p.there, r.To, via); err != nil {
			return fmt.Errorf("route to %s: %w", r.To, err)
		}
	}
	return nil
}

// point sets up the host's end where it is no port of a bridge: it has the gateway's
// addresses, for itself alone, and leads to the container's.
func (l *linker) point(p *pair) error {
	for _, g := range p.Gateways {
		if err := l.host.give(p.host, g); err != nil {
			return fmt.Errorf("give the host's end the address %s: %w", g.Alone(), err)
		}
	}
	for _, a := range p.Addresses {
		if err := l.host.route(p.host, namespaces.Address{IP: a.IP, Bits: 8 * len(a.IP)}, namespaces.Address{}); err != nil {
			return fmt.Errorf("route from the host to %s: %w", a, err)
		}
	}
	return nil
}

// unmake removes what was made, also halfway.
func (l *linker) unmake() error {
	if len(l.made) == 0 {
		return nil
	}
	var bridges []string
	for _, p := range l.made {
		bridges = append(bridges, p.Bridge)
	}
	owner := l.made[0].owner
	l.made = nil
	return l.remove(owner, bridges)
}

// Remove removes the hosts' ends of what was made for an owner, which takes the other
// ends along, and bridges that are nobody's any more.
func (l *linker) Remove(owner string, bridges []string) (err error) {
	l.release()
	if l.host, err = here(); err != nil {
		return err
	}
	defer l.release()
	return l.remove(owner, bridges)
}

func (l *linker) remove(owner string, bridges []string) error {
	unlock, err := l.host.exclude()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := l.host.links()
	if err != nil {
		return fmt.Errorf("list the host's network devices: %w", err)
	}
	var gone []int
	left := all[:0]
	for _, a := range all {
		// One without alias is that of a helper that was killed before it could give it one:
		// as we have the lock, nobody is making any.
		mine := a.Group == group && a.ParentIndex != 0 && (a.Alias == "" || strings.HasPrefix(a.Alias+" ", aliasPair+owner+" "))
		if mine || a.Group == dying {
			gone = append(gone, a.Index)
		} else {
			left = append(left, a)
		}
	}
	for _, a := range left {
		port := func(b *netlink.LinkAttrs) bool { return b.MasterIndex == a.Index }
		if a.Group == group && slices.Contains(bridges, a.Name) && !slices.ContainsFunc(left, port) {
			gone = append(gone, a.Index)
		}
	}
	err = l.host.deleteLinks(gone)
	return errors.Join(err, l.sweep(left, false))
}
