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

// ParseProperty takes the value of an annotation org.systemd.property.NAME: text of
// GVariant, as gdbus and busctl users know it: true, 5, uint64 5, 'text', ['a', 'b'].
// A name in seconds (TimeoutStopSec) becomes systemd's in microseconds (TimeoutStopUSec).
func ParseProperty(name, gvariant string) (Property, error) {
	fail := func(err error) (Property, error) {
		return Property{}, fmt.Errorf("annotation %s%s: %w", Annotation, name, err)
	}
	if err := checkProperty(name); err != nil {
		return fail(err)
	}
	value, err := parseVariant(gvariant)
	if err != nil {
		return fail(fmt.Errorf("%q: %w", gvariant[:min(len(gvariant), 100)], err))
	}
	stem, ok := strings.CutSuffix(name, "Sec")
	if !ok || stem[len(stem)-1] < 'a' || stem[len(stem)-1] > 'z' {
		return Property{Name: name, Value: value}, nil
	}
	usec, err := microseconds(value)
	if err != nil {
		return fail(err)
	}
	return Property{Name: stem + "USec", Value: usec}, nil
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

// microseconds makes them of seconds.
func microseconds(v any) (uint64, error) {
	var seconds float64
	switch v := v.(type) {
	case byte:
		seconds = float64(v)
	case int16:
		seconds = float64(v)
	case uint16:
		seconds = float64(v)
	case int32:
		seconds = float64(v)
	case uint32:
		seconds = float64(v)
	case int64:
		seconds = float64(v)
	case uint64:
		seconds = float64(v)
	case float64:
		seconds = v
	default:
		return 0, errors.New("is not a number of seconds; write for example 5 or 0.5")
	}
	if !(seconds >= 0 && seconds < math.MaxInt64/1e6) {
		return 0, fmt.Errorf("%v is not a number of seconds; write 0 or more", v)
	}
	return uint64(math.Round(seconds * 1e6)), nil
}

// node is a value before its type is known: that of a number may come from a sibling.
type node struct {
	kind  byte   // b n s y: boolean, number, text, bytes; [ ( < what holds others
	typ   string // D-Bus signature if it was written before the value
	text  string
	items []node
}

const maxDepth, maxText = 16, 64 << 10

// parseVariant reads one value of GVariant's text format, except dictionaries and maybes.
func parseVariant(text string) (any, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("has more than %d bytes", maxText)
	}
	p := parser{rest: text}
	n, err := p.node(0)
	if err == nil && p.peek() != 0 {
		err = fmt.Errorf("unexpected %.20q after the value", p.rest)
	}
	if err != nil {
		return nil, err
	}
	sig, _, err := n.infer()
	if err != nil {
		return nil, err
	}
	v, err := n.build(sig)
	return v, err
}

type parser struct{ rest string }

