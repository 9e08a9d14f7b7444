package integration

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// later are the parts of the specification that husk refuses or ignores so far,
// and those of other platforms.
var later = []string{
	"/solaris", "/windows", "/vm", "/zos", "/freebsd",
	"/process/commandLine", "/process/user/username",
}

// A field of the configuration, by JSON pointer without indexes, and its Go name.
type field struct{ pointer, key, name string }

// fields walks the one configuration type there is.
func fields(t reflect.Type, prefix string) []field {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var list []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" && f.Anonymous {
			list = append(list, fields(f.Type, prefix)...)
			continue
		}
		pointer := prefix + "/" + key
		if key == "" || key == "-" || slices.Contains(later, pointer) {
			continue
		}
		list = append(list, field{pointer, key, f.Name})
		list = append(list, fields(f.Type, pointer)...)
	}
	return list
}

// text joins files of the repository.
func text(t *testing.T, keep func(path string) bool, patterns ...string) string {
	t.Helper()
	var all strings.Builder
	for _, p := range patterns {
		paths, _ := filepath.Glob(p)
		for _, path := range paths {
			if data, err := os.ReadFile(path); err == nil && keep(path) {
				all.Write(data)
			}
		}
	}
	return all.String()
}

// TestConformance fails when a field of the specification has no code that reads
// it or no test that sets it. With -v it prints the table.
func TestConformance(t *testing.T) {
	isTest := func(path string) bool { return strings.HasSuffix(path, "_test.go") }
	code := text(t, func(p string) bool { return !isTest(p) }, "../runtime/*.go", "../rootfs/*.go", "../cgroups/*.go", "../seccomp/*.go", "../seccomp/libseccomp/*.go", "../namespaces/*.go")
	tests := text(t, isTest, "*_test.go", "../*/*_test.go", "../*/*/*_test.go")
	scripts := text(t, func(string) bool { return true }, "testdata/*.txtar", "../*/testdata/*.json", "../*/testdata/*.plan", "../*/testdata/*/*.json")
	for _, f := range fields(reflect.TypeFor[specs.Spec](), "") {
		name := regexp.MustCompile(`\b` + f.name + `\b`)
		inCode := name.MatchString(code)
		inTests := name.MatchString(tests) || regexp.MustCompile(`["/]`+f.key+`\b`).MatchString(scripts+tests)
		t.Logf("%-50s code %-5v test %v", f.pointer, inCode, inTests)
		if !inCode {
			t.Errorf("%s: no code reads it", f.pointer)
		}
		if !inTests {
			t.Errorf("%s: no test sets it", f.pointer)
		}
	}
}
