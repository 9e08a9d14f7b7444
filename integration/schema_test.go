package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The specification comes with a JSON schema. Each of these documents is valid by it, and
// together they have every property that means something on Linux. What husk cannot do
// here is named by the beginning of the pointer and the reason, which is in the message.
var schemaDocuments = map[string]map[string]string{
	"all":  {},
	"user": {},
	"lsm": {
		"/process/apparmorProfile": "AppArmor", "/process/selinuxLabel": "SELinux", "/linux/mountLabel": "SELinux",
	},
	"v1": {
		"/linux/resources/": "cgroup v2",
	},
}

// TestSchema changes one value at a time to one that the schema forbids: husk refuses
// each and names it. schemaLoose lists where the schema and the prose differ.
func TestSchema(t *testing.T) {
	s := newSchema(t)
	rejected := 0
	for name, reasons := range schemaDocuments {
		doc := s.document(t, name)
		if err := s.valid(doc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := s.plan(t, doc)
		for _, p := range before {
			if !allowed(p, reasons) {
				t.Errorf("%s: %s", name, p)
			}
		}
		for _, m := range s.mutations(t, doc) {
			if s.check(t, name, m, before) {
				rejected++
			}
		}
	}
	t.Logf("%d changes are rejected, each at its place", rejected)
	if rejected < 200 {
		t.Errorf("only %d changes", rejected)
	}
	for at := range schemaLoose {
		if !s.used[at] {
			t.Errorf("no change at %s is accepted any more", at)
		}
	}
}

// check reports whether husk rejects a mutation where it is.
func (s *schema) check(t *testing.T, document string, m mutation, before []problem) bool {
	t.Helper()
	err := s.valid(m.doc)
	if err == nil {
		t.Errorf("%s: %s: the schema allows it", document, m)
		return false
	}
	after := s.plan(t, m.doc)
	found := slices.ContainsFunc(after, func(p problem) bool { return p.pointer == m.pointer && !slices.Contains(before, p) })
	for _, key := range []string{m.generic() + " " + m.kind, m.generic()} {
		if _, loose := schemaLoose[key]; loose {
			s.used[key] = true
			if found {
				t.Errorf("%s: %s is rejected: %v", document, m, after)
			}
			return false
		}
	}
	if !found {
		t.Errorf("%s: %s: husk says %q", document, m, after)
	}
	return found
}

// schemaLoose are the places, with * for any index and name, and perhaps the kind of
// change, where husk accepts what the schema does not.
var schemaLoose = map[string]string{
	"/linux/devices/*/fileMode too large": "config-linux.md: \"file mode for the device\", of which S_ISUID and others are a part",
	"/linux/resources/pids/limit missing": "config-linux.md: \"limit (int64, OPTIONAL)\"",
}

func allowed(p problem, reasons map[string]string) bool {
	for at, text := range reasons {
		if strings.HasPrefix(p.pointer, at) && strings.Contains(p.text, text) {
			return true
		}
	}
	return false
}

// A problem is a line of husk's error: what is wrong, and where.
type problem struct{ pointer, text string }

func (p problem) String() string { return p.pointer + ": " + p.text }

// A schema is that of config.json, compiled and as it is written.
type schema struct {
	compiled *jsonschema.Schema
	dir      string
	files    map[string]any
	husk     string
	used     map[string]bool
}

func newSchema(t *testing.T) *schema {
	t.Helper()
	husk, err := findHusk()
	if err != nil {
		t.Skip(err)
	}
	s := &schema{dir: moduleDir(t, "github.com/opencontainers/runtime-spec") + "/schema", files: map[string]any{}, husk: husk, used: map[string]bool{}}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft4)
	files, _ := filepath.Glob(s.dir + "/*.json")
	for _, f := range files {
		data, err := os.ReadFile(f)
		must(t, err)
		data = bytes.ReplaceAll(data, []byte(`"#definitions/`), []byte(`"#/definitions/`)) // a slip in defs.json
		var doc any
		must(t, decodeNumbers(data, &doc))
		s.files[filepath.Base(f)] = doc
		must(t, compiler.AddResource("schema:///"+filepath.Base(f), doc))
	}
	s.compiled, err = compiler.Compile("schema:///config-schema.json")
	must(t, err)
	return s
}

