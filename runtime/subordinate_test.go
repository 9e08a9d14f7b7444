package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestGranted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	for _, c := range []struct {
		text        string
		first, size uint32
	}{
		{"", 0, 0},
		{"other:100000:65536\n", 0, 0},
		{"me:100000:65536\n", 100000, 65536},
		{"1000:100000:65536", 100000, 65536},
		{"me:100000:10\n1000:200000:20\nme:300000:5\n", 200000, 20},
		{"me:0:10\n", 0, 0}, // the host's root
		{"me:4294967290:10\nme:-1:3\nme:1:x\nme:1\n", 0, 0},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := granted(file, []string{"1000", "me"}); r.HostID != c.first || r.Size != c.size {
			t.Errorf("%q: %+v", c.text, r)
		}
	}
	if r := granted(file+"-missing", []string{"1000", "me"}); r.Size != 0 {
		t.Errorf("of a file that is missing: %+v", r)
	}
}

func TestAround(t *testing.T) {
	type maps = []specs.LinuxIDMapping
	for _, c := range []struct {
		id, size uint32
		want     maps
	}{
		{1000, 0, nil},
		{1000, 65536, maps{{ContainerID: 0, HostID: 100000, Size: 1000}, {ContainerID: 1000, HostID: 7, Size: 1}, {ContainerID: 1001, HostID: 101000, Size: 64535}}},
		{0, 65536, maps{{ContainerID: 0, HostID: 7, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65535}}},
		{1000, 10, maps{{ContainerID: 0, HostID: 100000, Size: 10}, {ContainerID: 1000, HostID: 7, Size: 1}}},
		{70000, 65536, maps{{ContainerID: 0, HostID: 100000, Size: 65535}, {ContainerID: 70000, HostID: 7, Size: 1}}},
	} {
		got := around(c.id, 7, specs.LinuxIDMapping{HostID: 100000, Size: c.size})
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%d in %d: %s", c.id, c.size, d)
		}
	}
}
