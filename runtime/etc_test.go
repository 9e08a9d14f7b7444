package runtime

import "testing"

func TestWithoutLocal(t *testing.T) {
	for _, test := range []struct {
		text, want string
		found      bool
	}{
		{"", "", false},
		{"# nameserver 192.0.2.1\n;nameserver 192.0.2.1\n", "", false},
		{"nameserver\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 0.0.0.0\n", "", false},
		{"nameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 169.254.1.1\nsearch a b\n", "search a b\n", false},
		{"nameserver 127.0.0.1\n\tnameserver  192.0.2.1 # comment", "nameserver 192.0.2.1 # comment\n", true},
		{"nameserver febf::1\nnameserver fec0::1\noptions ndots:2\n", "nameserver fec0::1\noptions ndots:2\n", true},
	} {
		if got, found := withoutLocal(test.text); got != test.want || found != test.found {
			t.Errorf("%q: got %q, %v", test.text, got, found)
		}
	}
}
