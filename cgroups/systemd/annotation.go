package systemd

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Annotation begins the names of annotations that set properties of the unit.
const Annotation = "org.systemd.property."

// ParseProperty takes the value of an annotation org.systemd.property.NAME, text of
// GVariant as gdbus users know it: a string, truth value or number, or a list of those.
// A name in seconds (TimeoutStopSec) becomes systemd's in microseconds (TimeoutStopUSec).
func ParseProperty(name, gvariant string) (Property, error) {
	p, err := parseProperty(name, gvariant)
	if err != nil {
		err = fmt.Errorf("annotation %s%s: %w", Annotation, name, err)
	}
	return p, err
}

func parseProperty(name, text string) (Property, error) {
	if err := checkProperty(name); err != nil {
		return Property{}, err
	}
	s := scanner(text)
	value, err := s.value()
	if !utf8.ValidString(text) {
		err = errNotText
	}
	if err == nil && s.peek() != 0 {
		err = fmt.Errorf("there is more after the value: %.20q", string(s))
	}
	if err != nil {
		return Property{}, fmt.Errorf("%.100q: %w", text, err)
	}
	stem, ok := strings.CutSuffix(name, "Sec")
	if ok && stem[len(stem)-1] >= 'a' && stem[len(stem)-1] <= 'z' {
		name = stem + "USec"
		value, err = microseconds(value)
	}
	return Property{Name: name, Value: value}, err
}

// checkProperty refuses what is no name, and what would take the container out of
// husk's hands, or put others' processes into it.
func checkProperty(name string) error {
	bad := func(r rune) bool { return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') }
	switch {
	case len(name) < 4 || len(name) > 64 || name[0] < 'A' || name[0] > 'Z' || strings.ContainsFunc(name, bad):
		return errors.New("is not the name of a property; write for example " + Annotation + "TimeoutStopSec")
	case name == "PIDs", name == "PIDFDs", name == "Slice", strings.HasPrefix(name, "Delegate"):
		return errors.New("is under husk's control; remove it (cgroupsPath chooses the slice)")
	}
	return nil
}

// microseconds makes them of seconds, which are a number of any type.
func microseconds(v any) (uint64, error) {
	seconds, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	if _, text := v.(string); text || err != nil || !(seconds >= 0 && seconds < math.MaxInt64/1e6) {
		return 0, fmt.Errorf("%s is not a number of seconds; write for example 5 or 0.5", format(v))
	}
	return uint64(math.Round(seconds * 1e6)), nil
}

var errNotText = errors.New("a string holds bytes that it cannot have")

// scanner is the text that is still to be read.
type scanner string

// literal is a value before its type is certain: in a list all items have that which one
// of them was given.
type literal struct {
	sig  string // the type if it was written before the value
	kind byte   // that of the text: s, b, or i and d for numbers
	text string
}

const examples = `; write for example 'text', true, 5, uint64 5 or ['a', 'b']`

// peek is the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	*s = scanner(strings.TrimLeft(string(*s), " \t\n\r"))
	if *s == "" {
		return 0
	}
	return (*s)[0]
}

// take says whether c came next.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	*s = (*s)[1:]
	return true
}

// word takes what looks like a keyword, type or number.
func (s *scanner) word() string {
	s.peek()
	end := strings.IndexAny(string(*s), " \t\n\r,'\"[](){}<>@")
	if end < 0 {
		end = len(*s)
	}
	w := string((*s)[:end])
	*s = (*s)[end:]
	return w
}

func (s *scanner) value() (any, error) {
	sig := ""
	if s.take('@') {
		sig = s.word()
	}
	if !s.take('[') {
		l, err := s.literal()
		if err != nil {
			return nil, err
		}
		if sig == "" {
			sig = typeOf(l)
		}
		return l.value(sig)
	}
	var items []literal
	for !s.take(']') {
		l, err := s.literal()
		if err != nil {
			return nil, err
		}
		items = append(items, l)
		if !s.take(',') && s.peek() != ']' {
			return nil, fmt.Errorf("a comma or ] is missing before %.20q", string(*s))
		}
	}
	if sig == "" {
		sig = "a" + typeOf(items...)
	}
	return listOf(sig, items)
}

