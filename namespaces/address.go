package namespaces

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// Address is an IP address, alone or with the length of its network's prefix.
type Address struct {
	IP   []byte // 4 or 16 bytes
	Bits int
}

// parseAddress reads an address, and its prefix length if there is one; else Bits are
// all there are. (Package net/netip would cost every start of husk and its init 25 µs.)
func parseAddress(s string) (a Address, prefix bool, err error) {
	ip, length, prefix := strings.Cut(s, "/")
	if strings.Contains(ip, ":") {
		a.IP, err = parseIPv6(ip)
	} else {
		a.IP, err = parseIPv4(ip)
	}
	a.Bits = 8 * len(a.IP)
	if err == nil && prefix {
		if length == "" || len(length) > 3 || length[0] == '0' && length != "0" || strings.Trim(length, "0123456789") != "" {
			return a, true, errAddress
		}
		n, _ := strconv.Atoi(length)
		if n > a.Bits {
			return a, true, errAddress
		}
		a.Bits = n
	}
	return a, prefix, err
}

var errAddress = errors.New("is not an IP address")

func parseIPv4(s string) ([]byte, error) {
	parts := strings.Split(s, ".")
	ip := make([]byte, 4)
	if len(parts) != 4 {
		return nil, errAddress
	}
	for i, part := range parts {
		// Zeros in front would be octal to some.
		if part == "" || len(part) > 3 || part[0] == '0' && part != "0" || strings.Trim(part, "0123456789") != "" {
			return nil, errAddress
		}
		n, _ := strconv.Atoi(part)
		if n > 255 {
			return nil, errAddress
		}
		ip[i] = byte(n)
	}
	return ip, nil
}

// parseIPv6 reads groups of hexadecimal digits, of which :: stands for zeros; the last
// two may be written as an IPv4 address.
func parseIPv6(s string) ([]byte, error) {
	head, tail, gap := strings.Cut(s, "::")
	first, err := groups(head, !gap)
	if err != nil {
		return nil, err
	}
	last, err := groups(tail, true)
	if err != nil || !gap && len(first) != 16 || gap && len(first)+len(last) > 14 {
		return nil, errAddress
	}
	ip := make([]byte, 16)
	copy(ip, first)
	copy(ip[16-len(last):], last)
	return ip, nil
}

func groups(s string, end bool) ([]byte, error) {
	var b []byte
	if s == "" {
		return nil, nil
	}
	words := strings.Split(s, ":")
	for i, word := range words {
		if end && i == len(words)-1 && strings.Contains(word, ".") {
			four, err := parseIPv4(word)
			return append(b, four...), err
		}
		n, err := strconv.ParseUint(word, 16, 16)
		if err != nil || len(word) > 4 {
			return nil, errAddress
		}
		b = append(b, byte(n>>8), byte(n))
	}
	return b, nil
}

// String writes the address with its length.
func (a Address) String() string {
	return a.Alone() + "/" + strconv.Itoa(a.Bits)
}

// Alone writes the address without the length, the longest run of zeros as :: (RFC 5952).
func (a Address) Alone() string {
	var b []byte
	if len(a.IP) == 4 {
		for i, n := range a.IP {
			if i > 0 {
				b = append(b, '.')
			}
			b = strconv.AppendUint(b, uint64(n), 10)
		}
		return string(b)
	}
	from, to := zeros(a.IP)
	for i := 0; i < 16; i += 2 {
		if i == from {
			b = append(b, "::"...)
			i = to - 2
			continue
		}
		if i > 0 && i != to {
			b = append(b, ':')
		}
		b = strconv.AppendUint(b, uint64(a.IP[i])<<8|uint64(a.IP[i+1]), 16)
	}
	return string(b)
}

// zeros finds the first longest run of two or more zero groups.
func zeros(ip []byte) (from, to int) {
	from, to = -1, -1
	for i := 0; i < 16; i += 2 {
		j := i
		for j < 16 && ip[j] == 0 && ip[j+1] == 0 {
			j += 2
		}
		if j-i > 2 && j-i > to-from {
			from, to = i, j
		}
	}
	return from, to
}

// Network is the first address of the address's network.
func (a Address) Network() Address {
	ip := bytes.Clone(a.IP)
	for i := a.Bits; i < 8*len(ip); i++ {
		ip[i/8] &^= 0x80 >> (i % 8)
	}
	return Address{ip, a.Bits}
}

// Last is the last address of the address's network.
func (a Address) Last() []byte {
	ip := bytes.Clone(a.IP)
	for i := a.Bits; i < 8*len(ip); i++ {
		ip[i/8] |= 0x80 >> (i % 8)
	}
	return ip
}

// Next is the address that follows in the same network, or without IP behind the last.
func (a Address) Next() Address {
	ip := bytes.Clone(a.IP)
	for i := len(ip) - 1; i >= 0; i-- {
		if ip[i]++; ip[i] != 0 {
			break
		}
	}
	if n := (Address{ip, a.Bits}); bytes.Compare(ip, a.IP) > 0 && n.Network().String() == a.Network().String() {
		return n
	}
	return Address{}
}

// Contains says whether b, and its network if it has one, is within the network of a.
func (a Address) Contains(b Address) bool {
	if len(a.IP) != len(b.IP) || b.Bits < a.Bits {
		return false
	}
	return bytes.Equal(a.Network().IP, Address{b.IP, a.Bits}.Network().IP)
}

// Overlaps says whether the networks of both have an address in common.
func (a Address) Overlaps(b Address) bool { return a.Contains(b) || b.Contains(a) }

// Is4 says whether this is an IPv4 address.
func (a Address) Is4() bool { return len(a.IP) == 4 }

// single says whether this can be the address of one interface: neither unspecified,
// loopback nor multicast.
func (a Address) single() bool {
	return bytes.Count(a.IP, []byte{0}) != len(a.IP) && !a.Loopback() && !a.multicast()
}

// Loopback says whether the address is the host's own, whatever host.
func (a Address) Loopback() bool {
	if a.Is4() {
		return a.IP[0] == 127
	}
	return bytes.Count(a.IP, []byte{0}) == 15 && a.IP[15] == 1
}

// linkLocal says whether the address means something on one link only.
func (a Address) linkLocal() bool {
	if a.Is4() {
		return a.IP[0] == 169 && a.IP[1] == 254
	}
	return a.IP[0] == 0xfe && a.IP[1]&0xc0 == 0x80
}

// Foreign says whether the address can be of another machine, and of the same one for
// another network namespace.
func (a Address) Foreign() bool {
	return a.single() && (a.Is4() || !a.linkLocal())
}

// multicast says whether the address is nobody's alone, or reserved.
func (a Address) multicast() bool {
	if a.Is4() {
		return a.IP[0] >= 224
	}
	return a.IP[0] == 0xff
}
