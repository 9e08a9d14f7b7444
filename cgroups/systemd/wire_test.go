package systemd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// parse reads a message as if it had come from the peer, and takes it apart as an answer.
func parse(b []byte) (*message, error) { return read(bufio.NewReader(bytes.NewReader(b))) }

func FuzzRead(f *testing.F) {
	for _, m := range []*dbus.Message{
		{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(uint32(1)), dbus.FieldSender: dbus.MakeVariant(":1.1"),
			dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf("")),
		}, Body: []any{"x"}},
		{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/")), dbus.FieldInterface: dbus.MakeVariant("a.b"), dbus.FieldMember: dbus.MakeVariant("X"),
			dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(dbus.MakeVariant(""))),
		}, Body: []any{dbus.MakeVariant("y")}},
	} {
		var b bytes.Buffer
		if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		if len(m.body) > maxBody {
			t.Error("a long body was kept")
		}
		for _, sig := range []string{"s", "o", "v", "uoss"} {
			d := m.expect(sig)
			switch sig {
			case "v":
				d.variant()
			case "uoss":
				d.u32()
				d.str()
				d.str()
				fallthrough
			default:
				if s := d.str(); strings.Contains(s, "\x00") || d.err != nil && s != "" {
					t.Errorf("string %q", s)
				}
			}
			if d.off > len(m.body) && d.err == nil {
				t.Error("beyond the end")
			}
		}
		_ = busError(m)
	})
}

// Every message cut short or with a byte changed is an error or another message, never a
// panic; cut short it is always an error.
func TestReadDamaged(t *testing.T) {
	whole := encode(1, managerPath, managerIface, "StartTransientUnit", []any{"a", uint64(5), array{item: "(sv)"}})
	if _, err := parse(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := parse(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for a message", n, len(whole))
		}
		for bit := range 8 {
			damaged := bytes.Clone(whole)
			damaged[n] ^= 1 << bit
			_, _ = parse(damaged)
		}
	}
}

func TestReadLong(t *testing.T) {
	long := encode(1, "/", busName, "X", []any{strings.Repeat("x", maxBody+1)})
	next := encode(2, "/", busName, "Y", nil)
	r := bufio.NewReader(bytes.NewReader(append(long, next...)))
	m, err := read(r)
	must(t, err)
	if !m.long || m.body != nil {
		t.Error("a long body was kept")
	}
	if _, err := m.text("s"); err == nil {
		t.Error("a body that was passed over is read")
	}
	if m, err = read(r); err != nil || m.member != "Y" {
		t.Error(m, err)
	}
}

func TestAddresses(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/r")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	if got := addresses(true); len(got) != 2 || got[0] != (address{"/r/systemd/private", false}) || got[1] != (address{"/r/bus", true}) {
		t.Error(got)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "tcp:host=x;unix:path=/a%20b,guid=1;unix:abstract=c;unix:guid=%;unix:path=%2")
	want := []address{{"/r/systemd/private", false}, {"/a b", true}, {"@c", true}, {"%2", true}}
	got := addresses(true)
	if len(got) != len(want) {
		t.Fatal(got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got[i], want[i])
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := addresses(true)[0].path; !strings.HasPrefix(got, "/run/user/") {
		t.Error(got)
	}
	if got := addresses(false)[0].path; got != "/run/systemd/private" {
		t.Error(got)
	}
}
