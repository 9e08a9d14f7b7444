package runtime

import (
	"bytes"
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Config is a bundle's configuration as it was read.
type Config struct {
	Spec *specs.Spec
	// Seccomp holds the bytes of /linux/seccomp just as they are in the file (nil
	// when absent); Spec.Linux.Seccomp stays nil. The bytes are the key of the
	// filter cache, so on a hit nobody ever decodes the profile.
	Seccomp jsontext.Value
	// Bundle is the absolute path of the bundle directory.
	Bundle string

	process jsontext.Value // the bytes of /process, for exec
	noNet   bool           // annotations make no network interfaces
}

const (
	maxConfig = 16 << 20 // bytes: a hundred times the largest config seen in the wild
	maxDepth  = 100      // levels of a value that is carried or ignored undecoded
)

// LoadSpec reads config.json of the bundle. Values of a wrong type, numbers out of
// range and strings with NUL are all reported at once as *Problems; a file that is
// not JSON ends at its first mistake. Properties that the specification does not
// know are ignored, as it demands.
func LoadSpec(bundle string) (*Config, error) { return loadSpec(bundle, nil) }

// loadSpec takes the text that is given, or else that in the bundle.
func loadSpec(bundle string, data []byte) (*Config, error) {
	dir, err := filepath.Abs(bundle)
	if err == nil && data == nil {
		data, err = readConfig(filepath.Join(dir, "config.json"))
	}
	if err != nil {
		return nil, err
	}
	c, err := decodeConfig(data)
	if err != nil {
		return nil, err
	}
	c.Bundle = dir
	return c, nil
}

// readConfig reads a regular file of bounded size. O_NONBLOCK is for a FIFO in its
// place: without it open(2) would wait for a writer. Plain system calls, because an
// os.File registers with the poller for one read.
func readConfig(path string) ([]byte, error) {
	fd, err := openPath(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	data, err := readAll(fd, maxConfig)
	if err == unix.EFBIG {
		err = fmt.Errorf("%w: at most %d MiB", err, maxConfig>>20)
	}
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

// decodeConfig decodes a whole config.json.
func decodeConfig(data []byte) (*Config, error) {
	c := &Config{Spec: &specs.Spec{}}
	d := newDecoder(data)
	d.object(specFields(c.Spec, c))
	if err := d.finish(); err != nil {
		return nil, err
	}
	if c.Spec.Linux == nil {
		c.Spec.Linux = &specs.Linux{} // the same, and nobody has to ask
	}
	return c, nil
}

// A decoder fills Go values from JSON by tables of fields (load_fields.go). It
// stands in for json/v2's Unmarshal, whose result it reproduces (a test compares),
// for two reasons. Unmarshal builds its codecs by reflection on first use, and a
// process that decodes one file pays for that each time: 0.5 ms for a small config
// against 0.1 ms here. And it stops at the first value of a wrong type, where this
// one goes on and reports them all.
type decoder struct {
	in       *jsontext.Decoder
	data     []byte
	problems Problems
	err      error // the first syntax error; nothing is read after it
}

// field binds the name of an object's member to what it fills: a pointer to a plain
// value, the fields of a nested object, or a func for anything else.
type field struct {
	name string
	into any
}

func newDecoder(data []byte) *decoder {
	// jsontext reads a bytes.Buffer in place instead of copying from it.
	return &decoder{in: jsontext.NewDecoder(bytes.NewBuffer(data)), data: data}
}

// source returns the text of the value that read decodes, in place.
func (d *decoder) source(read func()) jsontext.Value {
	start := d.in.InputOffset()
	read()
	return bytes.TrimLeft(d.data[start:d.in.InputOffset()], " \t\r\n:")
}

// finish reports what went wrong, and whatever follows the one value there may be.
func (d *decoder) finish() error {
	if d.err == nil {
		if _, err := d.in.ReadToken(); err == nil {
			d.report("has something after its closing brace", "keep one JSON object")
		} else if err != io.EOF {
			d.fail(err)
		}
	}
	if d.err != nil {
		p := d.syntax()
		d.problems.add(p.Field, p.Text, p.Instead)
	}
	return d.problems.orNil()
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// syntax says where the text stops being JSON.
func (d *decoder) syntax() Problem {
	var e *jsontext.SyntacticError
	switch {
	case len(bytes.TrimSpace(d.data)) == 0:
		return Problem{Text: "is empty", Instead: "write a JSON object, for instance with: husk spec"}
	case bytes.HasPrefix(d.data, []byte("\xef\xbb\xbf")):
		return Problem{Text: "starts with a byte order mark", Instead: "save it as UTF-8 without one"}
	case !errors.As(d.err, &e):
		return Problem{Text: d.err.Error(), Instead: "write valid JSON"}
	case errors.Is(e.Err, jsontext.ErrDuplicateName):
		return Problem{Field: string(e.JSONPointer), Text: "appears twice", Instead: "keep one of them"}
	}
	before := d.data[:min(int(e.ByteOffset), len(d.data))]
	line, column := bytes.Count(before, []byte("\n"))+1, len(before)-bytes.LastIndexByte(before, '\n')
	text := strings.TrimPrefix(e.Err.Error(), "jsontext: ")
	return Problem{
		Field:   string(e.JSONPointer),
		Text:    fmt.Sprintf("is not JSON: %s at line %d, column %d", text, line, column),
		Instead: "correct it there",
	}
}

// shorten keeps a pointer into ten thousand nested arrays from filling the screen.
func shorten(pointer string) string {
	const limit = 200
	if len(pointer) <= limit {
		return pointer
	}
	return strings.ToValidUTF8(pointer[:limit], "") + "…"
}

// report notes a problem of the value read last.
func (d *decoder) report(text, instead string) {
	d.problems.add(string(d.in.StackPointer()), text, instead)
}

// mismatch skips the next value because it is not what is wanted there.
func (d *decoder) mismatch(want string) {
	kind := d.in.PeekKind()
	if d.skip(); d.err == nil {
		d.report("is "+kindName(kind), "write "+want)
	}
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 'n':
		return "null"
	}
	return "a boolean"
}

// read returns the next value, valid until the next call.
func (d *decoder) read() jsontext.Value {
	v, err := d.in.ReadValue()
	if err != nil {
		d.fail(err)
		return nil
	}
	return v
}

// skip passes over the next value, whatever it is.
func (d *decoder) skip() { d.undecoded() }

// undecoded reads a value without looking into it. The bound on its depth keeps
// recursive code that may come to read it later safe.
func (d *decoder) undecoded() jsontext.Value {
	v := d.read()
	if depth(v) > maxDepth {
		d.report(fmt.Sprintf("is nested more than %d levels deep", maxDepth), "remove it")
	}
	return v
}

// depth counts the levels of nesting in v, which is valid JSON.
func depth(v jsontext.Value) (deepest int) {
	level, quoted := 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// enter begins an object or array; false if the next value is something else.
func (d *decoder) enter(open jsontext.Kind, want string) bool {
	if d.err != nil {
		return false
	}
	if d.in.PeekKind() != open {
		d.mismatch(want)
		return false
	}
	_, err := d.in.ReadToken()
	d.fail(err)
	return d.err == nil
}

// more tells whether the object or array goes on, and passes its end.
func (d *decoder) more(end jsontext.Kind) bool {
	if d.err != nil {
		return false
	}
	if d.in.PeekKind() != end {
		return true
	}
	_, err := d.in.ReadToken()
	d.fail(err)
	return false
}

// object fills the members that fields names and skips the others.
func (d *decoder) object(fields []field) {
	if !d.enter('{', "an object") {
		return
	}
	for d.more('}') {
		if f := find(fields, d.read()); f != nil {
			d.value(f.into)
		} else if d.err == nil {
			d.skip()
		}
	}
	for i := range fields {
		if m, ok := fields[i].into.(*member); ok && !m.given && d.err == nil {
			d.problems.add(pointer(string(d.in.StackPointer()), fields[i].name), "is missing", "write it: there is no default")
		}
	}
}

// member is what a required member fills. Those whose zero value no other check refuses
// need it: a mapping without hostID would be one to the host's root.
type member struct {
	into  any
	given bool
}

func required(into any) *member { return &member{into: into} }

// find compares without unquoting, since names hardly ever hold an escape.
func find(fields []field, quoted jsontext.Value) *field {
	if len(quoted) < 2 {
		return nil
	}
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, quoted)
	}
	for i := range fields {
		if string(name) == fields[i].name {
			return &fields[i]
		}
	}
	return nil
}

// array calls element for each element of an array.
func (d *decoder) array(want string, element func()) {
	if !d.enter('[', want) {
		return
	}
	for d.more(']') {
		element()
	}
}

// dict calls member for each member of an object, whose names are data.
func (d *decoder) dict(member func(name string)) {
	if !d.enter('{', "an object") {
		return
	}
	for d.more('}') {
		name, err := jsontext.AppendUnquote(nil, d.read())
		if d.err != nil {
			return
		}
		d.fail(err)
		member(string(name))
		if bytes.IndexByte(name, 0) >= 0 {
			d.report("has a NUL byte in its name", "remove it")
		}
	}
}

// value decodes the next value into p. null leaves p as it is: absent.
func (d *decoder) value(p any) {
	if d.err != nil {
		return
	}
	if d.in.PeekKind() == 'n' {
		d.read()
		return
	}
	switch p := p.(type) {
	case *member:
		p.given = true
		d.value(p.into)
	case func(*decoder):
		p(d)
	case []field:
		d.object(p)
	case *[]string:
		names(p)(d)
	case *map[string]string:
		d.textMap(p)
	default:
		d.scalar(p)
	}
}

// scalar decodes strings, booleans, numbers and pointers to them.
func (d *decoder) scalar(p any) {
	switch p := p.(type) {
	case *string:
		*p = d.text()
	case *bool:
		*p = d.boolean()
	case **bool:
		*p = new(d.boolean())
	case *int:
		*p = int(d.signed(strconv.IntSize))
	case **int:
		*p = new(int(d.signed(strconv.IntSize)))
	case *int32:
		*p = int32(d.signed(32))
	case *int64:
		*p = d.signed(64)
	case **int64:
		*p = new(d.signed(64))
	default:
		d.unsignedScalar(p)
	}
}

func (d *decoder) unsignedScalar(p any) {
	switch p := p.(type) {
	case *uint:
		*p = uint(d.unsigned(strconv.IntSize))
	case **uint16:
		*p = new(uint16(d.unsigned(16)))
	case *uint32:
		*p = uint32(d.unsigned(32))
	case **uint32:
		*p = new(uint32(d.unsigned(32)))
	case *uint64:
		*p = d.unsigned(64)
	case **uint64:
		*p = new(d.unsigned(64))
	case **os.FileMode:
		*p = new(os.FileMode(d.unsigned(32)))
	default:
		panic(fmt.Sprintf("no decoder for %T", p))
	}
}

func (d *decoder) text() string {
	if d.in.PeekKind() != '"' {
		d.mismatch("a string")
		return ""
	}
	tok, err := d.in.ReadToken()
	if err != nil {
		d.fail(err)
		return ""
	}
	s := tok.String()
	if strings.IndexByte(s, 0) >= 0 {
		d.report("contains a NUL byte", "remove it: the kernel ends every string there")
	}
	return s
}

func (d *decoder) boolean() bool {
	kind := d.in.PeekKind()
	if kind != 't' && kind != 'f' {
		d.mismatch("true or false")
		return false
	}
	_, err := d.in.ReadToken()
	d.fail(err)
	return kind == 't'
}

func (d *decoder) unsigned(bits int) uint64 {
	limit := uint64(math.MaxUint64) >> (64 - bits)
	want := "a whole number from 0 to " + strconv.FormatUint(limit, 10)
	return number(d, want, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, bits) })
}

