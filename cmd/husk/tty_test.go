package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns both ends of a new terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

func settings(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: not within 2 s", what)
}

// A user at a terminal: keys go in, output comes out, sizes follow, settings return.
func TestTerminal(t *testing.T) {
	user, host := openPTY(t)
	master, slave := openPTY(t)
	if err := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 11, Col: 22}); err != nil {
		t.Fatal(err)
	}
	before := settings(t, host)
	term, err := attach(master, host, host, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := settings(t, host); s.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Error("the user's terminal is not raw")
	}
	size := func() (uint16, uint16) {
		ws, err := unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			t.Fatal(err)
		}
		return ws.Row, ws.Col
	}
	wait(t, "first size", func() bool { r, c := size(); return r == 11 && c == 22 })
	if err := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 44}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil { // the test is not the terminal's foreground group
		t.Fatal(err)
	}
	wait(t, "new size", func() bool { r, c := size(); return r == 33 && c == 44 })

	if _, err := user.WriteString("keys\r"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := slave.Read(buf); err != nil || string(buf[:n]) != "keys\n" {
		t.Errorf("the container reads %q, %v", buf[:n], err)
	}
	if _, err := slave.WriteString("answer\n"); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	term.close()
	if after := settings(t, host); after != before {
		t.Error("the user's terminal is not as it was")
	}
	const want = "keys\r\nanswer\r\n"
	n, err := io.ReadAtLeast(user, buf, len(want)) // a terminal may give a line at a time
	if err != nil || string(buf[:n]) != want {
		t.Errorf("the user sees %q, %v, want %q", buf[:n], err, want)
	}
}

// What the process wrote before it ended arrives, however slowly it is read, and
// although somebody else holds the terminal open.
func TestTerminalLosesNothing(t *testing.T) {
	for _, held := range []bool{false, true} {
		master, slave := openPTY(t)
		in, inw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		outr, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := makeRaw(int(slave.Fd())); err != nil {
			t.Fatal(err)
		}
		term, err := attach(master, in, out, nil)
		if err != nil {
			t.Fatal(err)
		}
		const total = 3 << 20
		sent, got := sha256.New(), sha256.New()
		done := make(chan int64)
		go func() {
			time.Sleep(300 * time.Millisecond) // nobody reads: the process is held up
			n, _ := io.Copy(got, outr)
			done <- n
		}()
		block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for range total / len(block) {
			sent.Write(block)
			if _, err := slave.Write(block); err != nil {
				t.Fatal(err)
			}
		}
		if !held {
			slave.Close()
		}
		term.close()
		out.Close()
		if n := <-done; n != total || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
			t.Errorf("held open %v: %d of %d bytes", held, n, total)
		}
		inw.Close()
		in.Close()
		outr.Close()
	}
}

// Input from a pipe ends for the container when it ends for us.
func TestTerminalEndOfInput(t *testing.T) {
	master, slave := openPTY(t)
	in, inw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	term, err := attach(master, in, null, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inw.WriteString("all there is\n"); err != nil {
		t.Fatal(err)
	}
	inw.Close()
	got, err := io.ReadAll(slave)
	if err != nil || string(got) != "all there is\n" {
		t.Errorf("%q, %v", got, err)
	}
	slave.Close()
	term.close()
	in.Close()
}