func (s *schema) document(t *testing.T, name string) any {
	t.Helper()
	data, err := os.ReadFile("testdata/schema/" + name + ".json")
	must(t, err)
	var doc any
	must(t, decodeNumbers(data, &doc))
	return doc
}

func (s *schema) valid(doc any) error { return s.compiled.Validate(doc) }

// plan has husk compile a bundle, and returns its complaints.
func (s *schema) plan(t *testing.T, doc any) []problem {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/rootfs", 0o755))
	data, err := json.Marshal(doc)
	must(t, err)
	must(t, os.WriteFile(dir+"/config.json", data, 0o644))
	cmd := exec.Command(s.husk, "plan", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); err == nil || !failed {
		must(t, err)
		return nil
	}
	var list []problem
	for line := range strings.Lines(strings.ReplaceAll(stderr.String(), dir, "BUNDLE")) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "husk: error: plan: ")
		if pointer, text, ok := strings.Cut(line, ": "); ok && strings.HasPrefix(pointer, "/") {
			pointer, _, _ = strings.Cut(pointer, " ") // a path may follow
			list = append(list, problem{pointer, text})
		}
	}
	if list == nil {
		t.Errorf("husk plan: %v: %s", err, stderr.Bytes())
	}
	return list
}

// A mutation is a document that differs from a valid one at one place.
type mutation struct {
	pointer, kind string
	value         any
	doc           any
}

func (m mutation) String() string {
	value, _ := json.Marshal(m.value)
	return fmt.Sprintf("%s: %s %s", m.pointer, m.kind, value)
}

var indexes = regexp.MustCompile(`/\d+(/|$)`)

func (m mutation) generic() string { return indexes.ReplaceAllString(m.pointer, "/*$1") }

// mutations walks a document along its schema.
func (s *schema) mutations(t *testing.T, doc any) []mutation {
	w := &walker{schema: s, t: t, doc: doc}
	w.walk("", doc, s.load("config-schema.json", ""))
	return w.list
}

type walker struct {
	*schema
	t    *testing.T
	doc  any
	list []mutation

	variants bool // not mutations, but what is still valid
}

// A rule is a piece of the schema, and the file that its references start from.
type rule struct {
	file string
	of   map[string]any
}

// load finds a definition.
func (s *schema) load(file, pointer string) rule {
	node := s.files[file]
	for step := range strings.SplitSeq(strings.Trim(pointer, "/"), "/") {
		if step != "" {
			node = node.(map[string]any)[step]
		}
	}
	return s.follow(rule{file, node.(map[string]any)})
}

// follow replaces a rule that refers to another one.
func (s *schema) follow(r rule) rule {
	if ref, ok := r.of["$ref"].(string); ok {
		file, pointer, _ := strings.Cut(ref, "#")
		if file == "" {
			file = r.file
		}
		return s.load(file, pointer)
	}
	if list, ok := r.of["anyOf"].([]any); ok && len(list) == 1 {
		return s.follow(rule{r.file, list[0].(map[string]any)})
	}
	return r
}

// parts are the rules that hold together.
func (s *schema) parts(r rule) []rule {
	r = s.follow(r)
	all := []rule{r}
	list, _ := r.of["allOf"].([]any)
	for _, one := range list {
		all = append(all, s.parts(rule{r.file, one.(map[string]any)})...)
	}
	return all
}

// walk adds the mutations of a value and of those in it.
func (w *walker) walk(at string, value any, r rule) {
	for k, part := range w.parts(r) {
		switch {
		case w.variants:
			w.alternatives(at, part)
		case k == 0 || part.of["type"] != "object":
			w.types(at, value, part)
			fallthrough
		default:
			w.bounds(at, part)
		}
		switch v := value.(type) {
		case map[string]any:
			w.members(at, v, part)
		case []any:
			if items, ok := part.of["items"].(map[string]any); ok {
				for i, element := range v {
					w.walk(at+"/"+strconv.Itoa(i), element, rule{part.file, items})
				}
			}
		}
	}
}

