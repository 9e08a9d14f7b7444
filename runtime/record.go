package runtime

import (
	"encoding/json/jsontext"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Phases of a record.
const (
	phaseCreating = "creating" // side effects may exist; the creator owns them
	phaseCreated  = "created"  // committed
)

// record is what create leaves for the later commands, which never read config.json.
type record struct {
	Version     int // of this layout
	OCIVersion  string
	ID          string
	Phase       string
	Creator     process // who owns a record in phase creating
	Init        process
	Bundle      string
	Rootfs      string
	Created     time.Time
	Owner       int // uid
	Annotations map[string]string
	Cgroup      string       // "" when the container has none of its own
	CgroupMade  []string     // directories that create made, outermost first
	Unit        string       // of systemd that has the cgroup, "" without
	UserUnit    bool         // it is one of the user's manager
	Rdt         *resctrl.Use // nil without linux.intelRdt
	Bridges     []string     // of the network interfaces that were made for it, "" for one without
	Pasta       process      // that serves the network namespace
	NoProcess   bool
	StartHooks  []int // timeouts of startContainer hooks, seconds, 0: none
	Poststart   []specs.Hook
	Poststop    []specs.Hook

	owned bool // the creator found the cgroup usable; not kept
}

const recordVersion = 1

// maxRecord bounds what is read back: annotations come from a config of at most 16 MiB.
const maxRecord = 64 << 20

// read reads the record. A missing one is ErrNotExist.
func (e *entry) read() (*record, error) {
	fd, err := openat(e.fd, stateFile, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == unix.ENOENT {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, e.pathError("open", stateFile, err)
	}
	defer unix.Close(fd)
	b, err := readAll(fd, maxRecord)
	if err != nil {
		return nil, e.pathError("read", stateFile, err)
	}
	rec, err := decodeRecord(b)
	if err == nil && (rec.Version != recordVersion || rec.ID != e.id) {
		err = fmt.Errorf("written by another version of husk (layout %d)", rec.Version)
	}
	if err != nil {
		return nil, &Error{
			Err:  e.pathError("parse", stateFile, err),
			Hint: "if nothing of the container is left, remove " + e.root + "/" + e.id + " by hand",
		}
	}
	return rec, nil
}

// write replaces the record so that a reader, or a crash, sees the old one or the new one.
func (e *entry) write(rec *record) error {
	if err := replaceFile(e.fd, stateFile, rec.encode(), 0o600, true); err != nil {
		return e.pathError("write", stateFile, err)
	}
	return nil
}

// pathError is about a file in the container's directory.
func (e *entry) pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: e.root + "/" + e.id + "/" + name, Err: err}
}

// decodeRecord reads by a table of fields, as config.json is read and for the same
// reason: reflection would cost every state, kill and delete half a millisecond.
func decodeRecord(b []byte) (*record, error) {
	rec, d := new(record), newDecoder(b)
	var created string
	d.object([]field{
		{"version", &rec.Version},
		{"ociVersion", &rec.OCIVersion},
		{"id", &rec.ID},
		{"phase", &rec.Phase},
		{"creator", rec.Creator.fields()},
		{"init", rec.Init.fields()},
		{"bundle", &rec.Bundle},
		{"rootfs", &rec.Rootfs},
		{"created", &created},
		{"owner", &rec.Owner},
		{"annotations", &rec.Annotations},
		{"cgroup", &rec.Cgroup},
		{"cgroupMade", &rec.CgroupMade},
		{"unit", &rec.Unit},
		{"userUnit", &rec.UserUnit},
		{"rdt", object(&rec.Rdt, useFields)},
		{"bridges", &rec.Bridges},
		{"pasta", rec.Pasta.fields()},
		{"noProcess", &rec.NoProcess},
		{"startHooks", func(d *decoder) {
			d.array("an array of numbers", func() { rec.StartHooks = append(rec.StartHooks, int(d.signed(32))) })
		}},
		{"poststart", list(&rec.Poststart, hookFields)},
		{"poststop", list(&rec.Poststop, hookFields)},
	})
	if err := d.finish(); err != nil {
		return nil, err
	}
	var err error
	rec.Created, err = time.Parse(time.RFC3339Nano, created)
	return rec, err
}

func (p *process) fields() []field {
	return []field{{"pid", &p.PID}, {"start", &p.Start}, {"ns", &p.NS}}
}

