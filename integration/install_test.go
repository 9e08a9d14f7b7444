package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// make install puts below DESTDIR and PREFIX what works there: the program, its manual page
// and its completions, which the shells that are here can read.
func TestInstall(t *testing.T) {
	for _, file := range []string{"../Makefile", "../husk"} {
		if _, err := os.Stat(file); err != nil {
			t.Skip("needs the source tree with a built husk: ", err)
		}
	}
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip(err)
	}
	dest := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("make", "-s", "-C", "..", "install", "DESTDIR="+dest, "PREFIX=/usr")
	for _, f := range []struct {
		path, word string
		mode       os.FileMode
		reader     []string // of a shell or of manual pages
	}{
		{"bin/husk", "ELF", 0o755, nil},
		{"share/man/man8/husk.8", ".TH", 0o644, []string{"man", "--warnings", "-l"}},
		{"share/bash-completion/completions/husk", "complete", 0o644, []string{"bash", "-n"}},
		{"share/zsh/site-functions/_husk", "#compdef husk", 0o644, []string{"zsh", "-n"}},
		{"share/fish/vendor_completions.d/husk.fish", "complete", 0o644, []string{"fish", "-n"}},
	} {
		path := filepath.Join(dest, "usr", f.path)
		info, err := os.Stat(path)
		must(t, err)
		data, err := os.ReadFile(path)
		must(t, err)
		if info.Mode().Perm() != f.mode || !strings.Contains(string(data), f.word) {
			t.Errorf("%s: mode %v, %q missing or not", f.path, info.Mode(), f.word)
		}
		if f.reader == nil {
			continue
		}
		if _, err := exec.LookPath(f.reader[0]); err == nil {
			run(f.reader[0], append(f.reader[1:], path)...)
		}
	}
	if out := run(filepath.Join(dest, "usr/bin/husk"), "--version"); !strings.HasPrefix(out, "husk version ") {
		t.Errorf("the installed husk says %q", out)
	}
	if files := strings.Fields(run("find", dest, "-type", "f")); len(files) != 5 {
		t.Errorf("installed: %q", files)
	}
}