// peek is the next byte that is not white space, 0 at the end.
func (p *parser) peek() byte {
	p.rest = strings.TrimLeft(p.rest, " \t\n\r")
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

// word takes what looks like a keyword, type or number.
func (p *parser) word() string {
	p.peek()
	end := strings.IndexAny(p.rest, " \t\n\r,'\"[]()<>{}@")
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

const examples = `; write for example 'text', true, 5, uint64 5 or ['a', 'b']`

func (p *parser) node(depth int) (node, error) {
	if depth > maxDepth {
		return node{}, errors.New("is nested too deeply")
	}
	switch c := p.peek(); c {
	case 0:
		return node{}, errors.New("ends where a value was expected" + examples)
	case '\'', '"':
		s, err := p.quoted()
		return node{kind: 's', text: s}, err
	case '[':
		return p.items('[', ']', depth)
	case '(':
		return p.items('(', ')', depth)
	case '<':
		return p.items('<', '>', depth)
	case '{':
		return node{}, errors.New("is a dictionary, which no property takes")
	case '@':
		p.rest = p.rest[1:]
		return p.typed(p.typeString(), depth)
	}
	if strings.HasPrefix(p.rest, "b'") || strings.HasPrefix(p.rest, `b"`) {
		p.rest = p.rest[1:]
		s, err := p.quoted()
		return node{kind: 'y', text: s}, err
	}
	w := p.word()
	switch {
	case w == "true" || w == "false":
		return node{kind: 'b', text: w}, nil
	case keyword(w) != "":
		return p.typed(keyword(w), depth)
	case w == "inf", w == "nan", w != "" && strings.Contains("0123456789+-.", w[:1]):
		return node{kind: 'n', text: w}, nil
	}
	return node{}, fmt.Errorf("%.20q is not a value%s", w+p.rest, examples)
}

// typed reads a value whose type was written before it.
func (p *parser) typed(sig string, depth int) (node, error) {
	if !single(sig) {
		return node{}, fmt.Errorf("%.20q is not a type; write for example @as", sig)
	}
	n, err := p.node(depth + 1)
	if err == nil && n.typ != "" && n.typ != sig {
		err = fmt.Errorf("is of type %q and %q", sig, n.typ)
	}
	n.typ = sig
	return n, err
}

// keyword is the type that a word stands for.
func keyword(w string) string {
	switch w {
	case "boolean":
		return "b"
	case "byte":
		return "y"
	case "int16":
		return "n"
	case "uint16":
		return "q"
	case "int32":
		return "i"
	case "uint32":
		return "u"
	case "int64":
		return "x"
	case "uint64":
		return "t"
	case "double":
		return "d"
	case "string":
		return "s"
	case "objectpath":
		return "o"
	case "signature":
		return "g"
	}
	return ""
}

// typeString takes a type after "@", which may have parentheses.
func (p *parser) typeString() string {
	end := 0
	for end < len(p.rest) && strings.IndexByte("ybnqiuxtdsogva()", p.rest[end]) >= 0 {
		end++
		if single(p.rest[:end]) {
			break
		}
	}
	sig := p.rest[:end]
	p.rest = p.rest[end:]
	return sig
}

// single says that sig is one complete type.
func single(sig string) bool {
	rest, ok := skip(sig, 0)
	return ok && rest == ""
}

// skip takes the first complete type off sig.
func skip(sig string, depth int) (rest string, ok bool) {
	if sig == "" || depth > maxDepth {
		return "", false
	}
	switch sig[0] {
	case 'a':
		return skip(sig[1:], depth+1)
	case '(':
		rest = sig[1:]
		for ok = true; ok && rest != "" && rest[0] != ')'; {
			rest, ok = skip(rest, depth+1)
		}
		if !ok || rest == "" || rest == sig[1:] {
			return "", false
		}
		return rest[1:], true
	}
	return sig[1:], strings.IndexByte("ybnqiuxtdsogv", sig[0]) >= 0
}

// items reads what is between brackets.
func (p *parser) items(open, end byte, depth int) (node, error) {
	n := node{kind: open}
	p.rest = p.rest[1:]
	for p.peek() != end {
		item, err := p.node(depth + 1)
		if err != nil {
			return n, err
		}
		n.items = append(n.items, item)
		switch c := p.peek(); {
		case c == ',' && open != '<':
			p.rest = p.rest[1:]
		case c != end:
			return n, fmt.Errorf("%.20q where %q or a comma was expected", p.rest, end)
		}
	}
	p.rest = p.rest[1:]
	switch {
	case open == '<' && len(n.items) != 1, open == '(' && len(n.items) == 0:
		return n, fmt.Errorf(`holds nothing between %q and %q`, open, end)
	}
	return n, nil
}

// quoted reads a string with escapes.
func (p *parser) quoted() (string, error) {
	quote := p.rest[0]
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		c := p.rest[i]
		if c == quote {
			s := b.String()
			p.rest = p.rest[i+1:]
			if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
				return "", errors.New("holds bytes that a string cannot have")
			}
			return s, nil
		}
		if c != '\\' {
			b.WriteByte(c)
			continue
		}
		r, n, err := escape(p.rest[i+1:])
		if err != nil {
			return "", err
		}
		b.WriteRune(r)
		i += n
	}
	return "", fmt.Errorf("lacks the closing %c", quote)
}

// escape reads what follows a backslash.
func escape(s string) (r rune, n int, err error) {
	if s == "" {
		return 0, 0, errors.New("ends in a backslash")
	}
	digits := 0
	switch s[0] {
	case 'a':
		return '\a', 1, nil
	case 'b':
		return '\b', 1, nil
	case 'f':
		return '\f', 1, nil
	case 'n':
		return '\n', 1, nil
	case 'r':
		return '\r', 1, nil
	case 't':
		return '\t', 1, nil
	case 'v':
		return '\v', 1, nil
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	case '\\', '\'', '"':
		return rune(s[0]), 1, nil
	}
	if digits == 0 || len(s) <= digits {
		return 0, 0, fmt.Errorf(`\%c is not an escape`, s[0])
	}
	code, err := strconv.ParseUint(s[1:1+digits], 16, 31)
	if err != nil || !utf8.ValidRune(rune(code)) {
		return 0, 0, fmt.Errorf(`\%s is not a character`, s[:1+digits])
	}
	return rune(code), 1 + digits, nil
}

// infer finds the type; weak says that a number was not told its own.
func (n node) infer() (sig string, weak bool, err error) {
	if n.typ != "" {
		return n.typ, false, nil
	}
	switch n.kind {
	case 'b':
		return "b", false, nil
	case 's':
		return "s", false, nil
	case 'y':
		return "ay", false, nil
	case '<':
		return "v", false, nil
	case 'n':
		if isFloat(n.text) {
			return "d", true, nil
		}
		return "i", true, nil
	case '(':
		return n.inferTuple()
	}
	return n.inferArray()
}

// isFloat knows numbers that no integer type takes.
func isFloat(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return !strings.HasPrefix(s, "0x") && strings.ContainsAny(s, ".eEn")
}

