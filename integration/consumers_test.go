package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// What engines make of husk's words: each rule below is a consumer's own, in our code.

// containerdEnding is containerd's reading of why kill failed (its process package, a
// comparison in lower case): these make it NotFound, anything else an unknown error.
func containerdEnding(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "os: process already finished") || strings.Contains(text, "container not running") ||
		strings.Contains(text, "no such process") || strings.Contains(text, "does not exist")
}

// crioEnding is CRI-O's, which minds the case.
func crioEnding(text string) bool {
	return strings.Contains(text, "no such process") || strings.Contains(text, "container not running") ||
		strings.Contains(text, "invalid process")
}

// buildkitEnding is BuildKit's.
func buildkitEnding(text string) bool {
	return strings.Contains(text, "container not running") || strings.Contains(text, "container does not exist") ||
		strings.Contains(text, "no such process")
}

// containerdError is the message that containerd's shim takes from a log: that of the
// last entry of level error. One entry that does not decode loses everything.
func containerdError(log []byte) string {
	last := ""
	for dec := json.NewDecoder(bytes.NewReader(log)); dec.More(); {
		var e struct {
			Level, Msg string
			Time       time.Time
		}
		if dec.Decode(&e) != nil {
			return ""
		}
		if e.Level == "error" {
			last = strings.TrimSpace(e.Msg)
		}
	}
	return last
}

// podmanError is Podman's message: the whole log is one JSON value.
func podmanError(log []byte) string {
	var e struct{ Level, Time, Msg string }
	if json.Unmarshal(log, &e) != nil {
		return ""
	}
	return e.Msg
}

// Podman's patterns, in the order in which it tries them, and its exit codes.
var podmanPatterns = []struct {
	pattern *regexp.Regexp
	code    int
}{
	{regexp.MustCompile("(?i)permission denied|operation not permitted"), 126},
	{regexp.MustCompile("(?i)executable file not found in|no such file or directory|open executable"), 127},
}

func podmanCode(text string) int {
	for _, p := range podmanPatterns {
		if p.pattern.MatchString(text) {
			return p.code
		}
	}
	return 126 // any other error of the runtime
}

// mobyCode is moby's: the program's name counts where it is missing.
func mobyCode(text, program string) int {
	has := func(s string) bool { return strings.Contains(strings.ToLower(text), s) }
	switch {
	case has(program) && (has("executable file not found") || has("no such file or directory") || has("system cannot find the file specified")), has("not a directory"):
		return 127
	case has("permission denied"):
		return 126
	}
	return 128
}

// Each error that an engine recognizes is told in its words, whoever reads it: standard
// error, or the log.
func TestConsumersErrors(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/true"} })
		b.must("create", "c1")
		b.must("start", "c1")
		b.waitFor("c1", specs.StateStopped)
		all := func(texts ...string) bool {
			return !slices.ContainsFunc(texts, func(s string) bool { return !containerdEnding(s) || !buildkitEnding(s) })
		}
		for _, c := range []struct {
			what string
			args []string
			ok   func(texts ...string) bool
		}{
			{"kill of a stopped one", []string{"kill", "c1", "9"}, func(texts ...string) bool {
				return all(texts...) && !slices.ContainsFunc(texts, func(s string) bool { return !crioEnding(s) })
			}},
			{"kill of a missing one", []string{"kill", "missing", "KILL"}, all},
			{"exec in a stopped one", []string{"exec", "c1", "true"}, all},
			{"exec in a missing one", []string{"exec", "missing", "true"}, all},
			{"delete of a missing one", []string{"delete", "missing"}, all},
			{"state of a missing one", []string{"state", "missing"}, all},
		} {
			r, log := b.logged(c.args...)
			if r.code == 0 {
				t.Errorf("%s: no error", c.what)
			}
			if !c.ok(r.stderr, containerdError(log), podmanError(log)) {
				t.Errorf("%s: not understood: %q, %s", c.what, r.stderr, log)
			}
		}
		b.must("delete", "c1")
	})
}

// logged runs husk with a log, as containerd and conmon do.
func (b *bundle) logged(args ...string) (result, []byte) {
	path := filepath.Join(b.dir, "log.json")
	os.Remove(path)
	r := b.husk(append([]string{"--log", path, "--log-format", "json"}, args...)...)
	log, err := os.ReadFile(path)
	if err != nil && r.code != 0 {
		b.t.Errorf("husk %q: no log: %v", args, err)
	}
	return r, log
}

