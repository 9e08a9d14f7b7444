package systemd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Kinds of messages and the fields of their header (D-Bus specification, "Message Protocol").
const (
	kindCall   = 1
	kindReturn = 2
	kindError  = 3
	kindSignal = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldError       = 4
	fieldReply       = 5
	fieldDestination = 6
	fieldSender      = 7
	fieldSignature   = 8
)

// What we accept from the peer. systemd tells every client of its private socket about
// every unit that changes, so long messages are no attack, but none that we need is long.
const (
	maxHeader  = 64 << 10
	maxBody    = 64 << 10  // longer bodies are passed over
	maxMessage = 128 << 20 // what D-Bus allows
)

// message is one that was received.
type message struct {
	kind      byte
	reply     uint32 // serial of the call that this answers
	path      string
	iface     string
	member    string
	errorName string
	sender    string
	signature string
	body      []byte
	long      bool // the body was passed over
}

// encode makes the message of a method call.
func encode(serial uint32, path, iface, member string, args []any) []byte {
	var body encoder
	body.all(args)
	fields := array{item: "(yv)", items: []any{
		tuple{byte(fieldPath), variant{objectPath(path)}},
		tuple{byte(fieldInterface), variant{iface}},
		tuple{byte(fieldMember), variant{member}},
		tuple{byte(fieldDestination), variant{destination(iface)}},
	}}
	if len(args) > 0 {
		fields.items = append(fields.items, tuple{byte(fieldSignature), variant{typeString(signatures(args))}})
	}
	e := encoder{b: []byte{'l', kindCall, 0, 1}}
	e.u32(uint32(len(body.b)))
	e.u32(serial)
	e.array(fields)
	e.align(8)
	return append(e.b, body.b...)
}

// read receives one message. An error leaves the stream where nobody can go on.
func read(r *bufio.Reader) (*message, error) {
	var fixed [16]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return nil, err
	}
	if fixed[0] != 'l' || fixed[3] != 1 {
		return nil, fmt.Errorf("%w: begins with % x", errMalformed, fixed[:4])
	}
	m := &message{kind: fixed[1]}
	body, fields := order.Uint32(fixed[4:]), order.Uint32(fixed[12:])
	if fields > maxHeader || body > maxMessage {
		return nil, fmt.Errorf("%w: header of %d, body of %d bytes", errMalformed, fields, body)
	}
	header := make([]byte, (int(fields)+7)&^7)
	if err := full(r, header); err != nil {
		return nil, err
	}
	if err := m.fields(header, int(fields)); err != nil {
		return nil, err
	}
	if body > maxBody {
		m.long = true
		_, err := io.CopyN(io.Discard, r, int64(body))
		return m, cut(err)
	}
	m.body = make([]byte, body)
	return m, full(r, m.body)
}

// full fills b from r, inside of a message.
func full(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return cut(err)
}

// cut: a stream that ends inside of a message has not ended well.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fields takes n bytes of header fields. Offsets count from the length before them,
// which ends at 16, so that alignment comes out the same.
func (m *message) fields(header []byte, n int) error {
	d := decoder{b: header[:n]}
	for d.err == nil && d.off < n {
		d.take(0, 8)
		code := d.byte()
		sig, text, number := d.variant()
		want := "s"
		switch code {
		case fieldPath:
			m.path, want = text, "o"
		case fieldInterface:
			m.iface = text
		case fieldMember:
			m.member = text
		case fieldError:
			m.errorName = text
		case fieldReply:
			m.reply, want = uint32(number), "u"
		case fieldSender:
			m.sender = text
		case fieldSignature:
			m.signature, want = text, "g"
		default:
			want = sig // to be ignored
		}
		if d.err == nil && sig != want {
			d.fail()
		}
	}
	return d.err
}

// expect begins to take the body apart, which must be of this type.
func (m *message) expect(sig string) *decoder {
	d := &decoder{b: m.body}
	if m.signature != sig || m.long {
		d.err = fmt.Errorf("%w: an answer of type %q where %q was expected", errMalformed, m.signature, sig)
	}
	return d
}
