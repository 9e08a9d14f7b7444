package systemd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// fake is a systemd that lives in a goroutine. It reads and writes messages with another
// implementation of D-Bus, so that ours cannot agree with itself in a mistake.
type fake struct {
	t    *testing.T
	addr address

	mu    sync.Mutex
	calls []string // members of the calls, in order
	units map[string]*fakeUnit
	// on answers calls of a member instead of the fake's own way.
	on map[string]func(p *peer, m *dbus.Message)
	// slow writes a byte at a time.
	slow bool
	auth string
	dead []string // units that are remembered as failed
}

type fakeUnit struct {
	props map[string]dbus.Variant
	pid   uint32
}

type peer struct {
	*fake
	conn   net.Conn
	serial uint32
}

func newFake(t *testing.T, bus bool) *fake {
	f := &fake{
		t: t, addr: address{filepath.Join(t.TempDir(), "private"), bus}, units: map[string]*fakeUnit{},
		on: map[string]func(*peer, *dbus.Message){}, auth: "DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n",
	}
	l, err := net.Listen("unix", f.addr.path)
	must(t, err)
	f.serve(l)
	return f
}

func (f *fake) serve(l net.Listener) {
	t := f.t
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			all.Go(func() { (&peer{fake: f, conn: conn}).talk() })
		}
	}()
}

// connect gives a manager whose patience fits a test.
func (f *fake) connect() *Manager {
	f.t.Helper()
	m, err := connect([]address{f.addr}, 5*time.Second)
	if err != nil {
		f.t.Fatal(err)
	}
	m.patience, m.undo = 5*time.Second, time.Second
	f.t.Cleanup(m.Close)
	return m
}

// handle sets who answers calls of member.
func (f *fake) handle(member string, on func(p *peer, m *dbus.Message)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on[member] = on
}

func (p *peer) talk() {
	defer p.conn.Close()
	r := bufio.NewReader(p.conn)
	for _, want := range []string{"\x00AUTH EXTERNAL\r\n", "DATA\r\n", "BEGIN\r\n"} {
		if line, err := r.ReadString('\n'); err != nil || line != want {
			if err == nil {
				p.t.Errorf("client says %q, want %q", line, want)
			}
			return
		}
	}
	p.write([]byte(p.auth))
	for {
		m, err := dbus.DecodeMessage(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				p.t.Errorf("client sends what another implementation does not understand: %v", err)
			}
			return
		}
		if err := m.IsValid(); err != nil {
			p.t.Error(err)
		}
		p.handle(m)
	}
}

func (p *peer) handle(m *dbus.Message) {
	member := header(m, dbus.FieldMember)
	p.mu.Lock()
	p.calls = append(p.calls, member)
	on := p.on[member]
	p.mu.Unlock()
	if on != nil {
		on(p, m)
		return
	}
	p.answer(m)
}

func header(m *dbus.Message, field dbus.HeaderField) string {
	switch v := m.Headers[field].Value().(type) {
	case string:
		return v
	case dbus.ObjectPath:
		return string(v)
	}
	return ""
}