func (w *walker) members(at string, v map[string]any, r rule) {
	properties, _ := r.of["properties"].(map[string]any)
	other, _ := r.of["additionalProperties"].(map[string]any)
	patterns, _ := r.of["patternProperties"].(map[string]any)
	for _, one := range patterns {
		other = one.(map[string]any) // there is never more than one
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		p, ok := properties[name].(map[string]any)
		if !ok {
			p = other
		}
		if p != nil {
			w.walk(at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), v[name], rule{r.file, p})
		}
	}
	required, _ := r.of["required"].([]any)
	for _, name := range required {
		if !w.variants {
			w.add("del", at+"/"+name.(string), "missing", nil)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if w.variants && properties[name] != nil && !slices.Contains(required, any(name)) {
			w.add("del", at+"/"+name, "missing", nil)
		}
	}
}

// types gives a value of each type that it may not be.
func (w *walker) types(at string, value any, r rule) {
	if at == "" {
		return
	}
	samples := map[string]any{"string": "a", "boolean": true, "array": []any{}, "object": map[string]any{}, "integer": 7, "number": 1.5}
	for _, kind := range slices.Sorted(maps.Keys(samples)) {
		if want := r.of["type"]; want != nil && kind != want {
			w.add("set", at, kind, samples[kind])
		}
	}
}

// bounds leaves the bounds of a value.
func (w *walker) bounds(at string, r rule) {
	if n, ok := r.of["minimum"].(json.Number); ok {
		w.add("set", at, "too small", json.Number(next(n.String(), -1)))
	}
	if n, ok := r.of["maximum"].(json.Number); ok {
		w.add("set", at, "too large", json.Number(next(n.String(), 1)))
	}
	if r.of["enum"] != nil {
		w.add("set", at, "none of", "NONE_OF_THEM")
	}
	if r.of["pattern"] != nil {
		w.add("set", at, "not like", "!")
	}
	if r.of["minItems"] != nil {
		w.add("set", at, "empty", []any{})
	}
}

// alternatives gives the other values that the schema lists.
func (w *walker) alternatives(at string, r rule) {
	if strings.HasPrefix(at, "/linux/namespaces/") {
		return // each may be there only once, and is
	}
	list, _ := r.of["enum"].([]any)
	for _, one := range list {
		w.add("set", at, one.(string), one)
	}
}

func (w *walker) add(verb, at, kind string, value any) {
	data, err := json.Marshal(w.doc)
	must(w.t, err)
	m := variant(w.t, data, verb, at, value)
	m.kind = kind
	w.list = append(w.list, m)
}

// variant changes a document at one place.
func variant(t *testing.T, data []byte, verb, at string, value any) mutation {
	t.Helper()
	text, err := json.Marshal(value)
	must(t, err)
	changed, err := editJSON(data, verb, at, string(text))
	must(t, err)
	var doc any
	must(t, decodeNumbers(changed, &doc))
	return mutation{at, verb, value, doc}
}

// next is the integer beside another one, of any size.
func next(n string, step int64) string {
	i, _ := new(big.Int).SetString(n, 10)
	return i.Add(i, big.NewInt(step)).String()
}

// TestSchemaValid: what the schema allows, husk takes: the specification's examples for
// Linux, and each document with one optional property less, or with another of the values
// that the schema lists. schemaStrict lists what the prose forbids.
func TestSchemaValid(t *testing.T) {
	s := newSchema(t)
	accepted := 0
	for _, name := range []string{"minimal", "minimal-for-start", "linux-netdevice", "linux-rdma", "spec-example"} {
		data, err := os.ReadFile(s.dir + "/test/config/good/" + name + ".json")
		must(t, err)
		m := variant(t, data, "set", "/ociVersion", "1.3.0") // one is of before version 1
		for at := range schemaDocuments["lsm"] {
			data, err = json.Marshal(m.doc)
			must(t, err)
			if _, err := lookupJSON(data, at); err == nil {
				m = variant(t, data, "del", at, nil)
			}
		}
		if s.takes(t, name, m) {
			accepted++
		}
	}
	for name := range schemaDocuments {
		doc := s.document(t, name)
		w := &walker{schema: s, t: t, doc: doc, variants: true}
		w.walk("", doc, s.load("config-schema.json", ""))
		for _, m := range w.list {
			if s.takes(t, name, m) {
				accepted++
			}
		}
	}
	t.Logf("%d documents are accepted", accepted)
	for at := range schemaStrict {
		if !s.used[at] {
			t.Errorf("nothing is refused at %s any more", at)
		}
	}
}