func useFields(u *resctrl.Use) []field {
	return []field{{"class", &u.Class}, {"own", &u.Own}, {"made", &u.Made}, {"monitor", &u.Monitor}, {"before", &u.Before}}
}

func (rec *record) encode() []byte {
	w := &jsonWriter{b: make([]byte, 0, 1024)}
	w.object(func() {
		w.num("version", rec.Version)
		w.text("ociVersion", rec.OCIVersion)
		w.text("id", rec.ID)
		w.text("phase", rec.Phase)
		w.process("creator", rec.Creator)
		w.process("init", rec.Init)
		w.text("bundle", rec.Bundle)
		w.text("rootfs", rec.Rootfs)
		w.text("created", rec.Created.Format(time.RFC3339Nano))
		w.num("owner", rec.Owner)
		w.texts("annotations", rec.Annotations)
		w.text("cgroup", rec.Cgroup)
		w.list("cgroupMade", len(rec.CgroupMade), func(i int) { w.quote(rec.CgroupMade[i]) })
		if rec.Unit != "" {
			w.text("unit", rec.Unit)
			w.flag("userUnit", rec.UserUnit)
		}
		if rec.Rdt != nil {
			w.use("rdt", rec.Rdt)
		}
		w.list("bridges", len(rec.Bridges), func(i int) { w.quote(rec.Bridges[i]) })
		if rec.Pasta.PID != 0 {
			w.process("pasta", rec.Pasta)
		}
		w.flag("noProcess", rec.NoProcess)
		w.list("startHooks", len(rec.StartHooks), func(i int) { w.b = strconv.AppendInt(w.b, int64(rec.StartHooks[i]), 10) })
		w.hooks("poststart", rec.Poststart)
		w.hooks("poststop", rec.Poststop)
	})
	return w.b
}

func (w *jsonWriter) process(name string, p process) {
	w.key(name)
	w.object(func() {
		w.num("pid", p.PID)
		w.key("start")
		w.b = strconv.AppendUint(w.b, p.Start, 10)
		w.key("ns")
		w.b = strconv.AppendUint(w.b, p.NS, 10)
	})
}

func (w *jsonWriter) use(name string, u *resctrl.Use) {
	w.key(name)
	w.object(func() {
		w.text("class", u.Class)
		w.flag("own", u.Own)
		w.flag("made", u.Made)
		w.text("monitor", u.Monitor)
		w.text("before", u.Before)
	})
}

func (w *jsonWriter) hooks(name string, hooks []specs.Hook) {
	w.list(name, len(hooks), func(i int) {
		h := &hooks[i]
		w.object(func() {
			w.text("path", h.Path)
			w.list("args", len(h.Args), func(k int) { w.quote(h.Args[k]) })
			w.list("env", len(h.Env), func(k int) { w.quote(h.Env[k]) })
			if h.Timeout != nil {
				w.num("timeout", *h.Timeout)
			}
		})
	})
}

// jsonWriter appends JSON without reflection. Empty lists and maps are left out.
type jsonWriter struct{ b []byte }

func (w *jsonWriter) object(members func()) {
	w.b = append(w.b, '{')
	members()
	w.b = append(w.b, '}')
}

// comma separates from the value before, if there is one.
func (w *jsonWriter) comma() {
	if c := w.b[len(w.b)-1]; c != '{' && c != '[' {
		w.b = append(w.b, ',')
	}
}

func (w *jsonWriter) key(name string) {
	w.comma()
	w.quote(name)
	w.b = append(w.b, ':')
}

// quote writes a string; bytes that are no UTF-8 become U+FFFD, as encoding/json has it.
func (w *jsonWriter) quote(s string) { w.b, _ = jsontext.AppendQuote(w.b, s) }

func (w *jsonWriter) text(name, s string) {
	w.key(name)
	w.quote(s)
}

func (w *jsonWriter) num(name string, n int) {
	w.key(name)
	w.b = strconv.AppendInt(w.b, int64(n), 10)
}

func (w *jsonWriter) flag(name string, v bool) {
	if v {
		w.key(name)
		w.b = append(w.b, "true"...)
	}
}

func (w *jsonWriter) list(name string, n int, element func(i int)) {
	if n == 0 {
		return
	}
	w.key(name)
	w.b = append(w.b, '[')
	for i := range n {
		w.comma()
		element(i)
	}
	w.b = append(w.b, ']')
}

func (w *jsonWriter) texts(name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	w.key(name)
	w.object(func() {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			w.text(k, m[k])
		}
	})
}
