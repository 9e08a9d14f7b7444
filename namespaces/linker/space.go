package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace, and a connection to the kernel's links in it.
type space struct {
	fd      int
	sockets map[int]*nl.SocketHandle
}

// enter connects to the namespace behind a descriptor, which it takes a copy of.
func enter(fd int) (*space, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("fcntl: %w", err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(fd), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("enter the network namespace: %w", err)
	}
	_ = socket.SetExtAck(true) // else its errors say less
	return &space{fd, map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}}, nil
}

// here is the namespace of the program.
func here() (*space, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/thread-self/ns/net: %w", err)
	}
	defer unix.Close(fd)
	return enter(fd)
}

// patience is how long the lock of a namespace is waited for, less than our caller waits
// for us.
var patience = 10 * time.Second

// exclude keeps all others, whatever their state root, from looking for what is about to
// be made or removed in the namespace: its file is what they have in common. The lock
// goes with whoever dies. Any process in the namespace may take it, and so make others
// give up, but not do without.
func (s *space) exclude() (unlock func(), err error) {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = unix.Flock(s.fd, unix.LOCK_UN) }, nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			return nil, fmt.Errorf("lock the host's network namespace: %w", err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("lock the host's network namespace: another program holds it: %w", unix.EWOULDBLOCK)
		}
		time.Sleep(pause)
	}
}

func (s *space) close() {
	if s != nil {
		s.sockets[unix.NETLINK_ROUTE].Close()
		_ = unix.Close(s.fd)
	}
}

// ask sends one request about links and waits until it is done.
func (s *space) ask(kind, flags int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	return s.request(unix.NETLINK_ROUTE, kind, flags, parts...)
}

func (s *space) request(protocol, kind, flags int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	for try := 0; ; try++ {
		r := nl.NewNetlinkRequest(kind, flags)
		r.Sockets = s.sockets
		for _, p := range parts {
			r.AddData(p)
		}
		answers, err := r.Execute(protocol, 0)
		// Links came or went meanwhile: look again, but not for as long as a container likes.
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == maxDumps {
			return answers, kernelError(err)
		}
	}
}

const maxDumps = 100

// kernelError puts what the kernel explains before the errno that it explains.
func kernelError(err error) error {
	var errno unix.Errno
	if err == nil || !errors.As(err, &errno) {
		return err
	}
	text := strings.TrimSuffix(strings.TrimPrefix(err.Error(), errno.Error()+": "), ".")
	if text == errno.Error() {
		return errno
	}
	return fmt.Errorf("%s: %w", text, errno)
}

func text(kind int, s string) *nl.RtAttr   { return nl.NewRtAttr(kind, nl.ZeroTerminated(s)) }
func number(kind int, n uint32) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(n)) }
func byIndex(index int) *nl.IfInfomsg      { return withFlags(index, 0, 0) }
func (s *space) reference() *nl.RtAttr     { return number(unix.IFLA_NET_NS_FD, uint32(s.fd)) }

func withFlags(index int, set, mask uint32) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index, m.Flags, m.Change = int32(index), set, mask
	return m
}

// links lists what is there.
func (s *space) links() ([]*netlink.LinkAttrs, error) {
	const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	answers, err := s.ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, byIndex(0), number(unix.IFLA_EXT_MASK, skipStats))
	var list []*netlink.LinkAttrs
	for _, a := range answers {
		link, err := netlink.LinkDeserialize(nil, a)
		if err != nil {
			return nil, err
		}
		list = append(list, link.Attrs())
	}
	return list, err
}

// link finds a link by index or, if that is 0, by name.
func (s *space) link(index int, name string) (*netlink.LinkAttrs, error) {
	link, err := s.whole(index, name)
	if err != nil {
		return nil, err
	}
	return link.Attrs(), nil
}

// whole is link with what is particular to its type.
func (s *space) whole(index int, name string) (netlink.Link, error) {
	parts := []nl.NetlinkRequestData{byIndex(index)}
	if index == 0 {
		parts = append(parts, text(unix.IFLA_IFNAME, name))
	}
	answers, err := s.ask(unix.RTM_GETLINK, 0, parts...)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, unix.ENODEV
	}
	return netlink.LinkDeserialize(nil, answers[0])
}

