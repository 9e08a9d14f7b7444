package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
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

// psPatience is how long ps may take to read /proc, and maxPs how much it may print.
const (
	psPatience = 30 * time.Second
	maxPs      = 256 << 20
)

// runPs runs ps(1) as hooks are run. Package os/exec would do it too, at the price of 15
// allocations at the start of every husk.
func runPs(options []string) (string, error) {
	output, err := memfile("ps", nil)
	if err != nil {
		return "", err
	}
	defer unix.Close(output)
	complaint, err := memfile("ps", nil)
	if err != nil {
		return "", err
	}
	defer unix.Close(complaint)
	pid, pidfd, err := startPs(options, output, complaint)
	if err != nil {
		return "", err
	}
	defer unix.Close(pidfd)
	status, err := awaitHook(pid, pidfd, psPatience)
	if err == nil && (!status.Exited() || status.ExitStatus() != 0) {
		err = errors.New(statusText(status) + firstLine(complaint))
	}
	if err != nil {
		return "", fmt.Errorf("ps %s: %w", strings.Join(options, " "), err)
	}
	_, _ = unix.Seek(output, 0, unix.SEEK_SET)
	b, err := readAll(output, maxPs)
	return string(b), err
}

func startPs(options []string, output, complaint int) (pid, pidfd int, err error) {
	null, err := openPath(os.DevNull, unix.O_RDONLY)
	if err != nil {
		return 0, -1, &fs.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	defer unix.Close(null)
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{uintptr(null), uintptr(output), uintptr(complaint)},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: &pidfd},
	}
	for _, path := range candidates("ps", os.Getenv("PATH")) {
		if pid, err = syscall.ForkExec(path, append([]string{"ps"}, options...), attr); err == nil {
			return pid, pidfd, nil
		}
	}
	return 0, -1, &Error{
		Err:  errors.New("ps: executable file not found in $PATH"),
		Hint: "install ps (package procps), or use husk ps --format json",
	}
}

// firstLine quotes the first line of what ps complained: more is advice.
func firstLine(fd int) string {
	b := make([]byte, 512)
	n, _ := unix.Pread(fd, b, 0)
	line, _, _ := strings.Cut(strings.TrimSpace(string(b[:max(n, 0)])), "\n")
	if line == "" {
		return ""
	}
	return ": " + printable(line)
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
