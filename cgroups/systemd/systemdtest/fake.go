// Package systemdtest is a systemd for tests. It lives in a goroutine and does what it
// is told, wrong things too. It reads and writes messages with another implementation of
// D-Bus, so that ours cannot agree with itself in a mistake.
package systemdtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// The names of systemd on the bus, and the job by which the fake starts units.
const (
	path  = "/org/freedesktop/systemd1"
	iface = "org.freedesktop.systemd1.Manager"

	Job     = path + "/job/42"
	stopJob = path + "/job/43"
)

// Fake is a systemd. Its fields are to be set before anybody connects.
type Fake struct {
	Path string // of the socket
	Bus  bool   // it is a message bus with systemd on it
	Slow bool   // it writes a byte at a time
	Auth string // what it answers to who connects

	Root string // the manager's own cgroup
	// Started makes the cgroup of a unit, if there is to be one.
	Started func(unit string, props map[string]dbus.Variant) (cgroup string)
	Stopped func(u *Unit)

	Mu     sync.Mutex
	Units  map[string]*Unit
	Failed []string // names of units that are remembered as failed
	calls  []string
	on     map[string]func(p *Peer, m *dbus.Message)
	t      testing.TB
}

// Unit is one that was started.
type Unit struct {
	Props  map[string]dbus.Variant
	PID    uint32
	Cgroup string
}

// Peer is a connection to the fake.
type Peer struct {
	*Fake
	Conn   net.Conn
	serial uint32
}

// New makes a fake; Serve lets it begin.
func New(t testing.TB, socket string, bus bool) *Fake {
	return &Fake{
		Path: socket, Bus: bus, Auth: "DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n",
		Units: map[string]*Unit{}, on: map[string]func(*Peer, *dbus.Message){}, t: t,
		Started: func(unit string, _ map[string]dbus.Variant) string { return "/system.slice/" + unit },
		Stopped: func(*Unit) {},
	}
}

// Listen makes the socket and serves it until the end of the test.
func (f *Fake) Listen() {
	f.t.Helper()
	l, err := net.Listen("unix", f.Path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Serve(l)
}

// Serve takes connections until the end of the test.
func (f *Fake) Serve(l net.Listener) {
	var all sync.WaitGroup
	f.t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.t.Cleanup(func() { conn.Close() })
			all.Go(func() { (&Peer{Fake: f, Conn: conn}).talk() })
		}
	})
}

// Calls are the members of the calls so far, in order.
func (f *Fake) Calls() []string {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return slices.Clone(f.calls)
}

// Handle sets who answers calls of member instead of the fake itself, or nil.
func (f *Fake) Handle(member string, on func(p *Peer, m *dbus.Message)) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.on[member] = on
}

