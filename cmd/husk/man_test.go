package main

import (
	"flag"
	"os/exec"
	"strings"
	"testing"
)

// The manual page knows every command and flag, and man reads it without complaint.
func TestManual(t *testing.T) {
	_, page, _ := call(t, "man")
	for _, c := range commands() {
		if !strings.Contains(page, `.SS "husk `+roff(c.usage())+"\"\n") {
			t.Errorf("no %s", c.name)
		}
		c.flags().VisitAll(func(f *flag.Flag) {
			if !isShort(f) && !strings.Contains(page, `\fB\-\-`+roff(f.Name)+`\fR`) {
				t.Errorf("no --%s of %s", f.Name, c.name)
			}
		})
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed to read the page")
	}
	cmd := exec.Command(groff, "-man", "-ww", "-Tutf8")
	cmd.Stdin = strings.NewReader(page)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Errorf("%v\n%s", err, complaints.String())
	}
	if !strings.Contains(string(out), "execute") || strings.Contains(string(out), `\-`) {
		t.Errorf("the page reads:\n%s", out)
	}
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		"--log": `\-\-log`, `a\b`: `a\eb`, ".x": `\&.x`, "a\n.b\n'c": "a\n\\&.b\n\\&'c",
	} {
		if got := roff(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}
