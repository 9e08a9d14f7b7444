package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// readmeBlocks returns the fenced blocks of a language in the README.
func readmeBlocks(t *testing.T, lang string) []string {
	t.Helper()
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+lang+"\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("no %s block in the README", lang)
	}
	return blocks
}

// typed is a command of the README and what it is said to print, where … stands for
// anything, also for any number of lines when it is alone on one.
type typed struct{ command, output string }

func typedCommands(blocks []string) (list []typed) {
	for line := range strings.Lines(strings.Join(blocks, "")) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			list = append(list, typed{command: command})
		} else {
			list[len(list)-1].output += line
		}
	}
	return list
}

// matches compares what a command printed with what the README says. Columns may be
// of any width.
func (c typed) matches(output string) bool {
	spaces := regexp.MustCompile(" +")
	pattern := regexp.QuoteMeta(spaces.ReplaceAllString(c.output, " "))
	pattern = regexp.MustCompile("(?m)^…\n").ReplaceAllString(pattern, "(?:.*\n)*")
	pattern = strings.ReplaceAll(pattern, "…", ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(spaces.ReplaceAllString(output, " "))
}

// The README's tour, typed into one shell as it stands there.
func TestREADMETour(t *testing.T) {
	box(t, func(t *testing.T) { typeCommands(t, "console") })
}

// What it says of sandboxes needs no bundle.
func TestREADMESandbox(t *testing.T) {
	box(t, func(t *testing.T) {
		onDisk(t)
		typeCommands(t, "console sandbox")
	})
}

// Its second part needs controllers.
func TestREADMELimits(t *testing.T) {
	box(t, func(t *testing.T) {
		for _, name := range []string{"memory", "cpu", "pids"} {
			if ok, _ := scriptCondition("controller:" + name); !ok {
				t.Skip("no controller in cgroup2: " + name)
			}
		}
		typeCommands(t, "console", "console limits")
	})
}

func typeCommands(t *testing.T, blocks ...string) {
	var commands []typed
	for _, b := range blocks {
		commands = append(commands, typedCommands(readmeBlocks(t, b))...)
	}
	const mark = "=== next command ==="
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "%s\necho '%s'\n", strings.TrimSuffix(c.command, "\n"), mark)
	}
	dir := t.TempDir()
	if err := os.Symlink(runtimePath(), dir+"/husk"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(script.String())
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("sh: %v", err)
	}
	printed := strings.Split(string(out), mark+"\n")
	for i, c := range commands {
		if i >= len(printed) {
			t.Fatalf("the shell ended before: %s", c.command)
		}
		if !c.matches(printed[i]) {
			t.Errorf("$ %sis said to print:\n%s\nit prints:\n%s", c.command, c.output, printed[i])
		}
	}
}

// The two commands for newcomers, and whatever make target the README names, exist.
func TestREADMETargets(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	needProgram(t, "make")
	list, err := exec.Command("make", "-s", "-C", "..").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(string(b), -1) {
		if !bytes.Contains(list, []byte("make "+m[1]+" ")) {
			t.Errorf("the README names make %s, which is no target:\n%s", m[1], list)
		}
	}
}

// The library example creates a container, executes a program in it, and deletes it.
func TestREADMELibrary(t *testing.T) {
	needProgram(t, "go")
	box(t, func(t *testing.T) {
		program := buildExample(t, readmeBlocks(t, "go")[0])
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		r := run(t, program, b.dir, "/bin/sh", "-c", "echo one more; exit 5")
		if r.code != 5 || r.stdout != "one more\n" {
			t.Errorf("exit %d, %q, %s", r.code, r.stdout, r.stderr)
		}
		if r := run(t, program, b.dir, "missing"); r.code != 1 || !strings.Contains(r.stderr, "executable file not found") {
			t.Errorf("exit %d, %s", r.code, r.stderr)
		}
		if r := run(t, program, "/missing", "true"); r.code != 1 || !strings.Contains(r.stderr, "create job-1: ") {
			t.Errorf("exit %d, %s", r.code, r.stderr)
		}
	})
}

// buildExample builds a program inside the module without being a part of it.
func buildExample(t *testing.T, text string) string {
	t.Helper()
	source := filepath.Join(t.TempDir(), "main.go")
	must(t, os.WriteFile(source, []byte(text), 0o644))
	here, err := filepath.Abs(".")
	must(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{here + "/readme/main.go": source}})
	must(t, err)
	file, program := filepath.Join(t.TempDir(), "overlay.json"), filepath.Join(t.TempDir(), "program")
	must(t, os.WriteFile(file, overlay, 0o644))
	cmd := exec.Command("go", "build", "-overlay", file, "-o", program, "./readme")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("needs the program " + name)
	}
}