// Docker and Podman end with 127 or 126, as a shell would, when the program cannot be
// executed: they read that from the text.
func TestConsumersExitCodes(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "1000"} })
		must(t, os.WriteFile(b.rootfs("text"), []byte("no program"), 0o644))
		must(t, os.WriteFile(b.rootfs("lost"), []byte("#!/bin/missing\n"), 0o755))
		b.must("run", "-d", "c1")
		defer b.must("delete", "-f", "c1")
		for _, c := range []struct {
			program string
			code    int
		}{{"missing", 127}, {"/bin/missing", 127}, {"/lost", 127}, {"/text", 126}, {"/bin", 126}} {
			b.write(func(s *specs.Spec) { s.Process.Args = []string{c.program} })
			for _, args := range [][]string{{"run", "c2"}, {"exec", "c1", c.program}} {
				r, log := b.logged(args...)
				if text := containerdError(log); r.code == 0 || mobyCode(text, c.program) != c.code {
					t.Errorf("%q: Docker makes %d of %q", args, mobyCode(text, c.program), text)
				}
				if text := podmanError(log); podmanCode(text) != c.code {
					t.Errorf("%q: Podman makes %d of %q", args, podmanCode(text), text)
				}
			}
		}
	})
}

// What engines parse of a success.
func TestConsumersOutput(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Process.Args = []string{"/bin/sleep", "1000"}
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_FUTURE") // a warning
		})
		pidFile := filepath.Join(b.dir, "pid")
		r, log := b.logged("run", "-d", "--pid-file", pidFile, "c1")
		if r.code != 0 || r.stdout+r.stderr != "" { // which would be the container's
			t.Errorf("run: exit %d, printed %q", r.code, r.stdout+r.stderr)
		}
		if containerdError(log) != "" {
			t.Errorf("run succeeded and logged an error: %s", log)
		}
		defer b.must("delete", "-f", "c1")
		data, err := os.ReadFile(pidFile)
		must(t, err)
		pid, err := strconv.Atoi(string(data)) // go-runc; a newline would be an error
		must(t, err)
		var pids []int // go-runc
		must(t, json.Unmarshal([]byte(b.must("ps", "--format", "json", "c1").stdout), &pids))
		if !slices.Equal(pids, []int{pid}) {
			t.Errorf("ps says %v, the pid file %d", pids, pid)
		}
		var s struct { // go-runc and CRI-O
			ID, Bundle, Rootfs, Status string
			Pid                        int
			Created                    time.Time
		}
		must(t, json.Unmarshal([]byte(b.must("state", "c1").stdout), &s))
		if s.ID != "c1" || s.Pid != pid || s.Status != "running" || s.Created.IsZero() {
			t.Errorf("state: %+v", s)
		}
	})
}

// What engines ask before they use a runtime.
func TestConsumersProbes(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, nil)
		// moby: after the last "version" of the last line that has it; after "commit:".
		version, commit := "", ""
		for line := range strings.Lines(b.must("--version").stdout) {
			if i := strings.LastIndex(line, "version"); i >= 0 {
				version = strings.TrimSpace(line[i+len("version"):])
			}
			if rest, ok := strings.CutPrefix(line, "commit: "); ok {
				commit = strings.TrimSpace(rest)
			}
		}
		if version == "" || strings.ContainsAny(version, " \t") || commit == "" {
			t.Errorf("Docker reads version %q, commit %q", version, commit)
		}
		// containerd's CRI: recursive read-only mounts, user namespaces.
		var f features.Features
		must(t, json.Unmarshal([]byte(b.must("features").stdout), &f))
		if !slices.Contains(f.MountOptions, "rro") || !slices.Contains(f.Linux.Namespaces, "user") || !*f.Linux.MountExtensions.IDMap.Enabled {
			t.Errorf("features: %+v", f)
		}
		// Podman: who answers with success can make checkpoints; who asks for the flag's
		// argument knows the flag.
		if r := b.husk("checkpoint", "--help"); r.code == 0 {
			t.Error("husk says that it makes checkpoints")
		}
		r := b.husk("restore", "--lsm-mount-context")
		if out := r.stdout + r.stderr; strings.Contains(out, "flag needs an argument") || strings.Contains(out, "requires an argument") {
			t.Errorf("husk says that it restores: %s", out)
		}
	})
}
