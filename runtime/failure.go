package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// ending is how the init ended, once it was reaped.
type ending struct {
	reaped bool
	forked bool // it did not even execute husk
	info   siginfo
}

// reap waits for our child, the init, which is dead or about to be.
func (c *creation) reap() {
	if c.end.reaped {
		return
	}
	c.end.reaped = true
	_ = waitReadable(int(c.proc.FD.Fd()), time.Now().Add(patience))
	c.end.forked = onlyForked(c.proc.PID)
	c.end.info, _ = waitPidfd(int(c.proc.FD.Fd()))
}

// diagnose explains why the init does not answer: it reported an error, or it died, and
// then how.
func (c *creation) diagnose(cause error) error {
	if errors.Is(cause, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the container's init did not answer: %w", cause)
	}
	// The report may have come while we did something else.
	if !errors.Is(cause, io.EOF) {
		if kind, payload, _, err := c.conn.Recv(time.Now().Add(100 * time.Millisecond)); err == nil && kind == namespaces.KindError {
			return remoteError(kind, payload)
		} else if !errors.Is(err, io.EOF) {
			return cause
		}
	}
	c.reap()
	if err := outOfMemory("the container's init", c.group, c.plan.Limits); err != nil {
		return err
	}
	if c.end.info.signal != 0 {
		return fmt.Errorf("the container's init was killed by signal %d", c.end.info.signal)
	}
	return fmt.Errorf("the container's init exited with status %d: %w", c.end.info.code, cause)
}

// remoteError makes the error that the init, or the raw half of Spawn, reported.
func remoteError(kind byte, payload []byte) error {
	if kind != namespaces.KindError {
		return fmt.Errorf("packet of kind %d: %w", kind, errWire)
	}
	_, errno, text, err := namespaces.DecodeError(payload)
	if err != nil {
		return err
	}
	parts := strings.SplitN(text, "\x00", 3)
	for i := range parts {
		parts[i] = printable(parts[i])
	}
	e := &Error{}
	text = parts[len(parts)-1]
	if len(parts) == 3 {
		e.Field, e.Path = parts[0], parts[1]
	} else {
		e.Field = "/linux/namespaces"
	}
	e.Err = &remoteCause{text, errno}
	e.Exit = exitCode(e.Field, e.Err)
	return e
}

// printable replaces what a terminal would act upon: the text quotes programs of the
// image, which must not be able to forge messages of ours.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// remoteCause is a cause that happened in another process.
type remoteCause struct {
	text  string
	errno unix.Errno
}

func (e *remoteCause) Error() string {
	if e.errno == 0 || strings.HasSuffix(e.text, "in $PATH") {
		return e.text
	}
	if e.text == "" {
		return e.errno.Error()
	}
	return e.text + ": " + e.errno.Error()
}

func (e *remoteCause) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}
