package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// terminal joins the user's terminal to a container's, for as long as a foreground
// run lasts. Each direction is one loop of blocking reads and writes, so a side that
// does not read stops the other from writing: nothing is buffered, nothing is lost.
type terminal struct {
	master  *os.File      // the container's terminal
	host    int           // descriptor of the user's terminal, -1: there is none
	saved   *unix.Termios // how to leave the user's terminal, nil: we did not change it
	resized chan os.Signal
	ended   chan struct{} // the process is gone: what is left to read is finite
	drained chan struct{}
}

// onTerminal lends our terminal to whatever act makes, once it has one of its own.
func (a *app) onTerminal(take *func(*os.File) error, act func() (int, error)) (int, error) {
	var t *terminal
	*take = func(master *os.File) (err error) {
		t, err = attach(master, os.Stdin, os.Stdout, a.through)
		return err
	}
	status, err := act()
	if t != nil {
		t.close()
	}
	return status, err
}

// attach starts copying between the container's terminal and in and out. It takes
// over master. Where in is a terminal it becomes raw: keys are the container's. through,
// if not nil, is the way to out.
func attach(master, in, out *os.File, through func(*os.File) io.Writer) (*terminal, error) {
	master, err := pollable(master)
	if err != nil {
		return nil, err
	}
	t := &terminal{
		master: master, host: -1,
		resized: make(chan os.Signal, 1), ended: make(chan struct{}), drained: make(chan struct{}),
	}
	for _, f := range []*os.File{in, out, os.Stderr} {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			t.host = int(f.Fd())
			break
		}
	}
	if t.host >= 0 {
		signal.Notify(t.resized, unix.SIGWINCH)
		go t.follow()
		t.resized <- unix.SIGWINCH // the size it has now
	}
	if t.host == int(in.Fd()) {
		if t.saved, err = makeRaw(t.host); err != nil {
			return nil, err
		}
	}
	go t.input(in)
	to := io.Writer(out)
	if through != nil {
		to = through(out)
	}
	go t.output(to)
	return t, nil
}

// pollable returns f as a file whose reads can be given a deadline, and closes f.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// makeRaw is cfmakeraw(3). It returns the settings to restore.
func makeRaw(fd int) (*unix.Termios, error) {
	saved, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return saved, unix.IoctlSetTermios(fd, unix.TCSETS, &raw)
}

// follow gives the container's terminal the size of the user's.
func (t *terminal) follow() {
	for range t.resized {
		size, err := unix.IoctlGetWinsize(t.host, unix.TIOCGWINSZ)
		if err != nil {
			continue
		}
		if c, err := t.master.SyscallConn(); err == nil {
			_ = c.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
		}
	}
}

// input copies keys to the container. The end of a file or pipe is told as a user
// would tell it, by an end-of-transmission character.
func (t *terminal) input(in *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		if _, werr := t.master.Write(buf[:n]); werr != nil {
			return
		}
		if err != nil {
			_, _ = t.master.Write([]byte{4})
			return
		}
	}
}

const (
	// quiet is how long the terminal must be silent, once the process is gone but
	// others still hold the terminal open, for the output to be complete.
	quiet = 100 * time.Millisecond
	// leftover is more than the kernel buffers for a terminal: what comes after it
	// was not written by the process that is gone.
	leftover = 1 << 20
)

// output copies what the container prints until its terminal hangs up (EIO) or,
// after the end of its process, until nothing more comes.
func (t *terminal) output(out io.Writer) {
	defer close(t.drained)
	buf := make([]byte, 32<<10)
	for late := 0; late < leftover; {
		ended := t.hasEnded()
		if ended {
			_ = t.master.SetReadDeadline(time.Now().Add(quiet))
		}
		n, err := t.master.Read(buf)
		if _, werr := out.Write(buf[:n]); werr != nil {
			return
		}
		if ended {
			late += n
		}
		if err != nil && (ended || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return
		}
	}
}

func (t *terminal) hasEnded() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// close waits until all output is copied and gives the user's terminal back. The
// deadline only wakes the reader, so it comes before the news that it wakes for.
func (t *terminal) close() {
	_ = t.master.SetReadDeadline(time.Now())
	close(t.ended)
	<-t.drained
	if t.host >= 0 {
		signal.Stop(t.resized)
		close(t.resized)
	}
	if t.saved != nil {
		_ = unix.IoctlSetTermios(t.host, unix.TCSETS, t.saved)
	}
	_ = t.master.Close()
}

// onTerminals says whether all of the descriptors are terminals.
func onTerminals(fds ...int) bool {
	for _, fd := range fds {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return false
		}
	}
	return true
}
