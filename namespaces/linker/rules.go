package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What containers want of the host's packet filter is in one table of husk's own, for
// both families. Its chains are the same for all; sets and maps have an element for each
// address that is masqueraded and each port that is published. The comment of an element
// is its owner. One whose owner has no host's end any more is nobody's: whoever makes or
// removes something next, and so has the lock, removes it, and with the last one the
// table. So there is no list of them that could be wrong after a crash.

// filter is the table.
type filter struct {
	conn  *nftables.Conn
	table *nftables.Table
	there bool // with its sets and chains
	// The devices of the host behind which containers are, each of them twice: a packet
	// comes from, goes to, or stays behind one if two names of devices are an element.
	devices *nftables.Set
	// Of IPv4 and of IPv6: addresses, addresses twice, ports of the host, and ports of one
	// address of it.
	masquerade, published, ports, bound [2]*nftables.Set
	// The ports that are reached at 127.0.0.0/8, too.
	loopback *nftables.Set
}

var shared = &nftables.Table{Name: "husk", Family: nftables.TableFamilyINet}

// filtered says whether there is a table, and fails if there can be none. It is asked
// for every container, and so without a connection for more.
func (s *space) filtered(table *nftables.Table) (bool, error) {
	_, err := s.request(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, 0,
		&nl.Nfgenmsg{NfgenFamily: byte(table.Family)}, text(unix.NFTA_TABLE_NAME, table.Name))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

func openFilter(there bool) (*filter, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	f := &filter{conn: conn, table: shared, there: there}
	pair := nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	ports := func(name string, family int, key ...nftables.SetDatatype) *nftables.Set {
		into := nftables.MustConcatSetType(families[family].address, nftables.TypeInetService)
		port := nftables.MustConcatSetType(append(key, nftables.TypeInetProto, nftables.TypeInetService)...)
		return &nftables.Set{Table: f.table, Name: name, KeyType: port, Concatenation: true, IsMap: true, DataType: into}
	}
	f.loopback = ports("loopback4", 0)
	f.devices = &nftables.Set{Table: f.table, Name: "devices", KeyType: pair, Concatenation: true}
	for k, family := range families {
		twice := nftables.MustConcatSetType(family.address, family.address)
		f.masquerade[k] = &nftables.Set{Table: f.table, Name: "masquerade" + family.suffix, KeyType: family.address}
		f.published[k] = &nftables.Set{Table: f.table, Name: "published" + family.suffix, KeyType: twice, Concatenation: true}
		f.ports[k] = ports("ports"+family.suffix, k)
		f.bound[k] = ports("bound"+family.suffix, k, family.address)
	}
	return f, nil
}

func (f *filter) close() {
	if f != nil {
		_ = f.conn.CloseLasting()
	}
}

// families are those of addresses, as the packet filter sees them.
var families = [2]struct {
	suffix         string
	number         byte
	address        nftables.SetDatatype
	source, length uint32 // where the source is in a packet
	loopback       []byte // with which addresses begin to which answers do not come from everywhere
}{
	{"4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 4, []byte{127}},
	// None comes back to ::1 from another device than lo.
	{"6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 16, append(make([]byte, 15), 1)},
}

func familyOf(a namespaces.Address) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (f *filter) sets() []*nftables.Set {
	return append([]*nftables.Set{f.devices, f.loopback}, slices.Concat(f.masquerade[:], f.published[:], f.ports[:], f.bound[:])...)
}

// sweep removes what is nobody's: links are all that the host has. It returns whose
// addresses were in the table.
func (f *filter) sweep(links []*netlink.LinkAttrs) (left []namespaces.Address, err error) {
	owners, devices := map[string]bool{}, map[string]bool{}
	for _, a := range links {
		if owner := ownerOf(a); owner != "" {
			owners[owner] = true
			devices[string(deviceKey(outer(a, links).Name))] = true
		}
	}
	used := false
	var unguarded, guarded []nftables.SetElement
	for _, s := range f.sets() {
		all, err := f.conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("list set %s: %w", s.Name, err)
		}
		gone := slices.DeleteFunc(slices.Clone(all), func(e nftables.SetElement) bool {
			if s == f.devices {
				return devices[string(e.Key)]
			}
			return owners[e.Comment]
		})
		if s == f.devices {
			unguarded, guarded = gone, all
		}
		used = used || s != f.devices && len(gone) < len(all)
		if len(gone) == 0 {
			continue
		}
		left = append(left, f.addresses(s, gone)...)
		if err := f.conn.SetDeleteElements(s, gone); err != nil {
			return nil, err
		}
	}
	if !used {
		f.conn.DelTable(f.table)
		f.there = false
		unguarded = guarded
	}
	if err := f.shut(unguarded, links); err != nil {
		return nil, err
	}
	return left, f.conn.Flush()
}

// addresses are those that elements of a set are about: each that is masqueraded or
// published is in one, or in two.
func (f *filter) addresses(s *nftables.Set, elements []nftables.SetElement) (list []namespaces.Address) {
	for k, family := range families {
		if s != f.masquerade[k] && s != f.published[k] {
			continue
		}
		for _, e := range elements {
			list = append(list, namespaces.Address{IP: e.Key[:family.length]})
		}
	}
	return list
}

// outer is the device of the host through which packets of an end come and go.
func outer(end *netlink.LinkAttrs, links []*netlink.LinkAttrs) *netlink.LinkAttrs {
	for _, a := range links {
		if a.Index == end.MasterIndex {
			return a
		}
	}
	return end
}

func deviceKey(name string) []byte {
	key := make([]byte, 2*unix.IFNAMSIZ)
	copy(key, name)
	copy(key[unix.IFNAMSIZ:], name)
	return key
}

func portKey(p namespaces.Port) []byte {
	return append(slices.Clone(p.At.IP), p.Protocol, 0, 0, 0, byte(p.Host>>8), byte(p.Host), 0, 0)
}

// keyPort is the other way round.
func keyPort(key []byte) (p namespaces.Port) {
	if n := len(key) - 8; n > 0 {
		p.At.IP, key = key[:n], key[n:]
	}
	p.Protocol, p.Host = key[0], binary.BigEndian.Uint16(key[4:])
	return p
}

// publisher returns who publishes one of the ports already.
func (f *filter) publisher(ports []namespaces.Port) (owner string, port namespaces.Port, err error) {
	if !f.there {
		return "", port, nil
	}
	for _, s := range slices.Concat(f.ports[:], f.bound[:]) {
		all, err := f.conn.GetSetElements(s)
		if err != nil {
			return "", port, fmt.Errorf("list map %s: %w", s.Name, err)
		}
		for _, e := range all {
			other := keyPort(e.Key)
			if k := slices.IndexFunc(ports, other.Clashes); k >= 0 {
				return e.Comment, ports[k], nil
			}
		}
	}
	return "", port, nil
}

// add has an interface of an owner, behind a device of the host, masqueraded and published.
func (f *filter) add(p *pair, device *netlink.LinkAttrs) error {
	if !f.there {
		if err := f.make(); err != nil {
			return err
		}
		f.there = true
	}
	elements := map[*nftables.Set][]nftables.SetElement{f.devices: {{Key: deviceKey(device.Name)}}}
	put := func(s *nftables.Set, key, value []byte) {
		elements[s] = append(elements[s], nftables.SetElement{Key: key, Val: value, Comment: p.owner})
	}
	for _, a := range p.Addresses {
		k := familyOf(a)
		if p.Masquerade {
			put(f.masquerade[k], a.IP, nil)
		}
		if elements[f.published[k]] != nil || len(p.Publish) == 0 {
			continue // ports lead to the first address of each family
		}
		put(f.published[k], slices.Concat(a.IP, a.IP), nil)
		for _, port := range p.Publish {
			into := append(slices.Clone(a.IP), byte(port.Into>>8), byte(port.Into), 0, 0)
			switch {
			case port.At.IP == nil:
				put(f.ports[k], portKey(port), into)
			case port.At.Is4() == a.Is4():
				put(f.bound[k], portKey(port), into)
			}
			if port.At.IP == nil && a.Is4() && device.Group == group {
				put(f.loopback, portKey(port), into)
			}
		}
	}
	for _, s := range f.sets() {
		if len(elements[s]) > 0 {
			if err := f.conn.SetAddElements(s, elements[s]); err != nil {
				return err
			}
		}
	}
	return f.conn.Flush()
}

// make begins with the table and its sets and chains.
func (f *filter) make() error {
	f.conn.AddTable(f.table)
	for _, s := range f.sets() {
		if err := f.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	for _, c := range f.chains() {
		chain := f.conn.AddChain(&nftables.Chain{Table: f.table, Name: c.name, Type: c.kind, Hooknum: c.hook, Priority: c.priority})
		for _, words := range c.rules {
			f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: slices.Concat(words...)})
		}
	}
	return nil
}

type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    [][][]expr.Any
}

