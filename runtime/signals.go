package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// forwarded are the signals that a user or a service manager sends to a foreground
// run and means for its process. SIGWINCH is the terminal's business, SIGTSTP means
// husk itself.
var forwarded = []os.Signal{
	unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT,
}

// terminating are those by which it is to end.
var terminating = forwarded[:4]

// signals are those that husk gets in the foreground. They are caught before the process
// can run, so that none ends husk and leaves the process behind, and wait for it: but one
// that is to end it ends what is being made, should that take long. A nil one catches
// nothing.
type signals struct {
	caught chan os.Signal
	held   []os.Signal // for the process
	done   chan struct{}
}

// catchSignals begins. Go takes tens of microseconds to change the handler of a signal,
// which is why only some are asked for, and while the child boots.
func catchSignals() *signals {
	s := &signals{caught: make(chan os.Signal, 16), done: make(chan struct{})}
	for _, each := range forwarded {
		signal.Notify(s.caught, each)
	}
	return s
}

// interrupted reports a signal that is to end the process, which does not run yet.
func (s *signals) interrupted() error {
	if s == nil {
		return nil
	}
	for len(s.caught) > 0 { // nobody else receives yet
		s.held = append(s.held, <-s.caught)
	}
	for _, held := range s.held {
		if slices.Contains(terminating, held) {
			n := held.(syscall.Signal)
			return &Error{Err: fmt.Errorf("given up before the process ran: %s", n), Exit: 128 + int(n)}
		}
	}
	return nil
}

// recv is conn.Recv that a signal which is to end the process ends too, and so does what
// stalled reports, unless the peer has spoken meanwhile: it may have executed the process,
// and that may have ended, since it was last listened to.
func (s *signals) recv(conn *namespaces.Conn, deadline time.Time, stalled func() error) (kind byte, payload []byte, fds []int, err error) {
	for {
		until := deadline
		if nap := time.Now().Add(stallCheck); deadline.IsZero() || nap.Before(deadline) {
			until = nap
		}
		kind, payload, fds, err = conn.Recv(until)
		if until.Equal(deadline) || !errors.Is(err, os.ErrDeadlineExceeded) {
			return kind, payload, fds, err
		}
		if err = s.interrupted(); err != nil {
			return 0, nil, nil, err
		}
		if stall := stalled(); stall != nil {
			if kind, payload, fds, err = conn.Recv(time.Now()); errors.Is(err, os.ErrDeadlineExceeded) {
				err = stall
			}
			return kind, payload, fds, err
		}
	}
}

// forward passes signals on to the process, which runs, until stop.
func (s *signals) forward(pidfd int) {
	pidfd = dup(pidfd) // its own: it may send after the process was reaped
	go func() {
		defer unix.Close(pidfd)
		send := func(got os.Signal) { _ = unix.PidfdSendSignal(pidfd, got.(syscall.Signal), nil, 0) }
		for _, held := range s.held {
			send(held)
		}
		for {
			select {
			case got := <-s.caught:
				send(got)
			case <-s.done:
				return
			}
		}
	}()
}

func (s *signals) stop() {
	if s != nil {
		signal.Stop(s.caught)
		close(s.done)
	}
}