func (d *decoder) signed(bits int) int64 {
	limit := int64(math.MaxInt64) >> (64 - bits)
	want := fmt.Sprintf("a whole number from %d to %d", -limit-1, limit)
	return number(d, want, func(s string) (int64, error) { return strconv.ParseInt(s, 10, bits) })
}

// number takes only plain decimal integers: no fraction, no exponent.
func number[T int64 | uint64](d *decoder, want string, parse func(string) (T, error)) T {
	if d.in.PeekKind() != '0' {
		d.mismatch(want)
		return 0
	}
	s := string(d.read())
	if d.err != nil {
		return 0
	}
	n, err := parse(s)
	if err != nil {
		d.report("is "+shorten(s), "write "+want)
	}
	return n
}

func (d *decoder) textMap(p *map[string]string) {
	*p = map[string]string{}
	d.dict(func(name string) { (*p)[name] = d.text() })
}

// names decodes an array of strings or of constants.
func names[T ~string](p *[]T) func(*decoder) {
	return func(d *decoder) {
		*p = []T{}
		d.array("an array of strings", func() { *p = append(*p, T(d.text())) })
	}
}

// object decodes into a new T that p then points to.
func object[T any](p **T, fields func(*T) []field) func(*decoder) {
	return func(d *decoder) {
		*p = new(T)
		d.object(fields(*p))
	}
}

// list decodes an array of objects.
func list[T any](p *[]T, fields func(*T) []field) func(*decoder) {
	return func(d *decoder) {
		*p = []T{}
		d.array("an array of objects", func() {
			var v T
			d.object(fields(&v))
			*p = append(*p, v)
		})
	}
}

// dict decodes an object whose members are objects of one kind.
func dict[T any](p *map[string]T, fields func(*T) []field) func(*decoder) {
	return func(d *decoder) {
		*p = map[string]T{}
		d.dict(func(name string) {
			var v T
			d.object(fields(&v))
			(*p)[name] = v
		})
	}
}
