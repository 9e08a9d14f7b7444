package runtime

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/huskrun/husk/namespaces"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestResolverUnreadable: what nobody has asked for is missing with a warning.
func TestResolverUnreadable(t *testing.T) {
	p := &Plan{config: &Config{Spec: &specs.Spec{}}, Links: []Link{{made: &namespaces.Interface{Auto: true}}}}
	p.Spawn.New = unix.CLONE_NEWNS
	err := p.etc(func() (string, error) {
		return "", &fs.PathError{Op: "read", Path: "/etc/resolv.conf", Err: unix.EIO}
	})
	if err != nil || len(p.Etc) > 0 || len(p.Warnings) != 1 ||
		!strings.HasPrefix(p.Warnings[0], "read /etc/resolv.conf: input/output error, so the container gets no /etc/resolv.conf") {
		t.Errorf("%v, %v, %q", err, p.Etc, p.Warnings)
	}
}

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
