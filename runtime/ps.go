package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Processes lists the processes of a container, those in its cgroup and in the groups
// below, by the pids that they have here. A stopped container has none.
func (r *Runtime) Processes(id string) ([]int, error) {
	pids, err := r.processes(id)
	return pids, wrap("ps", id, err)
}

func (r *Runtime) processes(id string) ([]int, error) {
	h, err := r.hold(id, false)
	if err != nil {
		return nil, err
	}
	defer h.close()
	if h.group == nil {
		return nil, nil
	}
	pids, err := h.group.Procs()
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// ProcessTable returns what ps(1), called with these options (none: -ef), prints about
// the processes of a container: its title and the lines of [Runtime.Processes].
func (r *Runtime) ProcessTable(id string, options []string) (string, error) {
	table, err := r.processTable(id, options)
	return table, wrap("ps", id, err)
}

func (r *Runtime) processTable(id string, options []string) (string, error) {
	pids, err := r.processes(id)
	if err != nil {
		return "", err
	}
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	output, err := runPs(options)
	if err != nil {
		return "", err
	}
	return filterPs(output, pids)
}

// psPatience is how long ps may take to read /proc.
const psPatience = 30 * time.Second

func runPs(options []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), psPatience)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "ps", options...)
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", &Error{Err: err, Hint: "install ps (package procps), or use husk ps --format json"}
	case ctx.Err() != nil:
		return "", fmt.Errorf("ps did not end within %s", psPatience)
	case err != nil:
		why, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n") // more is advice
		return "", fmt.Errorf("ps %s: %w: %s", strings.Join(options, " "), err, printable(why))
	}
	return string(output), nil
}

// filterPs keeps the title and the lines about pids.
func filterPs(output string, pids []int) (string, error) {
	title, lines, _ := strings.Cut(output, "\n")
	column := slices.Index(strings.Fields(title), "PID")
	if column < 0 {
		return "", &Error{
			Err:  fmt.Errorf("ps printed no column titled PID, but %q", printable(title)),
			Hint: "have ps print it, as in: -o pid,comm",
		}
	}
	end := strings.Index(" "+title+" ", " PID ") + len("PID")
	var table strings.Builder
	table.WriteString(title + "\n")
	for line := range strings.Lines(lines) {
		if slices.Contains(pids, pidIn(line, column, end)) {
			table.WriteString(line)
		}
	}
	return table.String(), nil
}

// pidIn finds the pid in a line. It ends where its title ends, even if a column before it
// holds several words. If not, one before it was too wide and has moved it: then it is as
// many words from the left as its title.
func pidIn(line string, column, end int) int {
	if r := []rune(line); end < len(r) && unicode.IsSpace(r[end]) {
		words := strings.Fields(string(r[:end]))
		if n := len(words); n > 0 && !unicode.IsSpace(r[end-1]) {
			if pid, err := strconv.Atoi(words[n-1]); err == nil {
				return pid
			}
		}
	}
	if words := strings.Fields(line); column < len(words) {
		pid, _ := strconv.Atoi(words[column])
		return pid
	}
	return 0
}