func (n node) inferTuple() (sig string, weak bool, err error) {
	for _, item := range n.items {
		s, w, err := item.infer()
		if err != nil {
			return "", false, err
		}
		sig, weak = sig+s, weak || w
	}
	return "(" + sig + ")", weak, nil
}

// inferArray: one item that knows its type speaks for all; of numbers that do not, one
// with a fraction.
func (n node) inferArray() (sig string, weak bool, err error) {
	weak = true
	for _, item := range n.items {
		s, w, err := item.infer()
		if err != nil {
			return "", false, err
		}
		if sig == "" || weak && (!w || s == "d") {
			sig, weak = s, w
		}
	}
	if sig == "" {
		return "", false, errors.New("is an empty list without a type; write for example @as []")
	}
	return "a" + sig, weak, nil
}

// build makes the value of the type, which the text must fit.
func (n node) build(sig string) (any, error) {
	switch {
	case n.typ != "" && n.typ != sig:
	case sig == "v" && n.kind == '<':
		inner, _, err := n.items[0].infer()
		if err != nil {
			return nil, err
		}
		v, err := n.items[0].build(inner)
		return variant{v}, err
	case sig == "ay" && n.kind == 'y':
		// With the zero at the end, as in GVariant.
		a := array{item: "y"}
		for i := range len(n.text) {
			a.items = append(a.items, n.text[i])
		}
		a.items = append(a.items, byte(0))
		return a, nil
	case sig[0] == 'a' && n.kind == '[':
		return n.buildArray(sig[1:])
	case sig[0] == '(' && n.kind == '(':
		return n.buildTuple(sig[1 : len(sig)-1])
	case sig == "b" && n.kind == 'b':
		return n.text == "true", nil
	case sig == "s" && n.kind == 's':
		return n.text, nil
	case sig == "o" && n.kind == 's':
		return objectPath(n.text), checkObject(n.text)
	case sig == "g" && n.kind == 's':
		return typeString(n.text), checkTypes(n.text)
	case n.kind == 'n':
		return n.number(sig)
	}
	return nil, fmt.Errorf("%.20q is not of type %q", n.text, sig)
}

func (n node) buildArray(item string) (any, error) {
	a := array{item: item}
	for _, i := range n.items {
		v, err := i.build(item)
		if err != nil {
			return nil, err
		}
		a.items = append(a.items, v)
	}
	return a, nil
}

func (n node) buildTuple(sigs string) (any, error) {
	var t tuple
	for _, i := range n.items {
		rest, ok := skip(sigs, 0)
		if !ok {
			return nil, errors.New("has more parts than its type")
		}
		v, err := i.build(sigs[:len(sigs)-len(rest)])
		if err != nil {
			return nil, err
		}
		t, sigs = append(t, v), rest
	}
	if sigs != "" {
		return nil, errors.New("has fewer parts than its type")
	}
	return t, nil
}

func (n node) number(sig string) (any, error) {
	text := strings.TrimPrefix(n.text, "+")
	if strings.Contains(text, "_") {
		return nil, n.misfit(strconv.ErrSyntax, sig)
	}
	switch sig {
	case "d":
		v, err := strconv.ParseFloat(text, 64)
		return v, n.misfit(err, sig)
	case "n":
		v, err := strconv.ParseInt(text, 0, 16)
		return int16(v), n.misfit(err, sig)
	case "i":
		v, err := strconv.ParseInt(text, 0, 32)
		return int32(v), n.misfit(err, sig)
	case "x":
		v, err := strconv.ParseInt(text, 0, 64)
		return v, n.misfit(err, sig)
	case "y":
		v, err := strconv.ParseUint(text, 0, 8)
		return byte(v), n.misfit(err, sig)
	case "q":
		v, err := strconv.ParseUint(text, 0, 16)
		return uint16(v), n.misfit(err, sig)
	case "u":
		v, err := strconv.ParseUint(text, 0, 32)
		return uint32(v), n.misfit(err, sig)
	case "t":
		v, err := strconv.ParseUint(text, 0, 64)
		return v, n.misfit(err, sig)
	}
	return nil, fmt.Errorf("%s is not of type %q", n.text, sig)
}

func (n node) misfit(err error, sig string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s is not a number of type %q", n.text, sig)
}

// checkObject refuses a path that would end the connection: /a/b_1.
func checkObject(s string) error {
	bad := func(r rune) bool {
		return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') && r != '_' && r != '/'
	}
	if !strings.HasPrefix(s, "/") || s != "/" && strings.HasSuffix(s, "/") || strings.Contains(s, "//") || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("%q is not an object path", s)
	}
	return nil
}

// checkTypes does the same for a signature.
func checkTypes(s string) error {
	for rest, ok := s, true; rest != ""; {
		if rest, ok = skip(rest, 0); !ok || len(s) > 255 {
			return fmt.Errorf("%q is not a list of types", s)
		}
	}
	return nil
}
