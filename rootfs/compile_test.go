package rootfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Each testdata/NAME.json compiles to testdata/NAME.plan. After a change that
// is meant: go test ./rootfs -run TestPlans -update.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			must(t, err)
			var in struct {
				Options Options
				Spec    specs.Spec
			}
			d := json.NewDecoder(bytes.NewReader(data))
			d.DisallowUnknownFields()
			must(t, d.Decode(&in))
			got := plan(Compile(&in.Spec, in.Options))
			golden := strings.TrimSuffix(file, ".json") + ".plan"
			if *update {
				must(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func plan(before, after []Step, err error) string {
	var b strings.Builder
	show := func(steps []Step) {
		for i := range steps {
			s := &steps[i]
			who := "child "
			if s.FD {
				who = "parent"
			}
			fmt.Fprintf(&b, "%s %-26s %s\n", who, s.Field, s)
		}
	}
	show(before)
	if len(after) > 0 {
		fmt.Fprintln(&b, "-- hooks --")
		show(after)
	}
	if err != nil {
		fmt.Fprintf(&b, "-- errors --\n%v\n", err)
	}
	return b.String()
}

func TestErrorsAreFieldErrors(t *testing.T) {
	_, _, err := Compile(&specs.Spec{
		Root:   &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{{Destination: "/x", Options: []string{"bind", "sizes=1"}}},
	}, Options{Bundle: "/b", Mounts: true})
	var field *FieldError
	if !errors.As(err, &field) || field.Field != "/mounts/0/options/1" {
		t.Errorf("%v", err)
	}
}

// Compile reads the specification, it does not write to it.
func TestCompileKeepsSpec(t *testing.T) {
	spec, same := standard(), standard()
	for range 2 {
		if _, _, err := Compile(spec, Options{Bundle: "/b", Mounts: true, UserNS: true, Privileged: true}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(same, spec); diff != "" {
		t.Error(diff)
	}
}

func TestEveryOpHasWords(t *testing.T) {
	for op := OpPropagation; op <= OpRootPropagation; op++ {
		if text := (&Step{Op: op}).String(); strings.HasPrefix(text, "op ") {
			t.Errorf("no words for %s", text)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	spec := standard()
	for b.Loop() {
		if _, _, err := Compile(spec, Options{Bundle: "/b", Mounts: true, Privileged: true}); err != nil {
			b.Fatal(err)
		}
	}
}