func (p *Peer) talk() {
	defer p.Conn.Close()
	r := bufio.NewReader(p.Conn)
	for _, want := range []string{"\x00AUTH EXTERNAL\r\n", "DATA\r\n", "BEGIN\r\n"} {
		if line, err := r.ReadString('\n'); err != nil || line != want {
			if err == nil {
				p.t.Errorf("client says %q, want %q", line, want)
			}
			return
		}
	}
	p.Write([]byte(p.Auth))
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

func (p *Peer) handle(m *dbus.Message) {
	member := header(m, dbus.FieldMember)
	p.Mu.Lock()
	p.calls = append(p.calls, member)
	on := p.on[member]
	p.Mu.Unlock()
	if on != nil {
		on(p, m)
		return
	}
	p.Answer(m)
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

// Answer does what systemd would.
func (p *Peer) Answer(m *dbus.Message) {
	name, _ := append(m.Body, "")[0].(string)
	p.Mu.Lock()
	defer p.Mu.Unlock()
	switch header(m, dbus.FieldMember) {
	case "Hello":
		p.Reply(m, ":1.7")
	case "AddMatch", "Subscribe":
		p.Reply(m)
	case "Get":
		p.get(m)
	case "GetUnitByPID":
		for name, u := range p.Units {
			if u.PID == m.Body[0].(uint32) {
				p.Reply(m, dbus.ObjectPath(object(name)))
				return
			}
		}
		p.Fail(m, "org.freedesktop.systemd1.NoUnitForPID", "none")
	case "StartTransientUnit":
		if p.Units[name] != nil || slices.Contains(p.Failed, name) {
			p.Fail(m, "org.freedesktop.systemd1.UnitExists", "Unit "+name+" was already loaded or has a fragment file.")
			return
		}
		p.Add(m)
		p.Reply(m, dbus.ObjectPath(Job))
		p.Removed(Job, name, "done")
	case "AttachProcessesToUnit":
		if p.Units[name] == nil {
			p.Fail(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
			return
		}
		p.Units[name].PID = m.Body[2].([]uint32)[0]
		p.Reply(m)
	case "SetUnitProperties":
		u := p.Units[name]
		if u == nil {
			p.Fail(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
			return
		}
		for k, v := range Props(m.Body[2]) {
			u.Props[k] = v
		}
		p.Reply(m)
	case "StopUnit":
		u := p.Units[name]
		if u == nil {
			p.Fail(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
			return
		}
		p.Stopped(u)
		delete(p.Units, name)
		// The job can be done before it is talked of.
		p.Removed(stopJob, name, "done")
		p.Reply(m, dbus.ObjectPath(stopJob))
	case "ResetFailedUnit":
		i := slices.Index(p.Failed, name)
		if i < 0 && p.Units[name] == nil {
			p.Fail(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
			return
		}
		if i >= 0 {
			p.Failed = slices.Delete(p.Failed, i, i+1)
		}
		p.Reply(m)
	default:
		p.t.Errorf("unexpected call of %s", header(m, dbus.FieldMember))
	}
}

// Add makes the unit that the message asks for.
func (p *Peer) Add(m *dbus.Message) {
	u := &Unit{Props: Props(m.Body[2])}
	if pids, ok := u.Props["PIDs"].Value().([]uint32); ok {
		u.PID = pids[0]
	}
	name := m.Body[0].(string)
	u.Cgroup = p.Started(name, u.Props)
	p.Units[name] = u
}

func (p *Peer) get(m *dbus.Message) {
	unit := p.named(header(m, dbus.FieldPath))
	switch name := m.Body[1].(string); name {
	case "Version":
		p.Reply(m, dbus.MakeVariant("252.38-1~deb12u1"))
	case "ControlGroup":
		group := p.Root
		if unit != "" {
			group = p.Units[unit].Cgroup
		}
		p.Reply(m, dbus.MakeVariant(group))
	case "Job":
		p.Reply(m, dbus.MakeVariant(struct {
			ID   uint32
			Path dbus.ObjectPath
		}{0, "/"}))
	case "ActiveState":
		state := "inactive"
		if unit != "" {
			state = "active"
		}
		p.Reply(m, dbus.MakeVariant(state))
	default:
		p.Fail(m, "org.freedesktop.DBus.Error.UnknownProperty", name)
	}
}

// named is the unit of an object.
func (p *Peer) named(path string) string {
	for name := range p.Units {
		if object(name) == path {
			return name
		}
	}
	return ""
}

// object is a unit's path on the bus.
func object(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return path + "/unit/" + b.String()
}

// Props are properties in a message.
func Props(v any) map[string]dbus.Variant {
	props := map[string]dbus.Variant{}
	for _, pair := range v.([][]any) {
		props[pair[0].(string)] = pair[1].(dbus.Variant)
	}
	return props
}

// Reply answers a call.
func (p *Peer) Reply(to *dbus.Message, body ...any) {
	p.Send(dbus.TypeMethodReply, map[dbus.HeaderField]any{dbus.FieldReplySerial: to.Serial()}, body...)
}

// Fail answers a call with an error.
func (p *Peer) Fail(to *dbus.Message, name, text string) {
	p.Send(dbus.TypeError, map[dbus.HeaderField]any{dbus.FieldReplySerial: to.Serial(), dbus.FieldErrorName: name}, text)
}

// Removed says that a job has ended.
func (p *Peer) Removed(job, unit, result string) {
	p.Signal("JobRemoved", uint32(42), dbus.ObjectPath(job), unit, result)
}

// Signal tells the peer of something.
func (p *Peer) Signal(member string, body ...any) {
	p.Send(dbus.TypeSignal, map[dbus.HeaderField]any{
		dbus.FieldPath: dbus.ObjectPath(path), dbus.FieldInterface: iface, dbus.FieldMember: member,
	}, body...)
}

// Send writes a message.
func (p *Peer) Send(kind dbus.Type, headers map[dbus.HeaderField]any, body ...any) {
	if _, ok := headers[dbus.FieldSender]; !ok && p.Bus {
		headers[dbus.FieldSender] = ":1.1"
	}
	p.Write(p.encode(kind, headers, body...))
}

func (p *Peer) encode(kind dbus.Type, headers map[dbus.HeaderField]any, body ...any) []byte {
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

// Write writes bytes, which need not be a message.
func (p *Peer) Write(b []byte) {
	if !p.Slow {
		_, _ = p.Conn.Write(b)
		return
	}
	for i := range b {
		_, _ = p.Conn.Write(b[i : i+1])
		time.Sleep(10 * time.Microsecond)
	}
}
