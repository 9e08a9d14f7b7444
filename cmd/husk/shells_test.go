package main

import (
	"flag"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each script knows every command and flag, and its shell accepts it.
func TestCompletion(t *testing.T) {
	for shell, check := range map[string]string{"bash": "-n", "zsh": "-n", "fish": "--no-execute"} {
		t.Run(shell, func(t *testing.T) {
			_, script, _ := call(t, "completion", shell)
			for _, c := range commands() {
				c.flags().VisitAll(func(f *flag.Flag) {
					if long := f.Name; !isShort(f) && !strings.Contains(script, "--"+long) && !strings.Contains(script, "-l "+long) {
						t.Errorf("no --%s of %s", long, c.name)
					}
				})
				if !strings.Contains(script, c.name) {
					t.Errorf("no %s", c.name)
				}
			}
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed to read the script", shell)
			}
			cmd := exec.Command(path, check)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	_, script, _ := call(t, "completion", "bash")
	for line, want := range map[string]string{
		"husk st":                 "start state",
		"husk --root /r del":      "delete",
		"husk delete --f":         "--force",
		"husk --log-":             "--log-format",
		"husk completion f":       "fish",
		"husk help pl":            "plan",
		"husk create --console-s": "--console-socket",
		"husk start ":             "c1 c2",
		"husk kill --all c":       "c1 c2",
	} {
		words := strings.Split(line, " ")
		probe := script + "husk() { echo c1; echo c2; }\nCOMP_WORDS=("
		for _, w := range words {
			probe += quote(w) + " "
		}
		probe += ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_husk\necho ${COMPREPLY[*]}\n"
		out, err := exec.Command(bash, "--norc", "-c", probe).CombinedOutput()
		if diff := cmp.Diff(want, strings.TrimSpace(string(out))); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", line, err, diff)
		}
	}
}
