package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// call runs one command line with a state root of its own, unless args name one.
func call(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	a := &app{stdout: &out, stderr: &err}
	status = a.main(append([]string{"--root", t.TempDir()}, args...))
	return status, out.String(), err.String()
}

// Engines write the global flags in every way that their own libraries know.
func TestGlobalFlagForms(t *testing.T) {
	want := app{root: "/r", log: "/l", logFormat: "json", debug: true, cgroups: "systemd", rootless: "true"}
	for _, line := range []string{
		"--root /r --log /l --log-format json --debug --systemd-cgroup --rootless true",
		"--root=/r --log=/l --log-format=json --debug=true --systemd-cgroup=true --rootless=true",
		"-root /r -log /l -log-format json -debug -systemd-cgroup -rootless true",
		"-root=/r -log=/l -log-format=json -debug=1 -systemd-cgroup=1 -rootless=true",
	} {
		var got app
		fs := newFlags("husk")
		got.globals(fs)
		if err := fs.Parse(strings.Fields(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(app{})); diff != "" {
			t.Errorf("%s:\n%s", line, diff)
		}
	}
}

// What engines pass to each command must parse: the lines are those of go-runc,
// conmon, CRI-O and BuildKit.
func TestEnginesCommandLines(t *testing.T) {
	for _, line := range []string{
		"create --bundle /b --pid-file /b/init.pid --console-socket /s --no-pivot --no-new-keyring c",
		"create --bundle /b --pid-file /b/pid --preserve-fds 2 c",
		"create -b /b c",
		"run --bundle /b --keep c",
		"run -d --bundle /b c",
		"run --bundle /b --no-subreaper=true --detach=false c",
		"start c",
		"state c",
		"kill c 9",
		"kill --all c 15",
		"kill -a c SIGKILL",
		"kill c SIGTERM",
		"ps --format json c",
		"ps c -ef",
		"update --resources=- c",
		"update -r /f c",
		"events --stats c",
		"events --interval 100ms c",
		"pause c",
		"resume c",
		"delete --force c",
		"delete -f c",
		"delete c",
		"list --format json",
		"list -f json -q",
		"features",
		"spec --bundle /b --rootless",
		"plan --json /b",
	} {
		args := strings.Fields(line)
		c := find(args[0])
		fs := newFlags(c.name)
		c.setup(fs)
		err := fs.Parse(args[1:])
		if err == nil {
			err = c.arity(fs.Args())
		}
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct {
		line   string
		status int
		stderr string // each line of it
	}{
		{"checkpoint --help", 3, "husk: error: unknown command \"checkpoint\": checkpoints are not built yet\nhusk: hint: husk help lists the commands"},
		{"restore --lsm-mount-context", 3, "husk: error: unknown command \"restore\": checkpoints are not built yet\nhusk: hint: husk help lists the commands"},
		{"frobnicate", 3, "husk: error: unknown command \"frobnicate\"\nhusk: hint: husk help lists the commands"},
		{"--frobnicate list", 1, "husk: error: flag provided but not defined: -frobnicate\nhusk: hint: husk help lists the commands and global flags"},
		// Podman probes for features by an engine's words for a flag without its value.
		{"create --bundle", 1, "husk: error: create: flag needs an argument: -bundle\nhusk: hint: husk help create lists its flags"},
		{"state", 1, "husk: error: state: too few arguments\nhusk: hint: usage: husk state [flags] ID"},
		{"kill a b c", 1, "husk: error: kill: too many arguments: [\"a\" \"b\" \"c\"]\nhusk: hint: usage: husk kill [flags] ID [SIGNAL]"},
		{"delete a --force", 1, "husk: error: delete: too many arguments: [\"a\" \"--force\"]\nhusk: hint: flags go before the container's id: husk delete --force ID"},
		{"list --root /x", 1, "husk: error: list: flag provided but not defined: -root\nhusk: hint: global flags go before the command: husk --root … list"},
		{"list --format yaml", 1, "husk: error: unknown format \"yaml\"\nhusk: hint: give --format table or json"},
		{"--log-format xml list", 1, "husk: error: unknown log format \"xml\"\nhusk: hint: give --log-format text or json"},
		{"--rootless maybe list", 1, "husk: error: unknown value \"maybe\" of --rootless\nhusk: hint: give --rootless true, false or auto"},
		{"kill c FROB", 1, "husk: error: unknown signal \"FROB\"\nhusk: hint: a number from 0 to 64 or a name such as KILL, SIGKILL or RTMIN+3"},
		{"completion tcsh", 1, "husk: error: no completion for \"tcsh\"\nhusk: hint: bash, zsh and fish are known"},
		{"help frobnicate", 3, "husk: error: unknown command \"frobnicate\"\nhusk: hint: husk help lists the commands"},
	} {
		status, stdout, stderr := call(t, strings.Fields(test.line)...)
		if status != test.status || stderr != test.stderr+"\n" || stdout != "" {
			t.Errorf("%s: status %d, stdout %q, stderr:\n%s", test.line, status, stdout, stderr)
		}
	}
}

// Engines pass --systemd-cgroup with every command, some even with features: where there
// is nothing to ask systemd, it is not asked.
func TestSystemdCgroup(t *testing.T) {
	for _, line := range []string{"list", "features", "--cgroup-manager=disabled list"} {
		if status, _, stderr := call(t, append([]string{"--systemd-cgroup"}, strings.Fields(line)...)...); status != 0 {
			t.Error(line, stderr)
		}
	}
	if status, _, stderr := call(t, "--cgroup-manager", "v1", "list"); status != 1 || !strings.Contains(stderr, "hint: give --cgroup-manager cgroupfs, systemd or disabled") {
		t.Error(status, stderr)
	}
}

func TestMissingContainer(t *testing.T) {
	if status, _, stderr := call(t, "delete", "--force", "gone"); status != 0 || stderr != "" {
		t.Errorf("delete --force: status %d: %s", status, stderr)
	}
	for _, line := range []string{"state gone", "start gone", "kill gone", "delete gone"} {
		status, _, stderr := call(t, strings.Fields(line)...)
		// containerd's shim and BuildKit look for these words.
		if status != 1 || !strings.Contains(stderr, "container does not exist") {
			t.Errorf("%s: status %d: %s", line, status, stderr)
		}
	}
}

func TestDefaultRoot(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := defaultRoot(); got != "/run/husk" {
		t.Errorf("without XDG_RUNTIME_DIR: %s", got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	want := "/run/user/7/husk"
	if hostRoot() {
		want = "/run/husk"
	}
	if got := defaultRoot(); got != want {
		t.Errorf("with XDG_RUNTIME_DIR: %s, want %s", got, want)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"help"}, {"--help"}, {"-h"}} {
		status, stdout, _ := call(t, args...)
		for _, c := range commands() {
			if status != 0 || !strings.Contains(stdout, "  "+c.name+" ") {
				t.Errorf("husk %q: status %d, %s is missing", args, status, c.name)
			}
		}
	}
	for _, c := range commands() {
		status, stdout, stderr := call(t, c.name, "--help") // Podman probes with this
		if status != 0 || !strings.Contains(stdout, c.summary) {
			t.Errorf("%s --help: status %d: %s%s", c.name, status, stdout, stderr)
		}
		c.flags().VisitAll(func(f *flag.Flag) {
			if f.Usage == "" || !isShort(f) && !strings.Contains(stdout, "--"+f.Name) {
				t.Errorf("%s: flag %s is not explained", c.name, f.Name)
			}
		})
	}
}

// The table is the only list of commands: what is in it has a file of its own.
func TestOneFilePerCommand(t *testing.T) {
	for _, c := range commands() {
		b, err := os.ReadFile(c.name + ".go")
		if err != nil {
			t.Error(err)
		} else if n := bytes.Count(b, []byte("\n")); n > 80 {
			t.Errorf("%s.go has %d lines", c.name, n)
		}
	}
}

func TestSpec(t *testing.T) {
	dir := t.TempDir()
	if status, _, stderr := call(t, "spec", "--bundle", dir, "--", "echo", "<hi>"); status != 0 {
		t.Fatal(stderr)
	}
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	// The bytes are those of the first encoding/json, as in runc's.
	if !bytes.Contains(b, []byte("\n\t\t\"args\": [\n\t\t\t\"echo\",\n\t\t\t\"\\u003chi\\u003e\"\n\t\t]")) {
		t.Errorf("%s", b)
	}
	if bytes.Contains(b, []byte(`"terminal": true`)) {
		t.Error("a terminal that nobody asked for")
	}
	status, _, stderr := call(t, "spec", "-b", dir)
	if status != 1 || !strings.Contains(stderr, "config.json exists\n") {
		t.Errorf("over a config: status %d: %s", status, stderr)
	}
}
