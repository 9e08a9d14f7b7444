package cgroups

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write limits.md anew")

// TestLimitsPage keeps limits.md in step with the table.
func TestLimitsPage(t *testing.T) {
	want := page()
	if *update {
		must(t, os.WriteFile("limits.md", []byte(want), 0o644))
	}
	got, err := os.ReadFile("limits.md")
	must(t, err)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("limits.md: run go test ./cgroups -run TestLimitsPage -update\n%s", diff)
	}
}

func page() string {
	var b strings.Builder
	b.WriteString(`# Limits

What becomes of each field below ` + "`/linux/resources`" + `. Generated from the table in ` + "`limits.go`" + `;
` + "`husk plan BUNDLE`" + ` shows the result for one configuration. Devices are not files but a
program: see ` + "`CompileDevices`" + `.

**early** limits are written while the container's init starts, **late** ones when it is
parked, since they could strangle it; ` + "`husk update`" + ` writes them in this order too, except that
memory is taken away last. A file that the kernel or the machine does not have is an
error, unless the value is what such a kernel does anyway.

| field | file | when | value |
|---|---|---|---|
`)
	for _, r := range table {
		file, when, text := "`"+r.file+"`", "early", r.text
		if r.late {
			when = "late"
		}
		if r.file == "" {
			file, when = "none", ""
			if !strings.HasPrefix(text, "ignored") {
				text = "refused: " + text
			}
		}
		b.WriteString("| `" + r.field + "` | " + file + " | " + when + " | " + strings.ReplaceAll(text, "|", `\|`) + " |\n")
	}
	return b.String()
}

// TestTableIsComplete: every field that the specification has, and no other, has its row.
func TestTableIsComplete(t *testing.T) {
	want := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[specs.LinuxResources]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		part := f.Type
		if part.Kind() != reflect.Pointer || name == "network" { // two fields, one row: neither exists
			want[name] = true
			continue
		}
		for _, f := range reflect.VisibleFields(part.Elem()) {
			inner, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			want[name+"/"+inner] = true
		}
	}
	delete(want, "devices") // a program
	got := map[string]bool{}
	for _, r := range table {
		got[r.field] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
