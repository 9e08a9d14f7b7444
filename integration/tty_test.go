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