// takes reports whether husk has nothing against a document, but what it cannot do here.
func (s *schema) takes(t *testing.T, document string, m mutation) bool {
	t.Helper()
	if err := s.valid(m.doc); err != nil {
		t.Errorf("%s: %s: %v", document, m, err)
	}
	ok := true
	for _, p := range s.plan(t, m.doc) {
		if allowed(p, schemaDocuments[document]) {
			continue // whatever the change
		}
		ok = false
		key := mutation{pointer: p.pointer}.generic()
		if schemaStrict[key] == "" {
			t.Errorf("%s: %s: %s", document, m, p)
		}
		s.used[key] = true
	}
	return ok
}

// schemaStrict are the places where husk refuses what the schema allows, since the
// specification's prose forbids it, or there is nothing here that could do it.
var schemaStrict = map[string]string{
	"/root/path":                                         "config.md: root is REQUIRED but on Windows",
	"/hostname":                                          "there is no UTS namespace: it would be the host's name",
	"/domainname":                                        "there is no UTS namespace: it would be the host's name",
	"/process/args/*":                                    "config.md: args is REQUIRED but on Windows",
	"/process/scheduler":                                 "config.md: runtime, deadline and period are those of SCHED_DEADLINE",
	"/process/scheduler/priority":                        "config.md: real-time policies have one",
	"/process/scheduler/policy":                          "no kernel has SCHED_ISO",
	"/process/scheduler/deadline":                        "sched(7): runtime <= deadline <= period",
	"/process/scheduler/runtime":                         "sched(7): at least 1024 ns",
	"/mounts/*/source":                                   "config.md: the file or directory of a bind mount",
	"/mounts/*/uidMappings":                              "config.md: uidMappings and gidMappings MUST both be specified",
	"/mounts/*/gidMappings":                              "config.md: uidMappings and gidMappings MUST both be specified",
	"/linux/uidMappings":                                 "user_namespaces(7): without the other half nobody has an id",
	"/linux/gidMappings":                                 "user_namespaces(7): without the other half nobody has an id",
	"/linux/netDevices":                                  "there is no network namespace to move devices to",
	"/linux/sysctl/net.ipv4.ip_forward":                  "there is no network namespace: it would be the host's setting",
	"/linux/timeOffsets":                                 "there is no time namespace",
	"/linux/memoryPolicy/mode":                           "config-linux.md: mode is REQUIRED",
	"/linux/memoryPolicy/nodes":                          "config-linux.md: some modes need nodes, others have none",
	"/linux/memoryPolicy/flags":                          "set_mempolicy(2): the flags are about nodes",
	"/linux/personality/domain":                          "config-linux.md: domain is REQUIRED",
	"/linux/resources/memory/swap":                       "config-linux.md: swap is memory and swap, so it needs the limit of memory",
	"/linux/resources/memory/swappiness":                 "cgroup v2 has none",
	"/linux/resources/memory/useHierarchy":               "cgroup v2 always has it",
	"/linux/resources/cpu/realtimeRuntime":               "cgroup v2 has none",
	"/linux/resources/cpu/realtimePeriod":                "cgroup v2 has none",
	"/linux/resources/network":                           "cgroup v2 has none",
	"/linux/resources/blockIO/leafWeight":                "cgroup v2 has none",
	"/linux/resources/blockIO/weightDevice/*/leafWeight": "cgroup v2 has none",
	"/linux/seccomp/architectures/*":                     "this machine, or its libseccomp, does not know it",
	"/linux/seccomp/defaultAction":                       "the init could never hand its listener over",
	"/linux/seccomp/defaultErrnoRet":                     "config-linux.md: an action without errno MUST fail with one",
	"/linux/seccomp/syscalls":                            "the init could never hand its listener over",
	"/linux/seccomp/syscalls/*/names/*":                  "the init could never hand its listener over",
	"/linux/seccomp/syscalls/*/errnoRet":                 "config-linux.md: an action without errno MUST fail with one",
	"/linux/seccomp/listenerMetadata":                    "config-linux.md: it MUST NOT be set without listenerPath",
}
