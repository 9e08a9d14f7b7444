package systemd

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"unicode/utf8"
)

// The D-Bus wire format, as far as a client of systemd needs it: all types can be
// sent, since properties come in many; only strings, paths and numbers are ever read.
//
// Values are bool, byte, int16 … uint64, float64, string, and these:
type (
	objectPath string // o
	typeString string // g
	variant    struct{ value any }
	tuple      []any // a struct
	// array knows the type of its items since it may be empty.
	array struct {
		item  string
		items []any
	}
)

// signature is the D-Bus type of v.
func signature(v any) string {
	switch v := v.(type) {
	case bool:
		return "b"
	case byte:
		return "y"
	case int16:
		return "n"
	case uint16:
		return "q"
	case int32:
		return "i"
	case uint32:
		return "u"
	case int64:
		return "x"
	case uint64:
		return "t"
	case float64:
		return "d"
	case string:
		return "s"
	case objectPath:
		return "o"
	case typeString:
		return "g"
	case variant:
		return "v"
	case array:
		return "a" + v.item
	case tuple:
		return "(" + signatures(v) + ")"
	}
	panic("systemd: a value without a D-Bus type")
}

func signatures(values []any) string {
	var all strings.Builder
	for _, v := range values {
		all.WriteString(signature(v))
	}
	return all.String()
}

// alignment of the type that sig begins with.
func alignment(sig byte) int {
	switch sig {
	case 'n', 'q':
		return 2
	case 'b', 'i', 'u', 's', 'o', 'a':
		return 4
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 1 // y g v
}

// encoder appends values; offsets count from the beginning of its bytes.
type encoder struct{ b []byte }

var order = binary.LittleEndian

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) u32(n uint32) { e.align(4); e.b = order.AppendUint32(e.b, n) }
func (e *encoder) u64(n uint64) { e.align(8); e.b = order.AppendUint64(e.b, n) }

func (e *encoder) u16(n uint16) { e.align(2); e.b = order.AppendUint16(e.b, n) }

func (e *encoder) str(s string) {
	e.u32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) sig(s string) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

func (e *encoder) all(values []any) {
	for _, v := range values {
		e.value(v)
	}
}

func (e *encoder) value(v any) {
	switch v := v.(type) {
	case bool:
		n := uint32(0)
		if v {
			n = 1
		}
		e.u32(n)
	case byte:
		e.b = append(e.b, v)
	case int16:
		e.u16(uint16(v))
	case uint16:
		e.u16(v)
	case int32:
		e.u32(uint32(v))
	case uint32:
		e.u32(v)
	case int64:
		e.u64(uint64(v))
	case uint64:
		e.u64(v)
	case float64:
		e.u64(math.Float64bits(v))
	case string:
		e.str(v)
	case objectPath:
		e.str(string(v))
	case typeString:
		e.sig(string(v))
	case variant:
		e.sig(signature(v.value))
		e.value(v.value)
	case tuple:
		e.align(8)
		e.all(v)
	case array:
		e.array(v)
	}
}

// array writes the length in front; the padding before the first item is not counted.
func (e *encoder) array(a array) {
	e.u32(0)
	at := len(e.b) - 4
	e.align(alignment(a.item[0]))
	start := len(e.b)
	e.all(a.items)
	order.PutUint32(e.b[at:], uint32(len(e.b)-start))
}

var errMalformed = errors.New("malformed D-Bus message")

// decoder takes values from bytes that a hostile peer may have made. After the first
// mistake it yields zero values; err tells.
type decoder struct {
	b   []byte
	off int
	err error
}

func (d *decoder) fail() { d.err = errMalformed }

// take is the next n bytes, aligned; padding must be zero.
func (d *decoder) take(n, align int) []byte {
	for d.err == nil && d.off%align != 0 {
		if d.off >= len(d.b) || d.b[d.off] != 0 {
			d.fail()
		}
		d.off++
	}
	if d.err != nil || n > len(d.b)-d.off {
		d.fail()
		return nil
	}
	d.off += n
	return d.b[d.off-n : d.off]
}

func (d *decoder) byte() byte {
	if b := d.take(1, 1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4, 4); b != nil {
		return order.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8, 8); b != nil {
		return order.Uint64(b)
	}
	return 0
}

func (d *decoder) str() string { return d.text(uint64(d.u32())) }
func (d *decoder) sig() string { return d.text(uint64(d.byte())) }

// text is a string of n bytes and the zero after it.
func (d *decoder) text(n uint64) string {
	if n >= uint64(len(d.b)) {
		d.fail()
	}
	b := d.take(int(n)+1, 1)
	if b == nil {
		return ""
	}
	s := string(b[:n])
	if b[n] != 0 || strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		d.fail()
		return ""
	}
	return s
}

// variant is the value of a variant that holds a basic type, which is all that we ask
// for; numbers come as uint64.
func (d *decoder) variant() (sig string, text string, number uint64) {
	switch sig = d.sig(); sig {
	case "s", "o":
		text = d.str()
	case "g":
		text = d.sig()
	case "y":
		number = uint64(d.byte())
	case "b", "i", "u":
		number = uint64(d.u32())
	case "t", "x":
		number = d.u64()
	default:
		d.fail()
	}
	return sig, text, number
}