func (s *space) up(index int) error {
	_, err := s.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, withFlags(index, unix.IFF_UP, unix.IFF_UP))
	return err
}

// deleteLinks removes links, if they are still there. For each removal the kernel waits
// until nobody can see the link any more, milliseconds, so several are made a group of
// their own to go at once.
func (s *space) deleteLinks(indexes []int) error {
	if len(indexes) == 0 {
		return nil
	}
	which := number(unix.IFLA_GROUP, dying)
	for _, index := range indexes {
		if _, err := s.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, byIndex(index), which); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("set the group of network device %d: %w", index, err)
		}
	}
	_, err := s.ask(unix.RTM_DELLINK, unix.NLM_F_ACK, byIndex(0), which)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove network devices: %w", err)
	}
	return nil
}

// send moves a link to another namespace, where it gets this name and an index from the
// given one on, which it returns: whatever the kernel makes of the name, that it is.
func (s *space) send(to *space, index int, name string, newIndex int) (int, error) {
	for try := 0; ; try++ {
		_, err := s.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, byIndex(index), to.reference(),
			text(unix.IFLA_IFNAME, name), number(unix.IFLA_NEW_IFINDEX, uint32(newIndex)))
		if !errors.Is(err, unix.EBUSY) || try == maxTries {
			return newIndex, err
		}
		newIndex++ // taken
	}
}

// maxTries bounds how many indexes are tried.
const maxTries = 10000

// address is one as the kernel describes it, which is also how it is told to it.
type address struct {
	unix.IfAddrmsg
	flags uint32
	attrs []nl.NetlinkRequestData
}

// addresses lists those of a link, or of all if it is 0, of every family.
func (s *space) addresses(index int) ([]address, error) {
	answers, err := s.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	var list []address
	for _, b := range answers {
		m := nl.DeserializeIfAddrmsg(b)
		if index != 0 && int(m.Index) != index {
			continue
		}
		attrs, err := nl.ParseRouteAttr(b[m.Len():])
		if err != nil {
			return nil, err
		}
		a := address{IfAddrmsg: m.IfAddrmsg, flags: uint32(m.Flags)}
		for _, attr := range attrs {
			if attr.Attr.Type == unix.IFA_FLAGS && len(attr.Value) == 4 {
				a.flags = nl.NativeEndian().Uint32(attr.Value)
			}
			a.attrs = append(a.attrs, nl.NewRtAttr(int(attr.Attr.Type), attr.Value))
		}
		list = append(list, a)
	}
	return list, err
}

// add gives a link an address.
func (s *space) add(index int, a address) error {
	m := &nl.IfAddrmsg{IfAddrmsg: a.IfAddrmsg}
	m.Index = uint32(index)
	_, err := s.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, append([]nl.NetlinkRequestData{m}, a.attrs...)...)
	return err
}

// routes lists those that lead to a link and that somebody has put there: the kernel
// makes those of its addresses, and a router those that it announces.
func (s *space) routes(index int) ([][]nl.NetlinkRequestData, error) {
	answers, err := s.ask(unix.RTM_GETROUTE, unix.NLM_F_DUMP, nl.NewRtMsg())
	var list [][]nl.NetlinkRequestData
	for _, b := range answers {
		m := nl.DeserializeRtMsg(b)
		if m.Protocol == unix.RTPROT_KERNEL || m.Protocol == unix.RTPROT_RA || m.Protocol == unix.RTPROT_REDIRECT || m.Flags&unix.RTM_F_CLONED != 0 {
			continue
		}
		attrs, err := nl.ParseRouteAttr(b[m.Len():])
		if err != nil {
			return nil, err
		}
		m.Flags &= unix.RTNH_F_ONLINK // the others are what the kernel found out
		route, leads := []nl.NetlinkRequestData{m}, false
		for _, attr := range attrs {
			leads = leads || attr.Attr.Type == unix.RTA_OIF && int(nl.NativeEndian().Uint32(attr.Value)) == index
			if attr.Attr.Type != unix.RTA_CACHEINFO {
				route = append(route, nl.NewRtAttr(int(attr.Attr.Type), attr.Value))
			}
		}
		if leads {
			list = append(list, route)
		}
	}
	return list, err
}

