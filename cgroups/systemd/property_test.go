package systemd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/huskrun/husk/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestProperties(t *testing.T) {
	dir := t.TempDir() + "/"
	defer func(old string) { devBlock = old }(devBlock)
	devBlock = dir
	must(t, os.WriteFile(filepath.Join(dir, "8:0"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "8:16"), nil, 0o600))
	for _, c := range []struct{ limits, want string }{
		{"memory.max=1048576", "MemoryMax=1048576"},
		{"memory.max=max", "MemoryMax=infinity"},
		{"memory.max=1G", "MemoryMax=1073741824"},
		{"memory.max=16E", ""},
		{"memory.max=x", ""},
		{"memory.max=", ""},
		{"memory.high=0", "MemoryHigh=0"},
		{"memory.low=4096 memory.min=8192", "MemoryLow=4096 MemoryMin=8192"},
		{"memory.swap.max=0", "MemorySwapMax=0"},
		{"memory.zswap.max=0", "MemoryZSwapMax=0"},
		{"memory.oom.group=1", "OOMPolicy=kill"},
		{"memory.oom.group=0", "OOMPolicy=continue"},
		{"memory.oom.group=2", ""},
		{"memory.max=1 memory.max=2", "MemoryMax=2"},
		{"cpu.weight=79", "CPUWeight=79"},
		{"cpu.weight=0", ""},
		{"cpu.idle=1", "CPUWeight=0"},
		{"cpu.idle=0", ""},
		{"cpu.idle=0 cpu.weight=5", "CPUWeight=5"},
		{"cpu.max=50000", "CPUQuotaPerSecUSec=500000"},
		{"cpu.max=50000|100000", "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000"},
		{"cpu.max=1000|1000000", "CPUQuotaPerSecUSec=10000 CPUQuotaPeriodUSec=1000000"},
		{"cpu.max=10001|1000000", "CPUQuotaPerSecUSec=20000 CPUQuotaPeriodUSec=1000000"},
		{"cpu.max=1000|3000", "CPUQuotaPerSecUSec=340000 CPUQuotaPeriodUSec=3000"},
		{"cpu.max=3000|300000", "CPUQuotaPerSecUSec=10000 CPUQuotaPeriodUSec=300000"},
		{"cpu.max=300001|300000", "CPUQuotaPerSecUSec=1010000 CPUQuotaPeriodUSec=300000"},
		{"cpu.max=200000", "CPUQuotaPerSecUSec=2000000"},
		{"cpu.max=9223372036854775807|1000", "CPUQuotaPerSecUSec=infinity CPUQuotaPeriodUSec=1000"},
		{"cpu.max=max", "CPUQuotaPerSecUSec=infinity"},
		{"cpu.max=max|20000", "CPUQuotaPerSecUSec=infinity CPUQuotaPeriodUSec=20000"},
		{"cpu.max=-5|20000", "CPUQuotaPeriodUSec=20000"},
		{"cpu.max.burst=5", ""},
		{"cpuset.cpus=0-3,9", "AllowedCPUs=[15, 2]"},
		{"cpuset.mems=0", "AllowedMemoryNodes=[1]"},
		{"cpuset.cpus=3-1", ""},
		{"cpuset.cpus=99999", ""},
		{"pids.max=0", "TasksMax=1"},
		{"pids.max=11", "TasksMax=11"},
		{"pids.max=max", "TasksMax=infinity"},
		{"io.weight=100", "IOWeight=100"},
		{"io.weight=default|200", "IOWeight=200"},
		{"io.weight=8:0|200", "IODeviceWeight=[(" + dir + "8:0, 200)]"},
		{"io.weight=8:0|default", ""},
		{
			"io.max=8:0|rbps=1048576 io.max=8:16|wiops=max io.max=8:16|rbps=5",
			"IOReadBandwidthMax=[(" + dir + "8:0, 1048576), (" + dir + "8:16, 5)] IOWriteIOPSMax=[(" + dir + "8:16, infinity)]",
		},
		{
			"io.max=8:0|rbps=1|wbps=2|riops=3|wiops=4",
			"IOReadBandwidthMax=[(" + dir + "8:0, 1)] IOWriteBandwidthMax=[(" + dir + "8:0, 2)] IOReadIOPSMax=[(" + dir + "8:0, 3)] IOWriteIOPSMax=[(" + dir + "8:0, 4)]",
		},
		{"io.max=7:7|rbps=1", ""},
		{"io.max=../8:0|rbps=1", ""},
		{"io.max=rbps=1", ""},
		{"hugetlb.2MB.max=0 rdma.max=x misc.max=y", ""},
	} {
		if got := show(Properties(limitsOf(c.limits))); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.limits, got, c.want)
		}
	}
}