// chains are what the table does.
func (f *filter) chains() []chain {
	const in, out = expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME
	between := func(a, b expr.MetaKey, not bool) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: a, Register: 1}, &expr.Meta{Key: b, Register: 2},
			&expr.Lookup{SourceRegister: 1, SetName: f.devices.Name, SetID: f.devices.ID, Invert: not},
		}
	}
	from, to, elsewhere := between(in, in, false), between(out, out, false), between(out, out, true)
	// Through the host, and neither an answer nor to a published port. That bridges show
	// the packet filter what they forward must make no difference.
	uninvited := [][]expr.Any{
		between(in, out, true), meta(expr.MetaKeyOIFGROUP, native(group)),
		flags(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, false),
		flags(expr.CtKeySTATUS, statusDNAT, false), verdict(expr.VerdictDrop),
	}
	redirected := flags(expr.CtKeySTATUS, statusDNAT, true)
	var guard, arriving, local, leaving [][][]expr.Any
	// The host's 127.0.0.1 reaches published ports (see loopback), and that is all: nothing
	// that comes from a container is of or for such addresses.
	for _, offset := range []uint32{12, 16} {
		guard = append(guard, [][]expr.Any{from, meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}), packet(expr.CmpOpEq, offset, []byte{127}), verdict(expr.VerdictDrop)})
	}
	// Answers come back to the host, whoever asked: itself, by addresses to which there is
	// no way from a container, or a neighbour, whom they would reach directly.
	leaving = [][][]expr.Any{
		{to, redirected, addressType(false), {&expr.Masq{}}},
		{between(in, out, false), redirected, {&expr.Masq{}}},
	}
	for k, family := range families {
		is := meta(expr.MetaKeyNFPROTO, []byte{family.number})
		own, anywhere := addressType(true), redirect(k, f.ports[k], 0)
		bound := [][]expr.Any{is, own, redirect(k, f.bound[k], family.length)}
		loopback := func(op expr.CmpOp) []expr.Any { return packet(op, family.source+family.length, family.loopback) }
		arriving = append(arriving, bound, [][]expr.Any{is, own, anywhere})
		local = append(local, bound, [][]expr.Any{is, loopback(expr.CmpOpNeq), own, anywhere})
		if k == 0 {
			local = append(local, [][]expr.Any{is, loopback(expr.CmpOpEq), own, redirect(k, f.loopback, 0)})
		}
		source := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: family.source, Len: family.length}
		target := &expr.Payload{DestRegister: first + family.length/4, Base: expr.PayloadBaseNetworkHeader, Offset: family.source + family.length, Len: family.length}
		leaving = append(leaving,
			[][]expr.Any{is, {source}, lookup(f.masquerade[k]), elsewhere, {&expr.Masq{}}},
			// By a bridge that shows the packet filter what it forwards, which knows no
			// device that it came from: one that asks itself.
			[][]expr.Any{is, to, redirected, {source, target}, lookup(f.published[k]), {&expr.Masq{}}})
	}
	const filtering, nat = nftables.ChainTypeFilter, nftables.ChainTypeNAT
	return []chain{
		{"guard", filtering, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, guard},
		{"arriving", nat, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, arriving},
		{"local", nat, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, local},
		{"forwarded", filtering, nftables.ChainHookForward, nftables.ChainPriorityFilter, [][][]expr.Any{
			append([][]expr.Any{from}, uninvited...), append([][]expr.Any{to}, uninvited...),
		}},
		{"leaving", nat, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, leaving},
	}
}