// addRoutes adds routes that lead to a link. A gateway may be one that another of them
// leads to, so they are tried again as long as that helps.
func (s *space) addRoutes(index int, routes [][]nl.NetlinkRequestData) (err error) {
	for before := len(routes) + 1; len(routes) < before; {
		before, err = len(routes), nil
		routes = slices.DeleteFunc(routes, func(route []nl.NetlinkRequestData) bool {
			e := s.addRoute(index, route)
			if e != nil && !errors.Is(e, unix.EEXIST) {
				err = fmt.Errorf("give it its routes again: %w", e)
				return false
			}
			return true
		})
	}
	return err
}

func (s *space) addRoute(index int, route []nl.NetlinkRequestData) error {
	for i, part := range route {
		if r, ok := part.(*nl.RtAttr); ok && r.Type == unix.RTA_OIF {
			route[i] = number(unix.RTA_OIF, uint32(index))
		}
	}
	_, err := s.ask(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, route...)
	return err
}

// plain is the address without what else the kernel says of it.
func (a address) plain() (plain namespaces.Address) {
	plain.Bits = int(a.Prefixlen)
	for _, attr := range a.attrs {
		// IFA_ADDRESS is another one's where a link has one other end only.
		if r := attr.(*nl.RtAttr); r.Type == unix.IFA_LOCAL || r.Type == unix.IFA_ADDRESS && plain.IP == nil {
			plain.IP = r.Data
		}
	}
	return plain
}

func family(a namespaces.Address) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// give gives a link an address that nobody else has: IPv6 need not ask around, which
// takes it more than a second.
func (s *space) give(index int, a namespaces.Address) error {
	m := unix.IfAddrmsg{Family: family(a), Prefixlen: uint8(a.Bits)}
	parts := []nl.NetlinkRequestData{nl.NewRtAttr(unix.IFA_LOCAL, a.IP), nl.NewRtAttr(unix.IFA_ADDRESS, a.IP)}
	if !a.Is4() {
		parts = append(parts, number(unix.IFA_FLAGS, unix.IFA_F_NODAD))
	} else if a.Bits < 31 {
		parts = append(parts, nl.NewRtAttr(unix.IFA_BROADCAST, a.Last()))
	}
	err := s.add(index, address{IfAddrmsg: m, attrs: parts})
	if !a.Is4() && errors.Is(err, unix.EACCES) {
		return fmt.Errorf("IPv6 is disabled on this device: %w", unix.EACCES) // an older kernel does not say so
	}
	return err
}

// route adds a route through a gateway on the link or, without one, to the link itself.
func (s *space) route(index int, to, via namespaces.Address) error {
	m := nl.NewRtMsg()
	m.Family, m.Dst_len, m.Protocol = family(to), uint8(to.Bits), unix.RTPROT_STATIC
	parts := []nl.NetlinkRequestData{m, number(unix.RTA_OIF, uint32(index))}
	if to.Bits != 0 {
		parts = append(parts, nl.NewRtAttr(unix.RTA_DST, to.IP))
	}
	if via.IP != nil {
		m.Flags = unix.RTNH_F_ONLINK
		parts = append(parts, nl.NewRtAttr(unix.RTA_GATEWAY, via.IP))
	} else if to.Is4() {
		m.Scope = unix.RT_SCOPE_LINK
	}
	_, err := s.ask(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, parts...)
	return err
}

// destinations lists the networks to which there are routes, but for the default ones.
func (s *space) destinations() (list []namespaces.Address, err error) {
	answers, err := s.ask(unix.RTM_GETROUTE, unix.NLM_F_DUMP, nl.NewRtMsg())
	for _, b := range answers {
		m := nl.DeserializeRtMsg(b)
		attrs, err := nl.ParseRouteAttr(b[m.Len():])
		if err != nil {
			return nil, err
		}
		for _, attr := range attrs {
			if attr.Attr.Type == unix.RTA_DST && m.Dst_len != 0 && m.Type == unix.RTN_UNICAST {
				list = append(list, namespaces.Address{IP: attr.Value, Bits: int(m.Dst_len)})
			}
		}
	}
	return list, err
}

// noIPv6 says whether an address was refused because there is no IPv6.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EACCES)
}
