package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// Addresses that nobody gave are leases: the lowest that is free in each network of the
// bridge. There is no list of them that could be wrong after a crash. What is taken is
// written into the aliases of the hosts' ends, and so is free when they are gone.

// candidates are the networks that a bridge gets which husk has made, if it has none:
// 10.88.N.0/24 and fd68:7573:6b00:N::/64, with the first N whose networks overlap with
// no other.
func candidates(n byte) []namespaces.Address {
	return []namespaces.Address{
		{IP: []byte{10, 88, n, 1}, Bits: 24},
		{IP: []byte{0xfd, 'h', 'u', 's', 'k', 0, 0, n, 0, 0, 0, 0, 0, 0, 0, 1}, Bits: 64},
	}
}

// networks gives a bridge of husk's its networks.
func (l *linker) networks(bridge int) error {
	all, err := l.host.addresses(0)
	if err != nil {
		return err
	}
	var others []namespaces.Address
	for _, a := range all {
		if a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		if int(a.Index) == bridge {
			return nil
		}
		others = append(others, a.plain())
	}
	reached, err := l.host.destinations()
	if err != nil {
		return err
	}
	others = append(others, reached...)
	for n := range 256 {
		if mine := candidates(byte(n)); free(mine, others) {
			return l.giveAll(bridge, mine)
		}
	}
	return fmt.Errorf("every network from %s on is somebody's: %w", candidates(0)[0].Network(), unix.EADDRNOTAVAIL)
}

func free(mine, others []namespaces.Address) bool {
	for _, m := range mine {
		for _, o := range others {
			if m.Overlaps(o) {
				return false
			}
		}
	}
	return true
}

// giveAll: a kernel without IPv6 has networks of IPv4 only.
func (l *linker) giveAll(bridge int, list []namespaces.Address) error {
	for _, a := range list {
		if err := l.host.give(bridge, a); err != nil && (a.Is4() || !noIPv6(err)) {
			return err
		}
	}
	return nil
}

// lease chooses one address of the first network of each family that the bridge is in,
// whose own address becomes the gateway unless another one is given, or an interface
// before has one.
func (l *linker) lease(bridge int, p *pair) error {
	all, err := l.host.addresses(0)
	if err != nil {
		return err
	}
	taken, err := l.taken(all)
	if err != nil {
		return err
	}
	for _, g := range p.Gateways {
		taken[g.Alone()] = true
	}
	for _, a := range all {
		own := a.plain()
		if int(a.Index) != bridge || a.Scope != unix.RT_SCOPE_UNIVERSE || p.has(own.Is4()) {
			continue
		}
		address := lowest(own.Network(), taken)
		if address.IP == nil {
			return fmt.Errorf("all addresses of its network %s are taken: %w", own.Network(), unix.EADDRNOTAVAIL)
		}
		p.Addresses = append(p.Addresses, address)
		if !l.leadsOut(own.Is4()) {
			p.Gateways = append(p.Gateways, own)
		}
	}
	if len(p.Addresses) == 0 {
		return fmt.Errorf("it has no address, and so no network to take one from: %w", unix.EADDRNOTAVAIL)
	}
	for _, g := range p.Gateways {
		if p.Within(g) == nil {
			return fmt.Errorf("the gateway %s is in none of its networks: %w", g.Alone(), unix.EINVAL)
		}
	}
	return nil
}

// Leased lists the addresses that were chosen, as [namespaces.Linker] has it.
func (l *linker) Leased() (list []string) {
	for _, p := range l.made {
		for _, a := range p.Addresses {
			if p.Auto {
				list = append(list, a.Alone())
			}
		}
	}
	return list
}

// leadsOut says whether what is made so far, or about to be, has a default route.
func (l *linker) leadsOut(is4 bool) bool {
	return slices.ContainsFunc(l.made, func(p *pair) bool { return p.Gateway(is4) != nil })
}

func (p *pair) has(is4 bool) bool {
	for _, a := range p.Addresses {
		if a.Is4() == is4 {
			return true
		}
	}
	return false
}

// taken are all addresses of the host, and those in the aliases of its links.
func (l *linker) taken(all []address) (map[string]bool, error) {
	taken := map[string]bool{}
	for _, a := range all {
		taken[a.plain().Alone()] = true
	}
	links, err := l.host.links()
	for _, a := range links {
		if strings.HasPrefix(a.Alias, aliasPair) {
			for _, word := range strings.Fields(a.Alias) {
				taken[word] = true
			}
		}
	}
	return taken, err
}

// lowest is the first address of a network that is free, without IP if there is none:
// neither the network's own nor, with IPv4, the last, which is for broadcasts.
func lowest(network namespaces.Address, taken map[string]bool) namespaces.Address {
	last := ""
	if network.Is4() {
		last = namespaces.Address{IP: network.Last()}.Alone()
	}
	for a := network.Next(); a.IP != nil; a = a.Next() {
		if !taken[a.Alone()] && a.Alone() != last {
			return a
		}
	}
	return namespaces.Address{}
}

// derivedMAC makes the Ethernet address from the other one: whoever remembers the pair
// of a container that is gone remembers the right one of the next.
func derivedMAC(a namespaces.Address) []byte {
	return append([]byte{0x0a, 'h'}, a.IP[len(a.IP)-4:]...)
}
