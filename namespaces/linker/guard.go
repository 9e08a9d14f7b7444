package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An interface that may reach a few ports only is guarded where its packets arrive on the
// host: at the host's end of its pair, before a bridge, the host itself or anything else
// sees them. What is not let through there is refused, whatever it is. No connection is
// remembered for that, so nothing that a container says can make an answer of what is none.
//
// For the kernel those are tables of their own: one of the family netdev sees every frame,
// and lets through what is of IP, which the other one sees, that can refuse it. (Few kernels
// have that for netdev.) Each has a chain for each such end, called like it. One whose end
// is gone is removed as elements are of the table that all containers share.

// patienceDNS is how long the names of one interface are asked for.
const patienceDNS = 10 * time.Second

// resolve finds the addresses of the names that an interface may reach. Those that mean
// the host itself to the host mean the container in the container.
func (p *pair) resolve() error {
	ctx, cancel := context.WithTimeout(context.Background(), patienceDNS)
	defer cancel()
	known := map[string][]namespaces.Address{}
	for _, t := range p.Allow {
		if t.Name == "" {
			p.allowed = append(p.allowed, t)
			continue
		}
		if known[t.Name] == nil {
			list, err := addressesOf(ctx, t.Name)
			if err != nil {
				return fmt.Errorf("allow: %s: %w", t, err)
			}
			for _, a := range list {
				p.names = append(p.names, a.Alone()+" "+t.Name)
			}
			known[t.Name] = list
		}
		for _, a := range known[t.Name] {
			t.To = a
			p.allowed = append(p.allowed, t)
		}
	}
	return nil
}

func addressesOf(ctx context.Context, name string) (list []namespaces.Address, err error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		err = errors.New(dns.Err) // the rest has been said
	}
	if err != nil {
		return nil, fmt.Errorf("look up the name: %w: %w", err, unix.ENXIO)
	}
	for _, ip := range all {
		ip = ip.Unmap()
		if a := (namespaces.Address{IP: ip.AsSlice(), Bits: ip.BitLen()}); ip.Zone() == "" && a.Foreign() {
			list = append(list, a)
		}
	}
	if list == nil {
		return nil, fmt.Errorf("its addresses, as %s, are of the host's own network only: %w", all[0].Unmap(), unix.EINVAL)
	}
	return list, nil
}

// Names lists the addresses of names, as [namespaces.Linker] has it.
func (l *linker) Names() (list []string) {
	for _, p := range l.made {
		for _, line := range p.names {
			if !slices.Contains(list, line) {
				list = append(list, line)
			}
		}
	}
	return list
}

// guards are the tables: of frames, and of packets.
var guards = [2]*nftables.Table{
	{Name: "husk_allow", Family: nftables.TableFamilyNetdev},
	{Name: "husk_allow", Family: nftables.TableFamilyINet},
}

