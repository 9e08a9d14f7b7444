package runtime

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// minimal is the smallest valid config.json, to wrap hostile pieces in.
const minimal = `{"ociVersion":"1.3.0","root":{"path":"/"}%s}`

func TestDecodeProblems(t *testing.T) {
	deep := strings.Repeat("[", 10000) + strings.Repeat("]", 10000)
	objects := strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000)
	for name, test := range map[string]struct{ in, want string }{
		"empty":          {"", `config.json: is empty; write a JSON object, for instance with: husk spec`},
		"blank":          {" \n\t", `config.json: is empty; write a JSON object, for instance with: husk spec`},
		"array":          {`[]`, `config.json: is an array; write an object`},
		"null":           {`null`, `config.json: is null; write an object`},
		"string":         {`"x"`, `config.json: is a string; write an object`},
		"truncated":      {`{"ociVersion":"1.0.0"`, `config.json: is not JSON: unexpected EOF at line 1, column 22; correct it there`},
		"unquoted":       {`{ociVersion:"1.0.0"}`, `config.json: is not JSON: invalid character 'o' at start of value at line 1, column 2; correct it there`},
		"comment":        {"{\n  // no\n}", `config.json: is not JSON: invalid character '/' at start of value at line 2, column 3; correct it there`},
		"trailing comma": {`{"mounts":[],}`, `config.json: is not JSON: invalid character ',' at start of value at line 1, column 13; correct it there`},
		"two objects":    {`{}{}`, `config.json: has something after its closing brace; keep one JSON object`},
		"garbage":        {`{}x`, `config.json: is not JSON: invalid character 'x' at start of value at line 1, column 3; correct it there`},
		"NUL after":      {"{}\x00", `config.json: is not JSON: invalid character '\x00' at start of value at line 1, column 3; correct it there`},
		"BOM":            {"\xef\xbb\xbf{}", `config.json: starts with a byte order mark; save it as UTF-8 without one`},
		"UTF-16":         {"\xff\xfe{\x00}\x00", `config.json: is not JSON: invalid character '\xff' at start of value at line 1, column 1; correct it there`},
		"not UTF-8":      {"{\"hostname\":\"a\xff\"}", `/hostname: is not JSON: invalid UTF-8 at line 1, column 15; correct it there`},
		"surrogate":      {`{"hostname":"\ud800"}`, `/hostname: is not JSON: invalid surrogate pair ` + "`" + `\ud800"}` + "`" + ` in string at line 1, column 14; correct it there`},

		"duplicate":         {`{"root":{},"root":{}}`, `/root: appears twice; keep one of them`},
		"duplicate nested":  {`{"process":{"user":{"uid":1,"uid":0}}}`, `/process/user/uid: appears twice; keep one of them`},
		"duplicate in list": {`{"mounts":[{},{"type":"a","type":"b"}]}`, `/mounts/1/type: appears twice; keep one of them`},
		"duplicate escaped": {`{"process":{"cwd":"/","\u0063wd":"/x"}}`, `/process/cwd: appears twice; keep one of them`},
		"duplicate unknown": {`{"x":{"y":[{"z":1,"z":2}]}}`, `/x/y/0/z: appears twice; keep one of them`},
		"duplicate seccomp": {`{"linux":{"seccomp":{"syscalls":[{"names":[],"names":[]}]}}}`, `/linux/seccomp/syscalls/0/names: appears twice; keep one of them`},
		"duplicate data":    {`{"annotations":{"a/b~c":"","a/b~c":""}}`, `/annotations/a~1b~0c: appears twice; keep one of them`},

		"deep unknown":  {`{"x":` + deep + `}`, `/x` + strings.Repeat("/0", 99) + `…: is not JSON: exceeded max depth at line 1, column 10005; correct it there`},
		"deep objects":  {objects, `/a: is nested more than 100 levels deep; remove it`},
		"deep seccomp":  {`{"linux":{"seccomp":{"x":` + deep[4950:len(deep)-4950] + `}}}`, `/linux/seccomp: is nested more than 100 levels deep; remove it`},
		"deep in known": {`{"hostname":` + deep[4800:len(deep)-4800] + `}`, "/hostname: is nested more than 100 levels deep; remove it\n/hostname: is an array; write a string"},

		"NUL string":     {`{"hostname":"a\u0000b"}`, `/hostname: contains a NUL byte; remove it: the kernel ends every string there`},
		"NUL argument":   {`{"process":{"args":["sh","\u0000"]}}`, `/process/args/1: contains a NUL byte; remove it: the kernel ends every string there`},
		"NUL option":     {`{"mounts":[{"options":["a\u0000b"]}]}`, `/mounts/0/options/0: contains a NUL byte; remove it: the kernel ends every string there`},
		"NUL map value":  {`{"annotations":{"a":"\u0000"}}`, `/annotations/a: contains a NUL byte; remove it: the kernel ends every string there`},
		"NUL map name":   {`{"linux":{"sysctl":{"a\u0000":"1"}}}`, "/linux/sysctl/a\ufffd: has a NUL byte in its name; remove it"},
		"line in a name": {`{"linux":{"sysctl":{"a\n":1}}}`, "/linux/sysctl/a\ufffd: is a number; write a string"},

		"number for string":  {`{"hostname":1}`, `/hostname: is a number; write a string`},
		"string for list":    {`{"process":{"args":"sh -c x"}}`, `/process/args: is a string; write an array of strings`},
		"object for list":    {`{"mounts":{}}`, `/mounts: is an object; write an array of objects`},
		"list for object":    {`{"process":[]}`, `/process: is an array; write an object`},
		"list for map":       {`{"annotations":[]}`, `/annotations: is an array; write an object`},
		"string for boolean": {`{"root":{"readonly":"true"}}`, `/root/readonly: is a string; write true or false`},
		"string for number":  {`{"process":{"user":{"uid":"0"}}}`, `/process/user/uid: is a string; write a whole number from 0 to 4294967295`},
		"boolean for list":   {`{"process":{"user":{"additionalGids":true}}}`, `/process/user/additionalGids: is a boolean; write an array of group ids`},
		"null in list":       {`{"process":{"args":[null]}}`, `/process/args/0: is null; write a string`},
		"null mount":         {`{"mounts":[null]}`, `/mounts/0: is null; write an object`},
		"string in mounts":   {`{"mounts":["/proc"]}`, `/mounts/0: is a string; write an object`},
		"seccomp path":       {`{"linux":{"seccomp":"default.json"}}`, `/linux/seccomp: is a string; write an object`},
		"number in dict":     {`{"linux":{"timeOffsets":{"monotonic":5}}}`, `/linux/timeOffsets/monotonic: is a number; write an object`},

		"uid 2^32":     {`{"process":{"user":{"uid":4294967296}}}`, `/process/user/uid: is 4294967296; write a whole number from 0 to 4294967295`},
		"uid -1":       {`{"process":{"user":{"uid":-1}}}`, `/process/user/uid: is -1; write a whole number from 0 to 4294967295`},
		"uid 1e3":      {`{"process":{"user":{"uid":1e3}}}`, `/process/user/uid: is 1e3; write a whole number from 0 to 4294967295`},
		"uid 1.0":      {`{"process":{"user":{"uid":1.0}}}`, `/process/user/uid: is 1.0; write a whole number from 0 to 4294967295`},
		"uid 01":       {`{"process":{"user":{"uid":01}}}`, `/process/user: is not JSON: invalid character '1' after object value (expecting ',' or '}') at line 1, column 28; correct it there`},
		"weight":       {`{"linux":{"resources":{"blockIO":{"weight":65536}}}}`, `/linux/resources/blockIO/weight: is 65536; write a whole number from 0 to 65535`},
		"limit":        {`{"linux":{"resources":{"pids":{"limit":9223372036854775808}}}}`, `/linux/resources/pids/limit: is 9223372036854775808; write a whole number from -9223372036854775808 to 9223372036854775807`},
		"nice":         {`{"process":{"scheduler":{"nice":2147483648}}}`, `/process/scheduler/nice: is 2147483648; write a whole number from -2147483648 to 2147483647`},
		"rlimit":       {`{"process":{"rlimits":[{"soft":1,"hard":18446744073709551616}]}}`, `/process/rlimits/0/hard: is 18446744073709551616; write a whole number from 0 to 18446744073709551615`},
		"required":     {`{"process":{"rlimits":[{"type":"RLIMIT_CORE","soft":null}]},"linux":{"uidMappings":[{"size":1}]}}`, "/process/rlimits/0/hard: is missing; write it: there is no default\n/process/rlimits/0/soft: is missing; write it: there is no default\n/linux/uidMappings/0/containerID: is missing; write it: there is no default\n/linux/uidMappings/0/hostID: is missing; write it: there is no default"},
		"long number":  {`{"process":{"user":{"uid":` + strings.Repeat("9", 1000) + `}}}`, `/process/user/uid: is ` + strings.Repeat("9", 200) + `…; write a whole number from 0 to 4294967295`},
		"all at once":  {`{"hostname":1,"root":{"path":[],"readonly":0},"mounts":[{"options":[1,"ro",{}]},7],"linux":{"sysctl":{"a":1}}}`, "/hostname: is a number; write a string\n/root/path: is an array; write a string\n/root/readonly: is a number; write true or false\n/mounts/0/options/0: is a number; write a string\n/mounts/0/options/2: is an object; write a string\n/mounts/1: is a number; write an object\n/linux/sysctl/a: is a number; write a string"},
		"then garbage": {`{"hostname":1,"root":{"path":}}`, "/hostname: is a number; write a string\n/root/path: is not JSON: invalid character '}' at start of value at line 1, column 30; correct it there"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeConfig([]byte(test.in))
			if err == nil {
				t.Fatal("no error")
			}
			if got := err.Error(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestIgnored: what the specification does not know, and what it has for other
// systems, is passed over whatever it holds.
func TestIgnored(t *testing.T) {
	c, err := decodeConfig(fmt.Appendf(nil, minimal, `,"windows":7,"vm":[{}],"x":{"y":[1e999,null,"\u0000"]},"Hostname":1,"process":{"cwd":"/","user":{"username":5}}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Spec.Hostname != "" || c.Spec.Process.Cwd != "/" || c.Spec.Windows != nil {
		t.Errorf("got %+v", c.Spec)
	}
}

// TestNull: Go programs write null for what they leave out.
func TestNull(t *testing.T) {
	c, err := decodeConfig([]byte(`{"ociVersion":null,"process":null,"mounts":null,"annotations":null,"linux":{"seccomp":null,"resources":{"pids":{"limit":null}},"maskedPaths":null}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{}}}}
	if diff := cmp.Diff(want, c.Spec); diff != "" || c.Seccomp != nil {
		t.Errorf("%s\nseccomp %q", diff, c.Seccomp)
	}
}

func TestSeccompBytes(t *testing.T) {
	for _, profile := range []string{
		`{ "defaultAction" : "SCMP_ACT_ALLOW", "x":[1, 2] }`,
		`{"listener\u0050ath":"/s"}`,
	} {
		c, err := decodeConfig(fmt.Appendf(nil, minimal, `,"linux":{"seccomp":`+profile+`}`))
		if err != nil {
			t.Fatal(err)
		}
		if string(c.Seccomp) != profile || c.Spec.Linux.Seccomp != nil {
			t.Errorf("%s: got %s", profile, c.Seccomp)
		}
	}
}

func TestLoadSpec(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "config.json", fmt.Sprintf(minimal, `,"hostname":"h"`))
	for _, bundle := range []string{dir, ".", "", dir + "/./"} {
		c, err := LoadSpec(bundle)
		if err != nil {
			t.Fatal(err)
		}
		if c.Bundle != dir || c.Spec.Hostname != "h" {
			t.Errorf("LoadSpec(%q) = %+v", bundle, c)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestHostileFiles: none of them may block, take long, or eat memory.
func TestHostileFiles(t *testing.T) {
	sparse := func(size int64) func(string) error {
		return func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
		}
	}
	link := func(to string) func(string) error {
		return func(path string) error { return os.Symlink(to, path) }
	}
	for name, test := range map[string]struct {
		make  func(path string) error
		text  string
		cause error
	}{
		"missing":         {func(string) error { return nil }, "open %s: no such file or directory", os.ErrNotExist},
		"fifo":            {func(p string) error { return unix.Mkfifo(p, 0o600) }, "read %s: not a regular file", nil},
		"directory":       {func(p string) error { return os.Mkdir(p, 0o700) }, "read %s: not a regular file", nil},
		"device":          {link("/dev/zero"), "read %s: not a regular file", nil},
		"terminal":        {link("/dev/ptmx"), "read %s: not a regular file", nil},
		"loop":            {link("config.json"), "open %s: too many levels of symbolic links", syscall.ELOOP},
		"dangling":        {link("nowhere"), "open %s: no such file or directory", os.ErrNotExist},
		"100 MB":          {sparse(100 << 20), "read %s: file too large: at most 16 MiB", syscall.EFBIG},
		"one byte over":   {sparse(maxConfig + 1), "read %s: file too large: at most 16 MiB", syscall.EFBIG},
		"socket":          {func(p string) error { return unixSocket(p) }, "open %s: no such device or address", syscall.ENXIO},
		"NUL all through": {sparse(1 << 20), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "config.json")
			if err := test.make(path); err != nil {
				t.Skip(err)
			}
			start := time.Now()
			_, err := LoadSpec(dir)
			if err == nil {
				t.Fatal("no error")
			}
			if test.text != "" && err.Error() != fmt.Sprintf(test.text, path) {
				t.Errorf("got %v", err)
			}
			if test.cause != nil && !errors.Is(err, test.cause) {
				t.Errorf("%v is not %v", err, test.cause)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func unixSocket(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

// TestSymlink: a link to a regular file is a config; whoever makes bundles may share one.
func TestSymlink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "shared.json"), fmt.Sprintf(minimal, ""))
	if err := os.Symlink("shared.json", filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSpec(dir); err != nil {
		t.Error(err)
	}
}

// reference decodes with json/v2 what decodeConfig decodes by its tables.
func reference(data []byte) (*specs.Spec, error) {
	s := &specs.Spec{}
	err := json.Unmarshal(data, s)
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	s.Linux.Seccomp, s.Solaris, s.Windows, s.VM, s.ZOS, s.FreeBSD = nil, nil, nil, nil, nil, nil
	if s.Process != nil {
		s.Process.CommandLine, s.Process.User.Username = "", ""
	}
	return s, err
}

// TestEveryField fills each field that specs-go has and compares with json/v2: a field
// that a new version of the specification adds fails here until it has its row.
func TestEveryField(t *testing.T) {
	s := &specs.Spec{}
	fill(reflect.ValueOf(s).Elem(), 0)
	data, err := json.Marshal(s, jsontext.WithIndent("  "))
	if err != nil {
		t.Fatal(err)
	}
	want, err := reference(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Error(diff)
	}
	if len(got.Seccomp) == 0 {
		t.Error("no seccomp")
	}
}

// fill sets every value below v to something that is not zero.
func fill(v reflect.Value, n int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			if p := v.Type().Field(i).Tag.Get("platform"); p == "" || strings.Contains(p, "linux") {
				fill(v.Field(i), n+i+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e, n)
		v.SetMapIndex(reflect.ValueOf("k"), e)
	case reflect.String:
		v.SetString(fmt.Sprint("s", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(-n - 1))
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(n + 1))
	}
}

// FuzzLoad: whatever decodeConfig takes, json/v2 takes too and to the same effect; what
// it refuses, it refuses with a pointer and in one line a problem; and no config that
// decodes makes Validate or its messages fall over.
func FuzzLoad(f *testing.F) {
	for _, dir := range []string{"testdata/config/*.json", "testdata/config/hostile/*"} {
		files, err := filepath.Glob(dir)
		if err != nil || len(files) == 0 {
			f.Fatal("no corpus", err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeConfig(data)
		if err != nil {
			checkProblems(t, err)
			return
		}
		want, err := reference(data)
		if err != nil {
			if !foreign(err) {
				t.Fatalf("json/v2 refuses it: %v", err)
			}
			return
		}
		if diff := cmp.Diff(want, c.Spec); diff != "" {
			t.Fatal(diff)
		}
		c.Bundle = "/nowhere"
		warnings, err := Validate(c)
		if err != nil {
			checkProblems(t, err)
		}
		if len(warnings) > 0 {
			checkProblems(t, &Problems{warnings})
		}
	})
}

// foreign tells whether the error is about what is not decoded here: other systems'
// objects and the profile.
func foreign(err error) bool {
	var e *json.SemanticError
	if !errors.As(err, &e) {
		return false
	}
	for _, p := range []string{"/windows", "/solaris", "/vm", "/zos", "/freebsd", "/linux/seccomp", "/process/commandLine", "/process/user/username"} {
		if e.JSONPointer == jsontext.Pointer(p) || strings.HasPrefix(string(e.JSONPointer), p+"/") {
			return true
		}
	}
	return false
}

func checkProblems(t *testing.T, err error) {
	t.Helper()
	var p *Problems
	if !errors.As(err, &p) || len(p.List) == 0 {
		t.Fatalf("not a list of problems: %v", err)
	}
	for _, problem := range p.List {
		s := problem.String()
		if strings.ContainsAny(s, "\n\r\x00\x1b") || len(s) > 1500 || problem.Text == "" || problem.Instead == "" {
			t.Fatalf("a bad message: %q", s)
		}
		if problem.Field != "" && problem.Field[0] != '/' {
			t.Fatalf("not a JSON pointer: %q", problem.Field)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	data, err := os.ReadFile("testdata/config/runc.json")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeConfig(data); err != nil {
			b.Fatal(err)
		}
	}
}
