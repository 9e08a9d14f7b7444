package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// seat is a terminal and what has been seen on it.
type seat struct {
	keyboard, line *os.File // the user's end, the programs' end
	mu             sync.Mutex
	screen         bytes.Buffer
}

func newSeat(t *testing.T) *seat {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{keyboard: master, line: line}
	t.Cleanup(func() { line.Close(); master.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.screen.Write(buf[:n])
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *seat) sees(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.screen.String(), text)
}

func (s *seat) await(t *testing.T, text string) {
	t.Helper()
	poll(t, func() bool { return s.sees(text) }, "%q on the screen", text)
}

func (s *seat) size(t *testing.T, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(s.keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

func (s *seat) settings(t *testing.T) unix.Termios {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(s.line.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *settings
}

// start runs a command whose controlling terminal is the seat's.
func (s *seat) start(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.line, s.line, s.line
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// A person runs a shell in a container: keys, signals from keys, window sizes and the
// exit status all pass, and the terminal is afterwards as it was.
func TestForegroundTerminal(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Process.Terminal = true
			s.Process.Args = []string{"sh", "-c", `
				trap 'echo size: $(stty size)' WINCH
				trap 'echo interrupted; exit 42' INT
				tty; echo size: $(stty size); echo ready
				while :; do read -t 1 x && echo "got: $x"; done`}
		})
		s := newSeat(t)
		s.size(t, 40, 100)
		before := s.settings(t)
		cmd := s.start(t, b.dir, runtimePath(), "run", "c1")
		s.await(t, "ready\r\n")
		for _, text := range []string{"/dev/pts/0\r\n", "size: 40 100\r\n"} {
			if !s.sees(text) {
				t.Errorf("%q is not on the screen", text)
			}
		}
		if now := s.settings(t); now.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
			t.Error("the user's terminal is not raw")
		}
		s.keyboard.WriteString("words\r")
		s.await(t, "got: words\r\n")
		s.size(t, 50, 120)
		s.await(t, "size: 50 120\r\n")
		s.keyboard.WriteString("\x03") // ^C is a key like any other here, and a signal there
		s.await(t, "interrupted\r\n")
		cmd.Wait()
		if code := exitCode(cmd.ProcessState); code != 42 {
			t.Errorf("exit status %d, want 42", code)
		}
		if s.settings(t) != before {
			t.Error("the terminal's settings are not restored")
		}
	})
}

// The terminal is given back also when the container is killed, and when it never ran.
func TestForegroundTerminalRestored(t *testing.T) {
	for _, test := range []struct {
		program string
		code    int
	}{{"sleep", 137}, {"no-such-program", 127}} {
		t.Run(test.program, func(t *testing.T) {
			box(t, func(t *testing.T) {
				b := newBundle(t, func(s *specs.Spec) {
					s.Process.Terminal = true
					s.Process.Args = []string{test.program, "1000"}
				})
				s := newSeat(t)
				before := s.settings(t)
				cmd := s.start(t, b.dir, runtimePath(), "run", "c1")
				if test.code == 137 {
					b.waitFor("c1", specs.StateRunning)
					b.must("kill", "c1", "KILL")
				}
				cmd.Wait()
				if code := exitCode(cmd.ProcessState); code != test.code {
					t.Errorf("exit status %d, want %d", code, test.code)
				}
				if s.settings(t) != before {
					t.Error("the terminal's settings are not restored")
				}
			})
		})
	}
}

// What is printed is all there, in order, although the reader is slow and stops.
func TestForegroundTerminalBackpressure(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Process.Terminal = true
			s.Process.Args = []string{"sh", "-c", "seq 200000; echo end"}
		})
		cmd := exec.Command("sh", "-c", runtimePath()+" run c1 | { sleep 0.5; cat; } > out")
		cmd.Dir = b.dir
		if r := runCmd(t, cmd); r.code != 0 {
			t.Fatalf("%d: %s", r.code, r.stderr)
		}
		out, err := os.ReadFile(b.dir + "/out")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(out), "\r\n")
		if len(lines) != 200002 || lines[200000] != "end" {
			t.Fatalf("%d lines, the last is %q", len(lines)-1, lines[len(lines)-2])
		}
		for i, line := range lines[:200000] {
			if line != fmt.Sprint(i+1) {
				t.Fatalf("line %d is %q", i+1, line)
			}
		}
	})
}

// How a job is doing is one line, which nothing of is left, and that what the job writes
// does not get mixed up with.
func TestSandboxProgress(t *testing.T) {
	const job = `echo first; sleep 1.2; echo second >&2; printf unfinished; sleep 1.2; echo; echo last`
	for name, keyboard := range map[string]bool{"with a terminal of its own": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			box(t, func(t *testing.T) {
				onDisk(t)
				s := newSeat(t)
				s.size(t, 24, 20) // no room for more than two figures
				cmd := exec.Command(runtimePath(), "sandbox", "--progress", "--", "sh", "-c", job)
				cmd.Dir = t.TempDir()
				cmd.Stdout, cmd.Stderr = s.line, s.line
				if keyboard {
					cmd.Stdin = s.line
				}
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
				if err := cmd.Run(); err != nil {
					t.Error(err)
				}
				s.await(t, "last\r\n")
				s.mu.Lock()
				defer s.mu.Unlock()
				shown := s.screen.String()
				if !strings.Contains(shown, "first\r\nsandbox  1s") || !strings.Contains(shown, "\rsecond\r\nunfinished\r\nlast\r\n") {
					t.Errorf("%q", shown)
				}
				if got, want := rendered(t, shown, 20), "first\nsecond\nunfinished\nlast\n"; got != want {
					t.Errorf("the screen shows %q, want %q", got, want)
				}
			})
		})
	}
}

// rendered is what a screen shows of what was written to it, without blanks at the ends.
func rendered(t *testing.T, text string, columns int) string {
	t.Helper()
	var lines []string
	line, at := []byte{}, 0
	for _, c := range []byte(text) {
		switch {
		case c == '\r':
			at = 0
			continue
		case c == '\n':
			lines, line = append(lines, strings.TrimRight(string(line), " ")), nil
			continue
		case at == len(line):
			line = append(line, c)
		default:
			line[at] = c
		}
		if at++; at >= columns {
			t.Errorf("a line of more than %d columns: %q", columns-1, line)
		}
	}
	return strings.Join(append(lines, strings.TrimRight(string(line), " ")), "\n")
}