// answer does what systemd would.
func (p *peer) answer(m *dbus.Message) {
	name, _ := append(m.Body, "")[0].(string)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch header(m, dbus.FieldMember) {
	case "Hello":
		p.reply(m, ":1.7")
	case "AddMatch", "Subscribe":
		p.reply(m)
	case "Get":
		p.get(m)
	case "GetUnitByPID":
		for name, u := range p.units {
			if u.pid == m.Body[0].(uint32) {
				p.reply(m, dbus.ObjectPath(Unit{Name: name}.object()))
				return
			}
		}
		p.fail(m, "org.freedesktop.systemd1.NoUnitForPID", "none")
	case "StartTransientUnit":
		if p.units[name] != nil || slices.Contains(p.dead, name) {
			p.fail(m, "org.freedesktop.systemd1.UnitExists", "Unit "+name+" was already loaded or has a fragment file.")
			return
		}
		p.add(m)
		p.reply(m, dbus.ObjectPath("/org/freedesktop/systemd1/job/42"))
		p.removed("/org/freedesktop/systemd1/job/42", name, "done")
	case "SetUnitProperties":
		u := p.units[name]
		if u == nil {
			p.fail(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
			return
		}
		for k, v := range decodeProps(m.Body[2]) {
			u.props[k] = v
		}
		p.reply(m)
	case "StopUnit":
		if p.units[name] == nil {
			p.fail(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
			return
		}
		delete(p.units, name)
		// The job can be done before it is talked of.
		p.removed("/org/freedesktop/systemd1/job/43", name, "done")
		p.reply(m, dbus.ObjectPath("/org/freedesktop/systemd1/job/43"))
	case "ResetFailedUnit":
		i := slices.Index(p.dead, name)
		if i < 0 && p.units[name] == nil {
			p.fail(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
			return
		}
		if i >= 0 {
			p.dead = slices.Delete(p.dead, i, i+1)
		}
		p.reply(m)
	default:
		p.t.Errorf("unexpected call of %s", header(m, dbus.FieldMember))
	}
}

func (p *peer) add(m *dbus.Message) {
	u := &fakeUnit{props: decodeProps(m.Body[2])}
	if pids, ok := u.props["PIDs"].Value().([]uint32); ok {
		u.pid = pids[0]
	}
	p.units[m.Body[0].(string)] = u
}

func (p *peer) get(m *dbus.Message) {
	object, name := header(m, dbus.FieldPath), m.Body[1].(string)
	switch name {
	case "Version":
		p.reply(m, dbus.MakeVariant("252.38-1~deb12u1"))
	case "ControlGroup":
		if object == managerPath {
			p.reply(m, dbus.MakeVariant("/user.slice/user-7.slice/user@7.service"))
			return
		}
		p.reply(m, dbus.MakeVariant("/system.slice/"+p.named(object)))
	case "Job":
		p.reply(m, dbus.MakeVariant(struct {
			ID   uint32
			Path dbus.ObjectPath
		}{0, "/"}))
	case "ActiveState":
		state := "inactive"
		if p.named(object) != "" {
			state = "active"
		}
		p.reply(m, dbus.MakeVariant(state))
	default:
		p.fail(m, "org.freedesktop.DBus.Error.UnknownProperty", name)
	}
}

func (p *peer) named(object string) string {
	for name := range p.units {
		if (Unit{Name: name}).object() == object {
			return name
		}
	}
	return ""
}

func decodeProps(v any) map[string]dbus.Variant {
	props := map[string]dbus.Variant{}
	for _, pair := range v.([][]any) {
		props[pair[0].(string)] = pair[1].(dbus.Variant)
	}
	return props
}

func (p *peer) reply(to *dbus.Message, body ...any) {
	p.send(dbus.TypeMethodReply, map[dbus.HeaderField]any{dbus.FieldReplySerial: to.Serial()}, body...)
}

func (p *peer) fail(to *dbus.Message, name, text string) {
	p.send(dbus.TypeError, map[dbus.HeaderField]any{dbus.FieldReplySerial: to.Serial(), dbus.FieldErrorName: name}, text)
}

func (p *peer) removed(job, unit, result string) {
	p.signal("JobRemoved", uint32(42), dbus.ObjectPath(job), unit, result)
}

func (p *peer) signal(member string, body ...any) {
	p.send(dbus.TypeSignal, map[dbus.HeaderField]any{
		dbus.FieldPath: dbus.ObjectPath(managerPath), dbus.FieldInterface: managerIface, dbus.FieldMember: member,
	}, body...)
}

func (p *peer) send(kind dbus.Type, headers map[dbus.HeaderField]any, body ...any) {
	if _, ok := headers[dbus.FieldSender]; !ok && p.addr.bus {
		headers[dbus.FieldSender] = ":1.1"
	}
	p.write(p.encode(kind, headers, body...))
}

func (p *peer) encode(kind dbus.Type, headers map[dbus.HeaderField]any, body ...any) []byte {
	p.serial++
	m := &dbus.Message{Type: kind, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{}}
	for k, v := range headers {
		m.Headers[k] = dbus.MakeVariant(v)
	}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		p.t.Error(err)
	}
	out := b.Bytes()
	binary.LittleEndian.PutUint32(out[8:], p.serial) // only its own connections set it
	return out
}

func (p *peer) write(b []byte) {
	if !p.slow {
		_, _ = p.conn.Write(b)
		return
	}
	for i := range b {
		_, _ = p.conn.Write(b[i : i+1])
		time.Sleep(10 * time.Microsecond)
	}
}
