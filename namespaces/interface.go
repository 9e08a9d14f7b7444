package namespaces

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Interface is a pair of virtual devices to be made, one end for the container, the other
// one on the host, or the device that pasta makes.
type Interface struct {
	Name      string    // in the container
	Host      string    // of the host's end; "": the kernel numbers it
	Bridge    string    // that the host's end becomes a port of, "" without
	MAC       []byte    // of the container's end, nil: any
	MTU       int       // 0: as the kernel has it
	Addresses []Address // of the container's end
	Auto      bool      // and one of each network that the bridge is in
	Gateways  []Address // at most one of each family
	Routes    []Route
	DNS       []string // addresses of servers, or DNSHost or DNSNone alone
	Hosts     bool     // the container gets an /etc/hosts
	Hostname  bool     // and an /etc/hostname

	Masquerade bool   // what goes on from the host has the host's address
	Publish    []Port // that lead into the container
	Forwarding bool   // the host is to forward packets

	Allow []Target // that alone may be reached; none: everything
}

// Target is a port, of one address or of all in a network.
type Target struct {
	Protocol byte // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	Name     string
	To       Address // unless there is a name
	Port     uint16
}

// String writes it as the word allow has it.
func (t Target) String() string {
	host := t.Name
	switch {
	case host != "":
	case t.To.Bits < 8*len(t.To.IP):
		host = t.To.String()
	default:
		host = t.To.Alone()
	}
	if t.Name == "" && !t.To.Is4() {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d/%s", host, t.Port, protocolName(t.Protocol))
}

// Route is one of the container.
type Route struct {
	To  Address
	Via Address // without IP: the gateway or, if there is none, whatever the interface is connected to
}

// Port is one of the host's, which leads to one of the container's.
type Port struct {
	Protocol   byte    // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	At         Address // of the host; without IP: every one
	Host, Into uint16
}

// Clashes says whether both are the host's same port, at some address.
func (p Port) Clashes(q Port) bool {
	return p.Protocol == q.Protocol && p.Host == q.Host && (p.At.IP == nil || q.At.IP == nil || slices.Equal(p.At.IP, q.At.IP))
}

// String writes it as the word publish has it.
func (p Port) String() string {
	at := ""
	switch {
	case p.At.IP == nil:
	case p.At.Is4():
		at = p.At.Alone() + ":"
	default:
		at = "[" + p.At.Alone() + "]:"
	}
	return fmt.Sprintf("%s%d:%d/%s", at, p.Host, p.Into, protocolName(p.Protocol))
}

func protocolName(number byte) string {
	if number == unix.IPPROTO_UDP {
		return "udp"
	}
	return "tcp"
}

// protocolNumber returns 0 for what is none.
func protocolNumber(name string) byte {
	switch name {
	case "tcp":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	}
	return 0
}

// BridgePrefix begins the names of the bridges that are made if they are missing.
const BridgePrefix = "husk"

// Words lists what a description of an interface consists of.
func Words() []string {
	list := make([]string, len(words))
	for i := range words {
		list[i] = words[i].key
	}
	return list
}

// word is a kind of them: one with a value, of which there may be more than one if again
// is set, or one without.
type word struct {
	key   string
	again bool
	set   func(i *Interface, value string) error
	flag  func(i *Interface) *bool
}

// words is the one table of them.
var words = []word{
	{key: "bridge", set: func(i *Interface, v string) error { return setName(&i.Bridge, v) }},
	{key: "address", again: true, set: (*Interface).addAddress},
	{key: "gateway", again: true, set: (*Interface).addGateway},
	{key: "route", again: true, set: (*Interface).addRoute},
	{key: "mtu", set: (*Interface).setMTU},
	{key: "mac", set: (*Interface).setMAC},
	{key: "host-name", set: func(i *Interface, v string) error { return setName(&i.Host, v) }},
	{key: "dns", again: true, set: (*Interface).addDNS},
	{key: "hosts", flag: func(i *Interface) *bool { return &i.Hosts }},
	{key: "hostname", flag: func(i *Interface) *bool { return &i.Hostname }},
	{key: "masquerade", flag: func(i *Interface) *bool { return &i.Masquerade }},
	{key: "publish", again: true, set: (*Interface).addPort},
	{key: "allow", again: true, set: (*Interface).addAllow},
	{key: "forwarding", flag: func(i *Interface) *bool { return &i.Forwarding }},
}

// use takes a word with its value, if one is given.
func (w *word) use(i *Interface, value string, given bool) error {
	switch {
	case w.flag == nil:
		return w.set(i, value)
	case given:
		return errors.New("is a value, and it takes none")
	}
	*w.flag(i) = true
	return nil
}

// ParseInterface reads the description of an interface: words with commas between them.
func ParseInterface(name, description string) (*Interface, error) {
	i := &Interface{}
	if err := setName(&i.Name, name); err != nil {
		return nil, fmt.Errorf("%q %w", name, err)
	}
	var seen []string
	for part := range strings.SplitSeq(description, ",") {
		key, value, given := strings.Cut(part, "=")
		k := slices.IndexFunc(words, func(w word) bool { return w.key == key })
		if k < 0 {
			return nil, fmt.Errorf("%q is none of the words %s", key, strings.Join(Words(), ", "))
		}
		if slices.Contains(seen, key) && !words[k].again {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		seen = append(seen, key)
		if err := words[k].use(i, value, given); err != nil {
			return nil, fmt.Errorf("%s: %q %w", key, value, err)
		}
	}
	return i, i.check()
}

// IsTemplate says whether the kernel is to put the lowest free number in place of a %d.
func IsTemplate(name string) bool {
	return strings.Count(name, "%") == 1 && strings.Contains(name, "%d")
}

// IsDeviceName is the kernel's dev_valid_name.
func IsDeviceName(s string) bool {
	return s != "" && len(s) < unix.IFNAMSIZ && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r\x00")
}

// setName takes no template, and nothing that looks like the next word.
func setName(p *string, s string) error {
	if !IsDeviceName(s) || strings.ContainsAny(s, "%,") {
		return errors.New("is not the name of a network device")
	}
	*p = s
	return nil
}

// addPort: HOST:CONTAINER/PROTOCOL, behind an address of the host and a colon, if any.
func (i *Interface) addPort(s string) (err error) {
	ports, protocol, _ := strings.Cut(s, "/")
	host, into := cutLast(ports)
	at, host := cutLast(host)
	p := Port{Host: parsePort(host), Into: parsePort(into)}
	if at != "" {
		inside, bracketed := strings.CutPrefix(strings.TrimSuffix(at, "]"), "[")
		p.At, _, err = parseAddress(inside)
		if err != nil || p.At.Is4() == bracketed || !p.At.single() && !p.At.Loopback() {
			return errors.New("has something in front that is not one address of the host, as in 127.0.0.1:8080:80/tcp or [2001:db8::1]:53:53/udp; without any it is of all of them")
		}
	}
	if p.Protocol = protocolNumber(protocol); p.Protocol == 0 || p.Host == 0 || p.Into == 0 {
		return errors.New("is not a port of the host and one of the container, as in 8080:80/tcp or 53:53/udp")
	}
	if slices.ContainsFunc(i.Publish, p.Clashes) {
		return errors.New("is a second use of that port of the host")
	}
	i.Publish = append(i.Publish, p)
	return nil
}

// cutLast cuts at the last colon, with all of s behind if there is none.
func cutLast(s string) (before, after string) {
	k := strings.LastIndexByte(s, ':')
	return s[:max(k, 0)], s[k+1:]
}

// parsePort returns 0 for what is none.
func parsePort(s string) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || s[0] == '0' {
		return 0
	}
	return uint16(n)
}

func (i *Interface) addAllow(s string) error {
	t, err := ParseTarget(s)
	if err == nil && !slices.ContainsFunc(i.Allow, func(u Target) bool { return u.String() == t.String() }) {
		i.Allow = append(i.Allow, t)
	}
	return err
}

// ParseTarget reads HOST:PORT or HOST:PORT/PROTOCOL.
func ParseTarget(s string) (t Target, err error) {
	host, port := cutLast(s)
	port, protocol, given := strings.Cut(port, "/")
	if !given {
		protocol = "tcp"
	}
	t.Protocol, t.Port = protocolNumber(protocol), parsePort(port)
	inside, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		inside, bracketed = strings.CutSuffix(inside, "]")
	}
	prefix := false
	if t.To, prefix, err = parseAddress(inside); err != nil && !bracketed && isHostName(host) {
		t.Name, t.To, err = host, Address{}, nil
	}
	switch {
	case t.Protocol == 0 || t.Port == 0 || err != nil || t.Name == "" && t.To.Is4() == bracketed:
		return t, errors.New("is not HOST:PORT, as in db.example:5432, 192.0.2.7:53/udp, [2001:db8::1]:443 or 10.0.0.0/8:443")
	case t.Name == "localhost" || t.Name == "" && !t.To.Foreign() && t.To.Bits > 0:
		return t, errors.New("is not of another machine, whoever says so: the host has the address of its bridge or gateway")
	case t.Name == "" && !prefix && !t.To.single():
		return t, errors.New("is not the address of one interface")
	case t.Name == "" && !slices.Equal(t.To.IP, t.To.Network().IP):
		return t, fmt.Errorf("has bits set behind its prefix: the network is %s", t.To.Network())
	}
	return t, nil
}

