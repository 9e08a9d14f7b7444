package runtime

import (
	"bytes"
	"encoding/json/v2"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/seccomp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// compileFile compiles a config as if it lay in /bundle.
func compileFile(t *testing.T, file string) *Plan {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := decodeConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	c.Bundle = "/bundle"
	p, err := Compile(c, "ID", PlanOptions{Filter: func([]byte) (*seccomp.Filter, error) {
		return &seccomp.Filter{BPF: make([]byte, 16), Flags: 2}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGoldenPlans compares the plans of the configs in testdata/plan with what they
// were: whoever changes what husk does to a process sees it here as a line that differs.
func TestGoldenPlans(t *testing.T) {
	files, _ := filepath.Glob("testdata/plan/*.json")
	if len(files) == 0 {
		t.Fatal("no configs")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var got bytes.Buffer
			if err := compileFile(t, file).Write(&got, false); err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".json") + ".plan"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("the plan changed (go test -update writes it anew):\n%s", d)
			}
		})
	}
}

func TestPlanAsJSON(t *testing.T) {
	p := compileFile(t, "testdata/plan/full.json")
	var b bytes.Buffer
	if err := p.Write(&b, true); err != nil {
		t.Fatal(err)
	}
	var lines []Line
	if err := json.Unmarshal(b.Bytes(), &lines); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p.Lines(), lines); d != "" {
		t.Error(d)
	}
}

// index returns the place of the first step with the operation, -1 if there is none.
func index(p *Plan, op Op) int {
	return slices.IndexFunc(p.Steps, func(s Step) bool { return s.Op == op })
}

// TestOrderOfPrivileges: what each step needs must not be gone before it.
func TestOrderOfPrivileges(t *testing.T) {
	const file = "testdata/plan/full.json"
	p := compileFile(t, file)
	order := []Op{opKeyring, opSession, opOutside, opSysctl, opCwd, opReady, opStdio, opBounding, opUser, opCaps, opAmbient, opUmask, opRlimit, opNoNewPrivs, opSeccomp, opExec}
	for k := 1; k < len(order); k++ {
		if a, b := index(p, order[k-1]), index(p, order[k]); a < 0 || b < 0 || a > b {
			t.Errorf("operation %d is at %d, operation %d at %d", order[k-1], a, order[k], b)
		}
	}
	p.config.Spec.Process.NoNewPrivileges = false
	q, err := Compile(p.config, "ID", PlanOptions{Filter: func([]byte) (*seccomp.Filter, error) {
		return &seccomp.Filter{BPF: make([]byte, 16)}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if s, b := index(q, opSeccomp), index(q, opBounding); s < 0 || s > b {
		t.Errorf("without noNewPrivileges the filter needs CAP_SYS_ADMIN, but is at %d after %d", s, b)
	}
}

func TestEveryStepHasWords(t *testing.T) {
	for op := opRootfs; op <= opExec; op++ {
		s := Step{Op: op, Args: []string{"a", "b", "c"}, Nums: []int64{1, 1, 1, 1, 1, 1, 1}}
		if op == opRootfs {
			continue // package rootfs tests its own
		}
		if text := s.String(); text == "" || strings.HasPrefix(text, "operation ") {
			t.Errorf("operation %d says %q", op, text)
		}
	}
}

func TestPointer(t *testing.T) {
	if p := pointer("/linux/sysctl", "net/a~b"); p != "/linux/sysctl/net~1a~0b" {
		t.Error(p)
	}
}