func show(props []Property) string {
	var all []string
	for _, p := range props {
		all = append(all, p.String())
	}
	return strings.Join(all, " ")
}

func ptr[T any](v T) *T { return &v }

// From config.json's resources by way of the limits.
func TestPropertiesOfResources(t *testing.T) {
	limits, _, _, err := cgroups.Compile(&specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr[int64](2 << 20), Swap: ptr[int64](3 << 20), Reservation: ptr[int64](1 << 20)},
		CPU:     &specs.LinuxCPU{Shares: ptr[uint64](1024), Quota: ptr[int64](20000), Cpus: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr[int64](0)},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](10)},
		Unified: map[string]string{"memory.high": "1M"},
	})
	must(t, err)
	const want = "CPUWeight=100 AllowedCPUs=[1] IOWeight=1 MemoryMax=2097152 MemorySwapMax=1048576 MemoryLow=1048576 " +
		"TasksMax=1 CPUQuotaPerSecUSec=200000 MemoryHigh=1048576"
	if got := show(Properties(limits)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestFixed(t *testing.T) {
	if got := show(Fixed(limitsOf("memory.max=5 memory.oom.group=1 pids.max=7"))); got != "OOMPolicy=kill" {
		t.Error(got)
	}
}

func TestComplete(t *testing.T) {
	for _, c := range []struct {
		limit   cgroups.Limit
		current string
		want    string
	}{
		{cgroups.Limit{File: "cpu.max", Value: "max 50000", KeepFirst: true}, "25000 100000\n", "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=50000"},
		{cgroups.Limit{File: "cpu.max", Value: "max 50000", KeepFirst: true}, "", "CPUQuotaPeriodUSec=50000"},
		{cgroups.Limit{File: "cpu.max", Value: "10000"}, "max 20000\n", "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=20000"},
		{cgroups.Limit{File: "cpu.max", Value: "10000 10000"}, "max 20000\n", "CPUQuotaPerSecUSec=1000000 CPUQuotaPeriodUSec=10000"},
		{cgroups.Limit{File: "cpu.idle", Value: "0"}, "1\n", "CPUWeight=100"},
		{cgroups.Limit{File: "cpu.idle", Value: "0"}, "0\n", ""},
		{cgroups.Limit{File: "pids.max", Value: "5"}, "", "TasksMax=5"},
	} {
		got := show(Properties(Complete([]cgroups.Limit{c.limit}, map[string]string{c.limit.File: c.current})))
		if got != c.want {
			t.Errorf("%v with %q: %s, want %s", c.limit, c.current, got, c.want)
		}
	}
}

func TestParseProperty(t *testing.T) {
	for _, c := range []struct {
		name, text string
		wantName   string
		want       any
	}{
		{"CollectMode", "'inactive-or-failed'", "CollectMode", "inactive-or-failed"},
		{"TimeoutStopUSec", "uint64 5", "TimeoutStopUSec", uint64(5)},
		{"TimeoutStopSec", "uint64 5", "TimeoutStopUSec", uint64(5000000)},
		{"TimeoutStopSec", "0.5", "TimeoutStopUSec", uint64(500000)},
		{"TimeoutStopSec", "byte 2", "TimeoutStopUSec", uint64(2000000)},
		{"CPUQuotaPerSecUSec", "uint64 5", "CPUQuotaPerSecUSec", uint64(5)},
		{"SendSIGHUP", "true", "SendSIGHUP", true},
		{"After", `["a.service", 'b.service']`, "After", array{"s", []any{"a.service", "b.service"}}},
		{"Nice", "-5", "Nice", int32(-5)},
	} {
		p, err := ParseProperty(c.name, c.text)
		must(t, err)
		if p.Name != c.wantName || !reflect.DeepEqual(p.Value, c.want) {
			t.Errorf("%s %s: %s %#v, want %#v", c.name, c.text, p.Name, p.Value, c.want)
		}
	}
	for _, c := range []struct{ name, text, want string }{
		{"PIDs", "[uint32 1]", "under husk's control"},
		{"Slice", "'a.slice'", "under husk's control"},
		{"DelegateControllers", "'a.slice'", "under husk's control"},
		{"Sec", "1", "not the name of a property"},
		{"collectMode", "1", "not the name of a property"},
		{"Collect Mode", "1", "not the name of a property"},
		{"CollectMode", "inactive", "'text'"},
		{"CollectMode", "", "'text'"},
		{"CollectMode", "'a' 'b'", "more after the value"},
		{"CollectMode", "'a", "closing '"},
		{"CollectMode", `'a\'`, "closing '"},
		{"CollectMode", `'\`, "escape"},
		{"CollectMode", `'\q'`, "escape"},
		{"CollectMode", `'\ud800'`, "escape"},
		{"CollectMode", `'\u0000'`, "cannot have"},
		{"CollectMode", "'\xff'", "cannot have"},
		{"CollectMode", `'\xff'`, "cannot have"},
		{"CollectMode", "[]", "@as []"},
		{"CollectMode", "@a []", "@as []"},
		{"CollectMode", "@s ['a']", "type of a list"},
		{"CollectMode", "@aas []", "type of a list"},
		{"CollectMode", "@as 'a'", "not a value of type"},
		{"CollectMode", "[1, 'a']", "not a value of type"},
		{"CollectMode", "[uint64 1, byte 2]", "not a value of type"},
		{"CollectMode", "[1 2]", "comma"},
		{"CollectMode", "[1", "comma"},
		{"CollectMode", "[1, ", "not a value"},
		{"CollectMode", "[[1]]", "not a value"},
		{"CollectMode", "('a', 1)", "not a value"},
		{"CollectMode", "{'a': 1}", "not a value"},
		{"CollectMode", "<1>", "not a value"},
		{"CollectMode", "@zz 1", "not a value of type"},
		{"CollectMode", "byte byte 1", "another type"},
		{"CollectMode", "byte 256", "not a value of type"},
		{"CollectMode", "uint64 -1", "not a value of type"},
		{"CollectMode", "uint64 1.5", "not a value of type"},
		{"CollectMode", "1_000", "not a value of type"},
		{"CollectMode", "99999999999", "not a value of type"},
		{"TimeoutStopSec", "[1]", "number of seconds"},
		{"TimeoutStopSec", "true", "number of seconds"},
		{"TimeoutStopSec", "'5'", "number of seconds"},
		{"TimeoutStopSec", "-5", "number of seconds"},
		{"TimeoutStopSec", "1e300", "number of seconds"},
	} {
		_, err := ParseProperty(c.name, c.text)
		wantError(t, err, nil, "annotation org.systemd.property."+c.name+": ", c.want)
	}
}

// What the parser that runc uses takes, ours takes for the same value. It is judged by
// the bytes of the message.
func TestVariantOracle(t *testing.T) {
	for _, text := range []string{
		"true", "false", "5", "-5", "0x10", "010", "1.5", "-1e3", "uint64 5", "int64 -7", "byte 200", "int16 -3", "uint16 3", "uint32 7", "int32 7",
		"'a'", `"a'b"`, `'tab\there\u00e4\U0001F600ä'`, "['a', 'b']", "[1, 2]", "[uint64 1, 2]", "[1, uint64 2]", "[1, 2.5]", "@as []", "@ai [1]", "@t 5", "@d 5",
		"[true]", "string 'x'", "boolean true", "@ay [1, 2]", "  5  ", "@at [ 1 , 0x2 ]",
	} {
		want, err := dbus.ParseVariant(text, dbus.Signature{})
		if err != nil {
			t.Errorf("oracle: %s: %v", text, err)
			continue
		}
		got, err := parseText(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		sameBytes(t, text, got, want)
	}
}

func parseText(text string) (any, error) {
	p, err := ParseProperty("Name", text)
	return p.Value, err
}

// sameBytes compares messages with the value as a variant, after a byte that takes away
// the alignment.
func sameBytes(t *testing.T, what string, ours any, theirs dbus.Variant) {
	t.Helper()
	got := encode(1, "/", busName, "X", []any{byte(7), variant{ours}})
	m := &dbus.Message{Type: dbus.TypeMethodCall, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/")), dbus.FieldInterface: dbus.MakeVariant(busName),
		dbus.FieldMember: dbus.MakeVariant("X"), dbus.FieldDestination: dbus.MakeVariant(busName),
		dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(byte(7), theirs)),
	}, Body: []any{byte(7), theirs}}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		t.Errorf("oracle: %s: %v", what, err)
		return
	}
	// The header's fields come in any order, so only bodies are compared.
	body := func(b []byte) []byte { return b[len(b)-int(order.Uint32(b[4:])):] }
	if want := b.Bytes(); !bytes.Equal(body(got), body(want)) || len(got) != len(want) {
		t.Errorf("%s:\n% x\nwant\n% x", what, body(got), body(want))
	}
	if _, err := dbus.DecodeMessage(bytes.NewReader(got)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestWireOracle(t *testing.T) {
	type pair struct {
		S string
		N uint64
	}
	for _, c := range []struct {
		ours   any
		theirs any
	}{
		{true, true},
		{byte(7), byte(7)},
		{int16(-2), int16(-2)},
		{uint64(infinity), uint64(infinity)},
		{1.5, 1.5},
		{"text", "text"},
		{array{"y", []any{byte(1), byte(2)}}, []byte{1, 2}},
		{array{"u", []any{uint32(4711)}}, []uint32{4711}},
		{array{"t", nil}, []uint64{}},
		{array{"(st)", []any{tuple{"/dev/sda", uint64(5)}, tuple{"b", uint64(6)}}}, []pair{{"/dev/sda", 5}, {"b", 6}}},
		{array{"(st)", nil}, []pair{}},
		{tuple{"x", uint64(1)}, pair{"x", 1}},
		{objectPath("/a"), dbus.ObjectPath("/a")},
	} {
		sameBytes(t, fmt.Sprint(c.ours), c.ours, dbus.MakeVariant(c.theirs))
	}
}

// Whatever the annotation says, the message made of it is one that others understand.
func FuzzParseProperty(f *testing.F) {
	for _, s := range []string{"true", "uint64 5", "['a', \"b\"]", "@at [1]", `'\u00e4'`, "[1, 2.5]", "@as []"} {
		f.Add("TimeoutStopSec", s)
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		p, err := ParseProperty(name, text)
		if err != nil {
			if !strings.Contains(err.Error(), Annotation+name) {
				t.Errorf("%v does not name the annotation", err)
			}
			return
		}
		b := encode(1, managerPath, managerIface, "X", []any{pairs([]Property{p})})
		m, err := dbus.DecodeMessage(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := m.IsValid(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		_ = p.String()
	})
}