func listOf(sig string, items []literal) (any, error) {
	item, ok := strings.CutPrefix(sig, "a")
	switch {
	case item == "":
		return nil, errors.New("an empty list has no type; write for example @as []")
	case !ok || len(item) != 1 || !strings.Contains("bynqiuxtds", item):
		return nil, fmt.Errorf("%q is not the type of a list; write for example @as", sig)
	}
	a := array{item: item}
	for _, l := range items {
		v, err := l.value(item)
		if err != nil {
			return nil, err
		}
		a.items = append(a.items, v)
	}
	return a, nil
}

// typeOf is the type that one of the items was given; or else that of the first, though
// a number with a fraction speaks for those without.
func typeOf(items ...literal) (sig string) {
	for _, l := range items {
		if l.sig != "" {
			return l.sig
		}
		if sig == "" || sig == "i" {
			sig = string(l.kind)
		}
	}
	return sig
}

func (s *scanner) literal() (literal, error) {
	if q := s.peek(); q == '\'' || q == '"' {
		text, err := s.quoted(q)
		return literal{kind: 's', text: text}, err
	}
	switch w := s.word(); {
	case w == "true" || w == "false":
		return literal{kind: 'b', text: w}, nil
	case keyword(w) != "":
		l, err := s.literal()
		if err == nil && l.sig != "" {
			err = fmt.Errorf("%s comes after another type", l.sig)
		}
		l.sig = keyword(w)
		return l, err
	case w != "" && strings.Contains("0123456789+-.", w[:1]):
		if !strings.HasPrefix(strings.TrimLeft(w, "+-"), "0x") && strings.ContainsAny(w, ".eE") {
			return literal{kind: 'd', text: w}, nil
		}
		return literal{kind: 'i', text: w}, nil
	default:
		return literal{}, fmt.Errorf("%.20q is not a value%s", w+string(*s), examples)
	}
}

// quoted reads a string; its escapes are Go's, which include GVariant's.
func (s *scanner) quoted(q byte) (string, error) {
	var b strings.Builder
	for rest := string((*s)[1:]); rest != ""; {
		if rest[0] == q {
			*s = scanner(rest[1:])
			if !utf8.ValidString(b.String()) || strings.IndexByte(b.String(), 0) >= 0 {
				return "", errNotText
			}
			return b.String(), nil
		}
		r, multibyte, tail, err := strconv.UnquoteChar(rest, q)
		if err != nil {
			return "", fmt.Errorf("%.10q is not an escape", rest)
		}
		if r < utf8.RuneSelf || multibyte {
			b.WriteRune(r)
		} else {
			b.WriteByte(byte(r))
		}
		rest = tail
	}
	return "", fmt.Errorf("a string lacks the closing %c", q)
}

// keyword is the type that a word stands for.
func keyword(w string) string {
	words := []string{"b", "boolean", "y", "byte", "n", "int16", "q", "uint16", "i", "int32", "u", "uint32", "x", "int64", "t", "uint64", "d", "double", "s", "string"}
	for i := 1; i < len(words); i += 2 {
		if words[i] == w {
			return words[i-1]
		}
	}
	return ""
}

// value makes the value of the type, which the text must fit.
func (l literal) value(sig string) (v any, err error) {
	text := strings.TrimPrefix(l.text, "+")
	integer := func(bits int) (n int64) { n, err = strconv.ParseInt(text, 0, bits); return n }
	natural := func(bits int) (n uint64) { n, err = strconv.ParseUint(text, 0, bits); return n }
	number := l.kind == 'i' && !strings.Contains(text, "_")
	switch {
	case l.sig != "" && l.sig != sig:
		err = strconv.ErrSyntax
	case sig == "s" && l.kind == 's':
		v = l.text
	case sig == "b" && l.kind == 'b':
		v = l.text == "true"
	case sig == "d" && (number || l.kind == 'd'):
		v, err = strconv.ParseFloat(text, 64)
	case sig == "y" && number:
		v = byte(natural(8))
	case sig == "n" && number:
		v = int16(integer(16))
	case sig == "q" && number:
		v = uint16(natural(16))
	case sig == "i" && number:
		v = int32(integer(32))
	case sig == "u" && number:
		v = uint32(natural(32))
	case sig == "x" && number:
		v = integer(64)
	case sig == "t" && number:
		v = natural(64)
	default:
		err = strconv.ErrSyntax
	}
	if err != nil {
		return nil, fmt.Errorf("%.20q is not a value of type %q%s", l.text, sig, examples)
	}
	return v, nil
}
