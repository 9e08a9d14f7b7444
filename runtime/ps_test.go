package runtime

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilterPs(t *testing.T) {
	for name, test := range map[string]struct{ output, want string }{
		"-ef": {
			"UID          PID    PPID  C STIME TTY          TIME CMD\n" +
				"root           7       1  0 09:00 ?        00:00:00 sleep 42\n" +
				"root          42       7  0 09:00 ?        00:00:00 sleep 7\n" +
				"root         421       7  0 09:00 ?        00:00:00 sleep 42\n",
			"42",
		},
		"first": {"    PID CMD\n     42 a\n      7 42\n", "42"},
		"last":  {"CMD         PID\nsleep 42      7\nsleep 7      42\n", "42"},
		"words before it": {
			"COMMAND                       PID TT\n" +
				"sleep 42                        7 ?\n" +
				"sleep 7                        42 ?\n" +
				"schläft 7 ✓                    42 ?\n",
			"42 42",
		},
		"moved": {
			"   VSZ     PID\n" +
				"   123      42\n" +
				"12345678      42\n" +
				"12345678       7\n",
			"42 42",
		},
		"left of its numbers": {"PID   USER\n   42 root\n    7 root\n 4242 root\n", "42"},
		"no lines":            {"    PID CMD\n", ""},
		"blank lines":         {"    PID CMD\n\n     42 a\n", "42"},
		"PID is a word":       {"PPID PID\n   7  42\n  42   7\n", "42"},
	} {
		got, err := filterPs(test.output, []int{42, 43})
		if err != nil {
			t.Fatal(err)
		}
		title, lines, _ := strings.Cut(got, "\n")
		var pids []string
		for line := range strings.Lines(lines) {
			if !strings.Contains(test.output, line) || !strings.Contains(line, "42") {
				t.Errorf("%s: a line of its own: %q", name, line)
			}
			pids = append(pids, "42")
		}
		if diff := cmp.Diff(test.want, strings.Join(pids, " ")); diff != "" || !strings.HasPrefix(test.output, title) {
			t.Errorf("%s: %s\n%s", name, diff, got)
		}
	}
	if _, err := filterPs("CMD\nsleep\n", nil); err == nil || !strings.Contains(err.Error(), "no column titled PID") {
		t.Errorf("without the column: %v", err)
	}
}