// first is NFT_REG32_00: four bytes, and the first ones of register 1, which has sixteen.
const first = 8

// redirect leads from a published port to the container's. What it is looked up by begins
// with as many bytes of the address.
func redirect(k int, ports *nftables.Set, length uint32) (list []expr.Any) {
	if length > 0 {
		list = append(list, &expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: families[k].source + length, Len: length})
	}
	return append(
		list,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first + length/4},
		&expr.Payload{DestRegister: first + length/4 + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: ports.Name, SetID: ports.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(families[k].number), RegAddrMin: first, RegProtoMin: first + families[k].length/4, Specified: true},
	)
}

func meta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

// packet compares a part of the network header.
func packet(op expr.CmpOp, offset uint32, value []byte) []expr.Any {
	return part(op, expr.PayloadBaseNetworkHeader, offset, value)
}

func part(op expr.CmpOp, base expr.PayloadBase, offset uint32, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(value))},
		&expr.Cmp{Op: op, Register: 1, Data: value},
	}
}

func lookup(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}}
}

const statusDNAT = 1 << 5 // the kernel's IPS_DST_NAT

// flags asks for one or none of the bits.
func flags(key expr.CtKey, bits uint32, set bool) []expr.Any {
	op := expr.CmpOpEq
	if set {
		op = expr.CmpOpNeq
	}
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(bits), Xor: native(0)},
		&expr.Cmp{Op: op, Register: 1, Data: native(0)},
	}
}

// addressType asks for a packet to or from an address of the host.
func addressType(to bool) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: to, FlagSADDR: !to},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(unix.RTN_LOCAL)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// ownerOf returns for whom a host's end was made, "" if the link is none.
func ownerOf(a *netlink.LinkAttrs) string {
	words := strings.Fields(a.Alias)
	if a.Group != group || a.ParentIndex == 0 || len(words) < 3 || words[0]+" " != aliasPair {
		return ""
	}
	return words[1] + " " + words[2]
}
