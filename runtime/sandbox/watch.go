package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/huskrun/husk/cgroups"

	"github.com/huskrun/husk/runtime"
	"golang.org/x/sys/unix"
)

// grace is what a job has, when its time is over, between SIGTERM and SIGKILL.
const grace = 2 * time.Second

// watch ends a job whose time is over, or that writes too much or nothing.
type watch struct {
	r  *runtime.Runtime
	id string
	o  *Options

	progress *progress
	terminal bool // the job has one of its own

	mu      sync.Mutex
	ended   string // by which flag, "": not by us
	text    string // why
	timers  []*time.Timer
	idle    *time.Timer
	written atomic.Int64
	pipes   []*pipe
	copies  sync.WaitGroup
}

// pipe takes the place of one of our standard streams, which the job inherits.
type pipe struct {
	fd   int
	real *os.File // where it leads
	to   io.Writer
	out  *os.File // its end for us
}

// counts says whether the job's output has to pass through us.
func (o *Options) counts() bool { return o.Idle > 0 || o.Output > 0 }

// connect puts pipes on standard output and error, where what is written matters, or where
// it would get mixed up with the progress.
func (w *watch) connect() error {
	for _, fd := range []int{1, 2} {
		if !w.o.counts() && (w.progress == nil || w.terminal || !isTerminal(fd)) {
			continue
		}
		if err := w.insert(fd); err != nil {
			w.restore()
			return err
		}
	}
	return nil
}

func (w *watch) insert(fd int) error {
	real, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	p := &pipe{fd: fd, real: os.NewFile(uintptr(real), "output")}
	if len(w.pipes) > 0 && sameTerminal(p.real, w.pipes[0].real) { // what goes there stays in its order
		w.pipes = append(w.pipes, p)
		return os.NewSyscallError("dup3", unix.Dup3(1, fd, 0))
	}
	out, in, err := os.Pipe()
	if err == nil {
		err = unix.Dup3(int(in.Fd()), fd, 0)
		_ = in.Close()
	}
	if err != nil {
		_ = p.real.Close()
		return err
	}
	p.out, p.to = out, w.progress.through(p.real)
	w.pipes = append(w.pipes, p)
	w.copies.Go(func() { w.copy(p) })
	return nil
}

// copy passes output on, as fast as it is taken.
func (w *watch) copy(p *pipe) {
	buf := make([]byte, 64<<10)
	for {
		n, err := p.out.Read(buf)
		if n = w.passed(n); n > 0 {
			if _, werr := p.to.Write(buf[:n]); werr != nil {
				_ = p.out.Close() // the job gets SIGPIPE, as it would from our reader
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passed takes note of n bytes, and returns how many of them may pass.
func (w *watch) passed(n int) int {
	if n == 0 {
		return 0
	}
	w.mu.Lock()
	if w.idle != nil {
		w.idle.Reset(w.o.Idle)
	}
	w.mu.Unlock()
	limit := int64(w.o.Output)
	over := w.written.Add(int64(n)) - limit
	if limit == 0 || over <= 0 {
		return n
	}
	w.stop("output-limit", "it has written more than "+w.o.Output.String())
	return max(0, n-int(over))
}

// restore puts the streams back, by which the pipes end, and waits for the rest of what
// is in them.
func (w *watch) restore() {
	w.mu.Lock()
	pipes := w.pipes
	w.pipes = nil
	w.mu.Unlock()
	for _, p := range pipes {
		_ = unix.Dup3(int(p.real.Fd()), p.fd, 0)
	}
	w.copies.Wait()
	for _, p := range pipes {
		_ = p.real.Close()
		_ = p.out.Close()
	}
}

// unread says whether the job has written what we have not come to read.
func (p *pipe) unread() bool {
	n := 0
	if c, err := p.out.SyscallConn(); err == nil { // Fd would have it block
		_ = c.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n > 0
}

// begin starts the clocks.
func (w *watch) begin() {
	w.progress.begin(func() (*cgroups.Stats, error) { return w.r.Stats(w.id) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.o.Timeout; d > 0 {
		w.timers = append(w.timers, time.AfterFunc(d, func() { w.stop("timeout", fmt.Sprintf("it has run for %v", d)) }))
	}
	if d := w.o.Idle; d > 0 {
		w.idle = time.AfterFunc(d, func() { w.stop("idle-timeout", fmt.Sprintf("it has written nothing for %v", d)) })
		w.timers = append(w.timers, w.idle)
	}
}

// stop ends the job: with a signal that it may handle first. Clocks run late where
// processors are busy, and cannot end a job that has written, or has ended, meanwhile.
func (w *watch) stop(flag, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != "" {
		return
	}
	if flag == "idle-timeout" && slices.ContainsFunc(w.pipes, (*pipe).unread) {
		w.idle.Reset(w.o.Idle)
		return
	}
	err := w.r.Signal(w.id, unix.SIGTERM, false)
	if flag != "output-limit" && (errors.Is(err, runtime.ErrNotRunning) || errors.Is(err, runtime.ErrNotExist)) {
		return
	}
	w.ended, w.text = flag, text
	w.timers = append(w.timers, time.AfterFunc(grace, func() { _ = w.r.Signal(w.id, unix.SIGKILL, false) }))
}

// end stops the clocks.
func (w *watch) end() {
	w.progress.end()
	w.restore()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.timers {
		t.Stop()
	}
}
