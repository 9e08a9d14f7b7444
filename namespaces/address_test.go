package namespaces

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

// FuzzAddress compares with net/netip, which knows zones and addresses of IPv4 within
// IPv6 as well.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{
		"10.0.0.1/8", "0.0.0.0/0", "255.255.255.255", "1.2.3", "01.2.3.4", "1.2.3.4/032", "1.2.3.4/33", "::", "::1/128",
		"fd00::1:2/64", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::ffff:1.2.3.4", "1::2::3", "1:2", ":1", "12345::", "::/129", "fe80::1%eth0", "1.2.3.4/", "/1",
		"0:0:1:0:0:0:1:0", "1:0:0:2:0:0:0:3",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, prefix, err := parseAddress(s)
		var want netip.Addr
		var wantErr error
		bits := 0
		if strings.Contains(s, "/") {
			var p netip.Prefix
			p, wantErr = netip.ParsePrefix(s)
			want, bits = p.Addr(), p.Bits()
		} else {
			want, wantErr = netip.ParseAddr(s)
			bits = want.BitLen()
		}
		if want.Zone() != "" {
			wantErr = errAddress
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, want %v", s, err, wantErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(a.IP, want.AsSlice()) || a.Bits != bits || prefix != strings.Contains(s, "/") {
			t.Errorf("%q: %v, want %v", s, a, want)
		}
		if !want.Is4In6() && a.Alone() != want.String() {
			t.Errorf("%q: written as %s, want %s", s, a.Alone(), want)
		}
		p := netip.PrefixFrom(want, bits)
		if got := a.Network(); !bytes.Equal(got.IP, p.Masked().Addr().AsSlice()) {
			t.Errorf("%q: network %v, want %v", s, got, p.Masked())
		}
		single := !want.IsUnspecified() && !want.IsLoopback() && !want.IsMulticast() && !(want.Is4() && want.As4()[0] >= 224) || want.Is4In6()
		if a.single() != single {
			t.Errorf("%q: single is %v", s, a.single())
		}
	})
}

func TestOverlaps(t *testing.T) {
	parse := func(s string) Address {
		a, _, err := parseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, test := range []struct {
		a, b               string
		overlaps, contains bool
	}{
		{"10.0.0.1/8", "10.200.0.0/16", true, true},
		{"10.200.0.0/16", "10.0.0.1/8", true, false},
		{"10.0.0.0/24", "10.0.1.0/24", false, false},
		{"10.0.0.0/24", "10.0.0.9", true, true},
		{"fd00::/64", "fd00::1", true, true},
		{"fd00::/64", "fd00:0:0:1::1", false, false},
		{"0.0.0.0/0", "::1", false, false},
	} {
		if a, b := parse(test.a), parse(test.b); a.Overlaps(b) != test.overlaps || a.Contains(b) != test.contains {
			t.Errorf("%s %s: %v %v", a, b, a.Overlaps(b), a.Contains(b))
		}
	}
}