// guard lets through what the interface may send.
func (l *linker) guard(p *pair) error {
	if len(p.allowed) == 0 {
		return nil
	}
	end, err := l.host.link(p.host, "")
	if err != nil {
		return err
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	drop := nftables.ChainPolicyDrop
	// The kernel counts ingress as the one behind those of NF_INET_NUMHOOKS.
	hooks := [2]*nftables.ChainHook{nftables.ChainHookIngress, nftables.ChainHookRef(unix.NF_INET_NUMHOOKS)}
	priorities := [2]*nftables.ChainPriority{nftables.ChainPriorityRaw, nftables.ChainPriorityFilter}
	for k, rules := range [2][][][]expr.Any{p.frames(), p.packets()} {
		conn.AddTable(guards[k])
		chain := conn.AddChain(&nftables.Chain{
			Table: guards[k], Name: end.Name, Type: nftables.ChainTypeFilter, Device: end.Name,
			Hooknum: hooks[k], Priority: priorities[k], Policy: &drop,
		})
		for _, words := range rules {
			conn.AddRule(&nftables.Rule{Table: guards[k], Chain: chain, Exprs: slices.Concat(words...)})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("packet filter: allow: %w", err)
	}
	return nil
}

// frames lets through what is of IP, and that the container has its addresses: who says
// so, and not of others.
func (p *pair) frames() [][][]expr.Any {
	rules := [][][]expr.Any{
		{part(expr.CmpOpNeq, expr.PayloadBaseLLHeader, 6, p.mac), verdict(expr.VerdictDrop)},
		{ // To the bridge is to us, so that who is refused is told.
			meta(expr.MetaKeyPKTTYPE, []byte{unix.PACKET_OTHERHOST}),
			{&expr.Immediate{Register: 1, Data: []byte{unix.PACKET_HOST}}, &expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: 1, SourceRegister: true}},
		},
		{protocol(unix.ETH_P_IP), verdict(expr.VerdictAccept)},
		{protocol(unix.ETH_P_IPV6), verdict(expr.VerdictAccept)},
	}
	for _, a := range p.Addresses {
		if a.Is4() {
			rules = append(rules, [][]expr.Any{protocol(unix.ETH_P_ARP), packet(expr.CmpOpEq, 8, slices.Concat(p.mac, a.IP)), verdict(expr.VerdictAccept)})
		}
	}
	return rules
}

// packets refuses whatever is not listed, is from an address that is not the container's
// own, or behind options and extension headers, which may lead elsewhere.
func (p *pair) packets() (rules [][][]expr.Any) {
	for _, a := range p.Addresses {
		own := [][]expr.Any{protocol(unix.ETH_P_IP), packet(expr.CmpOpEq, 0, []byte{0x45}), packet(expr.CmpOpEq, 12, a.IP)}
		next := uint32(9) // where the protocol is in a packet
		if !a.Is4() {
			own = [][]expr.Any{protocol(unix.ETH_P_IPV6), packet(expr.CmpOpEq, 8, a.IP)}
			next = 6
			rules = append(rules, neighbours(a, own)...)
		}
		family := families[familyOf(a)]
		for _, t := range p.allowed {
			if t.To.Is4() == a.Is4() {
				rules = append(rules, slices.Concat(own, [][]expr.Any{
					within(family.source+family.length, t.To), packet(expr.CmpOpEq, next, []byte{t.Protocol}),
					part(expr.CmpOpEq, expr.PayloadBaseTransportHeader, 2, []byte{byte(t.Port >> 8), byte(t.Port)}),
					verdict(expr.VerdictAccept),
				}))
			}
		}
	}
	return append(
		rules,
		[][]expr.Any{meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}), {&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}},
		[][]expr.Any{{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}},
	)
}

// neighbours is what ARP is to IPv6: asking on the link for anybody, and saying who has the
// own address.
func neighbours(a namespaces.Address, own [][]expr.Any) (rules [][][]expr.Any) {
	const solicitation, advertisement = 135, 136
	everybody, links := make([]byte, 16), make([]byte, 16)
	copy(everybody, []byte{0xff, 0x02})
	copy(links, []byte{0xfe, 0x80})
	for _, to := range []namespaces.Address{{IP: everybody, Bits: 16}, {IP: links, Bits: 10}, a.Network()} {
		start := slices.Concat(own, [][]expr.Any{packet(expr.CmpOpEq, 6, []byte{unix.IPPROTO_ICMPV6, 255}), within(24, to)})
		rules = append(
			rules,
			append(slices.Clip(start), packet(expr.CmpOpEq, 40, []byte{solicitation, 0}), verdict(expr.VerdictAccept)),
			append(slices.Clip(start), packet(expr.CmpOpEq, 40, []byte{advertisement, 0}), packet(expr.CmpOpEq, 48, a.IP), verdict(expr.VerdictAccept)),
		)
	}
	return rules
}

// protocol asks for what an Ethernet frame has in it.
func protocol(number uint16) []expr.Any {
	return meta(expr.MetaKeyPROTOCOL, []byte{byte(number >> 8), byte(number)})
}

// within asks for an address of a network in a packet.
func within(offset uint32, a namespaces.Address) []expr.Any {
	n := uint32(len(a.IP))
	mask := namespaces.Address{IP: make([]byte, n), Bits: a.Bits}.Last()
	for i := range mask {
		mask[i] = ^mask[i]
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.IP},
	}
}

// unguard removes the chains of ends that are gone, and with the last one the tables.
func (l *linker) unguard(look func() ([]*netlink.LinkAttrs, error)) error {
	for _, table := range guards {
		if err := l.unguardTable(table, look); err != nil {
			return err
		}
	}
	return nil
}

func (l *linker) unguardTable(table *nftables.Table, look func() ([]*netlink.LinkAttrs, error)) error {
	if there, _ := l.host.filtered(table); !there {
		return nil // also if the kernel has no packet filter
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	chains, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	links, err := look()
	if err != nil {
		return err
	}
	used := false
	for _, c := range chains {
		if c.Table.Name != table.Name {
			continue
		}
		if slices.ContainsFunc(links, func(a *netlink.LinkAttrs) bool { return a.Name == c.Name && a.Group == group }) {
			used = true
		} else {
			conn.DelChain(c)
		}
	}
	if !used {
		conn.DelTable(table)
	}
	return conn.Flush()
}
