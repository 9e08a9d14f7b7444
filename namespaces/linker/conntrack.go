package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A connection goes on as it began: what the packet filter says later is for new ones,
// and UDP knows no end of one as long as somebody talks. So a client that keeps asking
// from one port would go on with a container that is gone, or with the host, where
// another one has meanwhile published the port; and who has the address of a container
// that is gone would get its answers. The kernel is told to forget such connections.

// tuple is one direction of a connection.
type tuple struct {
	source, target []byte
	protocol       byte
	port           uint16 // the target's
}

// abandoned has the kernel forget connections from addresses, and those that were led to
// them.
func (s *space) abandoned(list []namespaces.Address) error {
	if len(list) == 0 {
		return nil
	}
	gone := map[string]bool{}
	for _, a := range list {
		gone[string(a.IP)] = true
	}
	return s.forget(func(there, back tuple) bool { return gone[string(there.source)] || gone[string(back.source)] })
}

// redirected has it forget those to ports that were led nowhere else. TCP needs none of
// this: it begins anew.
func (s *space) redirected(ports []namespaces.Port) error {
	taken := map[uint16]bool{}
	for _, p := range ports {
		if p.Protocol == unix.IPPROTO_UDP {
			taken[p.Host] = true
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return s.forget(func(there, back tuple) bool {
		return there.protocol == unix.IPPROTO_UDP && taken[there.port] &&
			bytes.Equal(there.target, back.source) && bytes.Equal(there.source, back.target)
	})
}

// forget removes the stale ones of the kernel's table, through all of which it goes,
// milliseconds: not if nothing of this namespace is in it.
func (s *space) forget(stale func(there, back tuple) bool) error {
	const conntrack = unix.NFNL_SUBSYS_CTNETLINK << 8
	count, err := os.ReadFile(sysctl + "netfilter/nf_conntrack_count")
	if err != nil || string(count) == "0\n" {
		return nil // or the kernel remembers nothing at all
	}
	all, err := s.request(unix.NETLINK_NETFILTER, conntrack|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, &nl.Nfgenmsg{})
	if errors.Is(err, unix.EINVAL) {
		return nil // it does not say what
	}
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	for _, b := range all {
		attrs, err := attributes(b[nl.SizeofNfgenmsg:])
		if err != nil {
			return err
		}
		if !stale(newTuple(attrs[nl.CTA_TUPLE_ORIG]), newTuple(attrs[nl.CTA_TUPLE_REPLY])) {
			continue
		}
		which := []nl.NetlinkRequestData{&nl.Nfgenmsg{NfgenFamily: b[0]}}
		for _, kind := range []int{nl.CTA_TUPLE_ORIG, nl.CTA_ID, nl.CTA_ZONE} {
			if attrs[kind] != nil {
				which = append(which, nl.NewRtAttr(kind, attrs[kind]))
			}
		}
		_, err = s.request(unix.NETLINK_NETFILTER, conntrack|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, which...)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget a connection: %w", err)
		}
	}
	return nil
}

// attributes are the values of attributes by their kinds.
func attributes(b []byte) (values [64][]byte, err error) {
	list, err := nl.ParseRouteAttr(b)
	for _, a := range list {
		if kind := a.Attr.Type & nl.NLA_TYPE_MASK; int(kind) < len(values) {
			values[kind] = a.Value
		}
	}
	return values, err
}

// newTuple leaves out what is not there: an address of no family, the port of a protocol
// that has none.
func newTuple(b []byte) (t tuple) {
	parts, _ := attributes(b)
	ip, _ := attributes(parts[nl.CTA_TUPLE_IP])
	proto, _ := attributes(parts[nl.CTA_TUPLE_PROTO])
	t.source, t.target = ip[nl.CTA_IP_V4_SRC], ip[nl.CTA_IP_V4_DST]
	if t.source == nil {
		t.source, t.target = ip[nl.CTA_IP_V6_SRC], ip[nl.CTA_IP_V6_DST]
	}
	if n := proto[nl.CTA_PROTO_NUM]; len(n) == 1 {
		t.protocol = n[0]
	}
	if n := proto[nl.CTA_PROTO_DST_PORT]; len(n) == 2 {
		t.port = binary.BigEndian.Uint16(n)
	}
	return t
}
