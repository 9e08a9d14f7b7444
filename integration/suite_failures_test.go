package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A failure is a paragraph of suite/failures.txt: what a program of the suite
// complains of although husk is right.
type failure struct {
	programs   []string // that fail in this way
	when       []string // conditions of scripts, all of which hold
	complaints []string
	said       []string // on standard error
	lines      []string // FILE:LINE: TEXT of the suite that is wrong
	spec       []string // FILE: TEXT of the specification that says so
	why        []string
	wrongly    []string // runtimes that pass, and should not
	sometimes  bool     // there is a race: any of the complaints, or none
}

// allows says whether these are the complaints that are expected.
func (f *failure) allows(got []string) bool {
	if !f.sometimes {
		return slices.Equal(got, f.complaints)
	}
	return !slices.ContainsFunc(got, func(c string) bool { return !slices.Contains(f.complaints, c) })
}

// readFailures reads paragraphs of lines "key value"; an indented line goes on.
func readFailures() ([]failure, error) {
	data, err := os.ReadFile("suite/failures.txt")
	if err != nil {
		return nil, err
	}
	text := strings.ReplaceAll(string(data), "\n\t", " ")
	var all []failure
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		var f failure
		for line := range strings.Lines(paragraph) {
			if err := f.set(strings.TrimSpace(line)); err != nil {
				return nil, err
			}
		}
		if f.programs != nil {
			all = append(all, f)
		}
	}
	return all, nil
}

func (f *failure) set(line string) error {
	key, value, _ := strings.Cut(line, " ")
	lists := map[string]*[]string{
		"complains": &f.complaints, "stderr": &f.said, "line": &f.lines, "spec": &f.spec, "why": &f.why,
	}
	switch list := lists[key]; {
	case key == "" || key[0] == '#':
	case key == "complains":
		*list = append(*list, repeat(value)...)
	case list != nil:
		*list = append(*list, value)
	case key == "program":
		f.programs = strings.Fields(value)
	case key == "when":
		f.when = strings.Fields(value)
	case key == "wrongly":
		f.wrongly = strings.Fields(value)
	case key == "sometimes":
		f.sometimes = true
	default:
		return fmt.Errorf("failures.txt: %q: no such key", line)
	}
	return nil
}

// repeat makes several lines of one that has {1..N} for a number.
func repeat(line string) []string {
	before, rest, ok := strings.Cut(line, "{1..")
	number, after, closed := strings.Cut(rest, "}")
	n, err := strconv.Atoi(number)
	if !ok || !closed || err != nil {
		return []string{line}
	}
	lines := make([]string, n)
	for i := range lines {
		lines[i] = before + strconv.Itoa(i+1) + after
	}
	return lines
}

// failuresOf is what is expected of a program on this machine.
func failuresOf(t *testing.T, program string) (f failure) {
	t.Helper()
	all, err := readFailures()
	must(t, err)
	for _, one := range all {
		if slices.Contains(one.programs, filepath.Base(program)) && holds(t, one.when) {
			if f.programs != nil {
				t.Errorf("failures.txt: two paragraphs apply")
			}
			f = one
		}
	}
	return f
}

func holds(t *testing.T, conditions []string) bool {
	t.Helper()
	for _, c := range conditions {
		name, not := strings.CutPrefix(c, "!")
		ok, err := scriptCondition(name)
		must(t, err)
		if ok == not {
			return false
		}
	}
	return true
}

// TestSuiteFailures: every explanation is complete, and what it quotes is there.
func TestSuiteFailures(t *testing.T) {
	all, err := readFailures()
	must(t, err)
	_, source, err := buildSuite()
	if err != nil {
		t.Skip(err)
	}
	if source == "" {
		t.Skip("needs the sources of the suite, which a VM has not")
	}
	spec := moduleDir(t, "github.com/opencontainers/runtime-spec")
	for _, f := range all {
		if f.complaints == nil || f.lines == nil || f.spec == nil || f.why == nil {
			t.Errorf("%v: needs complains, line, spec and why", f.programs)
		}
		for _, p := range f.programs {
			if _, err := os.Stat(source + "/validation/" + p); err != nil {
				t.Error(err)
			}
		}
		for _, line := range f.lines {
			checkQuote(t, source, line)
		}
		for _, quote := range f.spec {
			file, text, _ := strings.Cut(quote, ": ")
			data, err := os.ReadFile(filepath.Join(spec, file))
			if err != nil || !strings.Contains(squeeze(string(data)), squeeze(text)) {
				t.Errorf("%v: %s does not say %q: %v", f.programs, file, text, err)
			}
		}
	}
}

// checkQuote wants TEXT in line LINE of FILE.
func checkQuote(t *testing.T, source, quote string) {
	t.Helper()
	at, text, _ := strings.Cut(quote, ": ")
	file, number, _ := strings.Cut(at, ":")
	var n int
	fmt.Sscan(number, &n)
	data, err := os.ReadFile(filepath.Join(source, file))
	if err != nil {
		t.Error(err)
		return
	}
	lines := strings.Split(string(data), "\n")
	if n < 1 || n > len(lines) || text == "" || !strings.Contains(lines[n-1], text) {
		t.Errorf("%s: %q is not there", at, text)
	}
}

func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Skipf("needs the go command and its module cache: %v", err)
	}
	return strings.TrimSpace(string(out))
}

var markdownLink = regexp.MustCompile(`\[([^]]*)\](\([^)]*\)|\[[^]]*\])`)

// squeeze drops what Markdown adds to words: links, code, line breaks.
func squeeze(s string) string {
	s = markdownLink.ReplaceAllString(s, "$1")
	return strings.Join(strings.Fields(strings.NewReplacer("`", "", "*", "").Replace(s)), " ")
}
