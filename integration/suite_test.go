package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// suitePrograms is how many there are: one that is not built would not be missed.
const suitePrograms = 58

// TestSuite runs the programs of the official validation suite, each in a box of its
// own. What they print as TAP must be without complaint, or complain of exactly what
// suite/failures.txt explains.
func TestSuite(t *testing.T) {
	forSuite(t, box, func(t *testing.T, program string) {
		verdict := runProgram(t, program, nil, "RUNTIME="+runtimePath())
		b := &bundle{t: t, dir: t.TempDir()}
		for _, id := range strings.Fields(b.must("list", "-q").stdout) {
			b.must("delete", "--force", id) // programs that fail leave them behind
		}
		expected := failuresOf(t, program)
		if got := verdict.complaints(); !expected.allows(got) {
			t.Errorf("complains of\n  %s\nexpected (suite/failures.txt)\n  %s\n%s\n%s",
				strings.Join(got, "\n  "), strings.Join(expected.complaints, "\n  "), verdict.out, verdict.err)
		}
		for _, text := range expected.said {
			if !strings.Contains(verdict.err, text) {
				t.Errorf("does not say %q:\n%s", text, verdict.err)
			}
		}
	})
}

// TestSuitePeers: whatever another runtime passes, husk passes too, or
// suite/failures.txt says why passing is wrong.
func TestSuitePeers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes; part of make test")
	}
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			reference := referenceOf(t, name)
			forSuite(t, looseBox, func(t *testing.T, program string) {
				verdict := runProgram(t, program, reference[:len(reference)-1], "RUNTIME="+reference[len(reference)-1])
				got, expected := verdict.complaints(), failuresOf(t, program)
				if got == nil && len(expected.complaints) > 0 && !expected.sometimes && !slices.Contains(expected.wrongly, name) {
					t.Errorf("passes, which husk does not")
				}
				t.Logf("complains of %q", got)
			})
		})
	}
}

// looseBox is a box that may be left in disorder.
func looseBox(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(envTest) != "" {
		f(t)
		return
	}
	t.Parallel()
	runBox(t)
}

// forSuite runs f for each program in a box.
func forSuite(t *testing.T, box func(*testing.T, func(*testing.T)), f func(t *testing.T, program string)) {
	t.Helper()
	dir, _, err := buildSuite()
	if err != nil {
		t.Skip(err)
	}
	programs, err := filepath.Glob(dir + "/bin/*")
	if err != nil {
		t.Fatal(err)
	}
	programs = slices.DeleteFunc(programs, func(p string) bool { return filepath.Base(p) == "runtimetest" })
	if len(programs) != suitePrograms {
		t.Errorf("%d programs, want %d", len(programs), suitePrograms)
	}
	for _, p := range programs {
		t.Run(filepath.Base(p), func(t *testing.T) {
			box(t, func(t *testing.T) { f(t, p) })
		})
	}
}

// buildSuite returns where the built suite is, and its sources. In a box or a VM it
// comes from outside, without the sources.
func buildSuite() (dir, source string, err error) {
	if dir := os.Getenv("HUSK_SUITE"); dir != "" {
		return dir, "", nil
	}
	out, err := builtSuite()
	if err != nil {
		return "", "", err
	}
	dir, source, _ = strings.Cut(strings.TrimSpace(out), " ")
	os.Setenv("HUSK_SUITE", dir) // for the boxes
	return dir, source, nil
}

var builtSuite = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("suite/build.sh")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("needs the validation suite: build.sh: %w: %s", err, stderr.Bytes())
	}
	return string(out), nil
})

// A verdict is what a program of the suite found.
type verdict struct {
	out, err     string
	code         int
	failed       []string // lines "not ok"
	said         []string // errors in diagnostics
	ran, planned int
	silent       bool // it prints nothing if all is well
}

// runProgram runs a program in a directory as the suite wants it, by way of a prefix
// that may enter another root.
func runProgram(t *testing.T, program string, prefix []string, environment string) *verdict {
	t.Helper()
	dir := t.TempDir()
	suite := os.Getenv("HUSK_SUITE")
	files, _ := filepath.Glob(suite + "/rootfs-*.tar.gz")
	for _, f := range append(files, suite+"/bin/runtimetest", program) {
		must(t, copyFile(f, filepath.Join(dir, filepath.Base(f))))
	}
	args := append(slices.Clone(prefix), "./"+filepath.Base(program))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environment)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r := runCmd(t, cmd)
	v := &verdict{silent: strings.HasSuffix(program, "_fail"), out: unique.ReplaceAllString(r.stdout, "X"), err: unique.ReplaceAllString(r.stderr, "X"), code: r.code}
	v.parse()
	return v
}

// unique are the names that programs make up.
var unique = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|/[/\w]*/ocitest\d+`)

// parse reads TAP, version 13. Diagnostics lie in blocks between --- and ..., in JSON.
func (v *verdict) parse() {
	var block strings.Builder
	inBlock := false
	for line := range strings.Lines(v.out) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "  ---":
			inBlock = true
			block.Reset()
		case line == "  ...":
			inBlock = false
			var d struct{ Error string }
			if json.Unmarshal([]byte(block.String()), &d) == nil && d.Error != "" {
				first, _, _ := strings.Cut(d.Error, "\n")
				v.said = append(v.said, first)
			}
		case inBlock:
			block.WriteString(line)
		default:
			v.line(line)
		}
	}
}

func (v *verdict) line(line string) {
	var n int
	switch {
	case strings.HasPrefix(line, "ok "):
		v.ran++
	case strings.HasPrefix(line, "not ok "):
		v.ran++
		v.failed = append(v.failed, line)
	default:
		if k, _ := fmt.Sscanf(line, "1..%d", &n); k == 1 {
			v.planned += n
		}
	}
}

// complaints is empty if all is well. Programs without a single check say in a
// diagnostic what is wrong.
func (v *verdict) complaints() []string {
	list := v.failed
	if v.ran == 0 {
		for _, s := range v.said {
			list = append(list, "says "+s)
		}
	}
	if v.code != 0 {
		list = append(list, fmt.Sprintf("exit %d", v.code))
	} else if v.ran != v.planned || v.out == "" && !v.silent {
		list = append(list, fmt.Sprintf("%d of %d checks", v.ran, v.planned))
	}
	return list
}