// isHostName says whether s can be looked up. What ends in a number would be an address.
func isHostName(s string) bool {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, label := range labels {
		const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
		if label == "" || len(label) > 63 || label[0] == '-' || strings.Trim(label, characters) != "" {
			return false
		}
	}
	return len(s) < 254 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// Named says whether names are to be looked up.
func (i *Interface) Named() bool {
	return slices.ContainsFunc(i.Allow, func(t Target) bool { return t.Name != "" })
}

// Filtered says whether the interface needs something of the host's packet filter.
func (i *Interface) Filtered() bool { return i.Masquerade || len(i.Publish) > 0 }

// AutoAddress in place of an address has one chosen.
const AutoAddress = "auto"

func (i *Interface) addAddress(s string) error {
	if s == AutoAddress {
		i.Auto = true
		return nil
	}
	a, prefix, err := parseAddress(s)
	switch {
	case err != nil || !prefix:
		return errors.New("is not an address with the length of its network's prefix, as in 10.88.0.2/24")
	case !a.single() || a.Bits == 0:
		return errors.New("is not the address of one interface")
	case a.Is4() && a.Bits < 31 && slices.Equal(a.IP, a.Network().IP):
		return errors.New("is the address of the network itself")
	case slices.ContainsFunc(i.Addresses, func(b Address) bool { return slices.Equal(a.IP, b.IP) }):
		return errors.New("is given twice")
	}
	i.Addresses = append(i.Addresses, a)
	return nil
}

func (i *Interface) addGateway(s string) error {
	a, prefix, err := parseAddress(s)
	switch {
	case err != nil || prefix:
		return errors.New("is not an IP address")
	case !a.single():
		return errors.New("is not the address of one interface")
	case i.Gateway(a.Is4()) != nil:
		return errors.New("is a second gateway of its family")
	}
	i.Gateways = append(i.Gateways, a)
	return nil
}

// Gateway returns the one of a family, nil if there is none.
func (i *Interface) Gateway(is4 bool) *Address {
	for k := range i.Gateways {
		if i.Gateways[k].Is4() == is4 {
			return &i.Gateways[k]
		}
	}
	return nil
}

// addRoute: NETWORK or NETWORK@GATEWAY.
func (i *Interface) addRoute(s string) (err error) {
	var r Route
	to, via, given := strings.Cut(s, "@")
	prefix, plain := false, false
	r.To, prefix, err = parseAddress(to)
	if err == nil && given {
		r.Via, plain, err = parseAddress(via)
	}
	switch {
	case err != nil || !prefix || plain || given && (r.Via.Is4() != r.To.Is4() || !r.Via.single()):
		return errors.New("is not a network, or one with a gateway, as in 10.9.0.0/16@10.88.0.7")
	case !slices.Equal(r.To.IP, r.To.Network().IP):
		return fmt.Errorf("has bits set behind its prefix: the network is %s", r.To.Network())
	}
	i.Routes = append(i.Routes, r)
	return nil
}

// minMTU and maxMTU are those of a virtual Ethernet device, minMTU6 that of IPv6.
const (
	minMTU, maxMTU = 68, 65535
	minMTU6        = 1280
)

func (i *Interface) setMTU(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n < minMTU || n > maxMTU {
		return fmt.Errorf("is not a number from %d to %d", minMTU, maxMTU)
	}
	i.MTU = int(n)
	return nil
}

func (i *Interface) setMAC(s string) error {
	for part := range strings.SplitSeq(s, ":") {
		n, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(part) != 2 {
			i.MAC = make([]byte, 7)
			break
		}
		i.MAC = append(i.MAC, byte(n))
	}
	if len(i.MAC) != 6 || i.MAC[0]&1 != 0 || slices.Equal(i.MAC, make([]byte, 6)) {
		return errors.New("is not the address of one Ethernet device, as in 02:00:00:00:00:01")
	}
	return nil
}

// DNSHost in place of a server's address means those of the host, DNSNone that the
// container is left with what it has.
const (
	DNSHost = "host"
	DNSNone = "none"
)

// MaxDNS is how many servers resolvers heed (MAXNS of resolv.h).
const MaxDNS = 3

func (i *Interface) addDNS(s string) error {
	if s != DNSHost && s != DNSNone {
		a, prefix, err := parseAddress(s)
		if err != nil || prefix || !a.single() && !a.Loopback() {
			return fmt.Errorf("is neither the IP address of a server nor %s nor %s", DNSHost, DNSNone)
		}
		s = a.Alone()
	}
	switch {
	case slices.Contains(i.DNS, s):
		return errors.New("is given twice")
	case len(i.DNS) == MaxDNS:
		return fmt.Errorf("is one too many: resolvers heed %d servers", MaxDNS)
	}
	i.DNS = append(i.DNS, s)
	return nil
}

// Reachable says whether a server with this address can be the same one for another
// network namespace: it is neither loopback nor of a link.
func Reachable(server string) bool {
	a, prefix, err := parseAddress(server)
	return err == nil && !prefix && a.single() && !a.linkLocal()
}

// LooksUp says whether name servers can be of use: the container's default route goes
// through the interface, and may go to them.
func (i *Interface) LooksUp() bool {
	const dns = 53
	return (i.Auto || len(i.Gateways) > 0) &&
		(len(i.Allow) == 0 || slices.ContainsFunc(i.Allow, func(t Target) bool { return t.Port == dns }))
}

// CheckPair refuses what is for pasta only.
func (i *Interface) CheckPair() error {
	if i.Auto && i.Bridge == "" {
		return errors.New("address: auto takes one of a bridge's network, and no bridge is given")
	}
	for _, p := range i.Publish {
		if p.At.IP != nil && !p.At.Is4() && p.At.Loopback() {
			return fmt.Errorf("publish: %s: nothing comes back to ::1 from a container", p)
		}
	}
	return nil
}

// check looks at how the words go together.
func (i *Interface) check() error {
	has := func(is4 bool) bool {
		return slices.ContainsFunc(i.Addresses, func(a Address) bool { return a.Is4() == is4 })
	}
	switch {
	case i.Auto && len(i.Addresses) > 0:
		return errors.New("address: auto is instead of all others")
	case i.Bridge == "" && len(i.Addresses) == 0 && !i.Auto:
		return errors.New("leads nowhere: give it an address, or a bridge")
	case i.MTU != 0 && i.MTU < minMTU6 && has(false):
		return fmt.Errorf("mtu: %d is too small for IPv6, which needs %d", i.MTU, minMTU6)
	case len(i.DNS) > 1 && (slices.Contains(i.DNS, DNSHost) || slices.Contains(i.DNS, DNSNone)):
		return fmt.Errorf("dns: %s and %s are instead of all others", DNSHost, DNSNone)
	case (i.Filtered() || len(i.Allow) > 0) && !i.Auto && len(i.Addresses) == 0:
		return errors.New("masquerade, publish and allow are for addresses, and none is given")
	case len(i.Publish) > 0 && len(i.Allow) > 0:
		return errors.New("publish: with allow nobody else gets an answer, so leave out one of them")
	}
	if i.Auto {
		return nil // the rest is known when the networks are
	}
	for _, g := range i.Gateways {
		if slices.ContainsFunc(i.Addresses, func(a Address) bool { return slices.Equal(a.IP, g.IP) }) {
			return fmt.Errorf("gateway: %s is the interface's own address", g.Alone())
		}
		if i.Bridge != "" && i.Within(g) == nil {
			return fmt.Errorf("gateway: %s is in the network of none of the addresses", g.Alone())
		}
		if !has(g.Is4()) {
			return fmt.Errorf("gateway: %s needs an address of its family", g.Alone())
		}
	}
	for _, r := range i.Routes {
		if !has(r.To.Is4()) {
			return fmt.Errorf("route: %s needs an address of its family", r.To)
		}
		if r.Via.IP != nil && i.Within(r.Via) == nil {
			return fmt.Errorf("route: %s is in the network of none of the addresses", r.Via.Alone())
		}
	}
	return nil
}

// Within returns the address in whose network another one is, nil if there is none.
func (i *Interface) Within(b Address) *Address {
	for k := range i.Addresses {
		if i.Addresses[k].Contains(b) {
			return &i.Addresses[k]
		}
	}
	return nil
}
