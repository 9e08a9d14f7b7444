package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/huskrun/husk/runtime"
)

var created = time.Date(2026, 11, 22, 7, 0, 0, 123456789, time.UTC)

func sampleStates() []*runtime.State {
	return []*runtime.State{
		{
			Version: "1.3.0", ID: "ci-42", PID: 4711, Status: "running", Bundle: "/srv/<b>", Rootfs: "/srv/<b>/rootfs",
			Created: created, Annotations: map[string]string{"b": "2", "a": "1"}, Owner: "root",
		},
		{Version: "1.3.0", ID: "done", Status: "stopped", Bundle: "/b", Rootfs: "/b/rootfs", Created: created, Owner: "root"},
	}
}

// Fields, order, indentation and escapes are runc's.
func TestStateJSON(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	if err := a.printJSON(sampleStates()[0], "  "); err != nil {
		t.Fatal(err)
	}
	want := `{
  "ociVersion": "1.3.0",
  "id": "ci-42",
  "pid": 4711,
  "status": "running",
  "bundle": "/srv/\u003cb\u003e",
  "rootfs": "/srv/\u003cb\u003e/rootfs",
  "created": "2026-11-22T07:00:00.123456789Z",
  "annotations": {
    "a": "1",
    "b": "2"
  },
  "owner": "root"
}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestList(t *testing.T) {
	for _, test := range []struct {
		print func(*app, []*runtime.State) error
		n     int
		want  string
	}{
		{(*app).printList, 0, "null\n"},
		{(*app).printIDs, 0, ""},
		{(*app).printTable, 0, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"},
		{(*app).printIDs, 2, "ci-42\ndone\n"},
		{(*app).printTable, 2, "ID          PID         STATUS      BUNDLE      CREATED                          OWNER\n" +
			"ci-42       4711        running     /srv/<b>    2026-11-22T07:00:00.123456789Z   root\n" +
			"done        0           stopped     /b          2026-11-22T07:00:00.123456789Z   root\n"},
		{func(a *app, s []*runtime.State) error { return a.printList(s[1:]) }, 2, `[{"ociVersion":"1.3.0","id":"done","pid":0,"status":"stopped",` +
			`"bundle":"/b","rootfs":"/b/rootfs","created":"2026-11-22T07:00:00.123456789Z","owner":"root"}]` + "\n"},
	} {
		var out bytes.Buffer
		if err := test.print(&app{stdout: &out}, sampleStates()[:test.n]); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(test.want, out.String()); diff != "" {
			t.Error(diff)
		}
	}
}

// moby: the last line with "version" in it wins, and the one that begins "commit:".
func moby(out string) (version, commit string) {
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if strings.Contains(line, "version") {
			parts := strings.Split(line, "version")
			version = strings.TrimSpace(parts[len(parts)-1])
		}
		if c, ok := strings.CutPrefix(line, "commit:"); ok {
			commit = strings.TrimSpace(c)
		}
	}
	return version, commit
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"-v"}, {"version"}, {"--debug", "--version"}} {
		_, out, _ := call(t, args...)
		if v, c := moby(out); v != release || c != commit {
			t.Errorf("%q: moby reads version %q, commit %q from:\n%s", args, v, c, out)
		}
		for i, key := range []string{"husk version ", "commit: ", "spec: 1.3.0", "go: go1.", "libseccomp: "} {
			if lines := strings.Split(out, "\n"); len(lines) != 6 || !strings.HasPrefix(lines[i], key) {
				t.Errorf("line %d does not begin with %q:\n%s", i+1, key, out)
			}
		}
	}
}

func TestFeatures(t *testing.T) {
	status, out, stderr := call(t, "features")
	if status != 0 || !strings.HasPrefix(out, "{\n    \"ociVersionMin\": \"1.") {
		t.Errorf("status %d: %s%s", status, out, stderr)
	}
}

// TestStartupBudget guards what every start of husk pays, twice per container: the
// package inits, and a file of which much is paged in.
func TestStartupBudget(t *testing.T) {
	const (
		maxAllocs = 70
		maxBytes  = 8 << 10
		maxSize   = 23 << 18 // 5.75 MiB without the helpers, which are never read at a start
	)
	exe := filepath.Join(t.TempDir(), "husk")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", exe, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(exe, "--version")
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	allocs, bytes := 0, 0
	for line := range strings.Lines(stderr.String()) {
		// init os @0.48 ms, 0.030 ms clock, 432 bytes, 9 allocs
		f := strings.Fields(line)
		allocs += number(t, f[len(f)-2])
		bytes += number(t, f[len(f)-4])
	}
	info, err := os.Stat(exe)
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size()
	for _, name := range []string{"seccomp-compiler", "network-helper", "image-helper"} {
		if helper, err := os.Stat(name); err == nil {
			size -= helper.Size()
		}
	}
	t.Logf("%d allocations, %d bytes, a file of %d bytes", allocs, bytes, size)
	if allocs == 0 || allocs > maxAllocs || bytes > maxBytes || size > maxSize {
		t.Errorf("over the budget of %d allocations, %d bytes, a file of %d bytes:\n%s", maxAllocs, maxBytes, maxSize, stderr.String())
	}
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
