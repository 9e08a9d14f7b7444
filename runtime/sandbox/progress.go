package sandbox

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// progress is a line at the end of the screen that tells how the job is doing. Whatever
// else goes to the terminal passes through it, to take the line away first; it comes back
// when the cursor is at the beginning of a line. The nil one is not there.
type progress struct {
	screen *os.File
	quit   chan struct{}
	drawer sync.WaitGroup

	mu     sync.Mutex
	width  int  // of the line that is there, 0: none
	middle bool // the cursor is in the middle of what the job has written
}

// newProgress is for standard error, if that is a terminal.
func newProgress(wanted bool) *progress {
	if !wanted || !isTerminal(2) {
		return nil
	}
	// Of its own: something else may take the place of standard error.
	fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return &progress{screen: os.NewFile(uintptr(fd), "terminal")}
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// sameTerminal says whether two files are one terminal.
func sameTerminal(a, b *os.File) bool {
	var x, y unix.Stat_t
	return isTerminal(int(a.Fd())) && unix.Fstat(int(a.Fd()), &x) == nil && unix.Fstat(int(b.Fd()), &y) == nil &&
		x.Dev == y.Dev && x.Rdev == y.Rdev && x.Mode&unix.S_IFMT == y.Mode&unix.S_IFMT
}

// through is the way to a terminal; other files are nobody's matter.
func (p *progress) through(to *os.File) io.Writer {
	if p == nil || !isTerminal(int(to.Fd())) {
		return to
	}
	return passage{p, to}
}

type passage struct {
	p  *progress
	to io.Writer
}

func (w passage) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.clear()
	n, err := w.to.Write(b)
	if n > 0 {
		w.p.middle = b[n-1] != '\n'
	}
	return n, err
}

// clear needs nothing of the terminal but that it knows what a carriage return is.
func (p *progress) clear() {
	if p.width > 0 {
		_, _ = p.screen.WriteString("\r" + strings.Repeat(" ", min(p.width, p.columns())) + "\r")
	}
	p.width = 0
}

// columns is how many may be written to: in the last one some terminals wrap.
func (p *progress) columns() int {
	size, err := unix.IoctlGetWinsize(int(p.screen.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 79
	}
	return int(size.Col) - 1
}

// often is how often the line is made anew.
const often = 500 * time.Millisecond

// begin draws until end.
func (p *progress) begin(stats func() (*cgroups.Stats, error)) {
	if p == nil {
		return
	}
	p.quit = make(chan struct{})
	start := time.Now()
	p.drawer.Go(func() {
		tick := time.NewTicker(often)
		defer tick.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-tick.C:
			}
			s, err := stats()
			if err != nil {
				s = &cgroups.Stats{}
			}
			p.draw(figures(time.Since(start), s))
		}
	})
}

// draw shows as many of the figures as there is room for.
func (p *progress) draw(list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.middle {
		return
	}
	text, room := "", p.columns()
	for _, figure := range list {
		if len(text)+len(figure) > room {
			break
		}
		text += figure
	}
	p.clear()
	if p.width = len(text); p.width > 0 {
		_, _ = p.screen.WriteString(text)
	}
}

// figures are those of a job at work, as far as they are known. They are ASCII.
func figures(wall time.Duration, s *cgroups.Stats) []string {
	list := []string{"sandbox  " + wall.Round(time.Second).String()}
	add := func(format string, args ...any) { list = append(list, "  "+fmt.Sprintf(format, args...)) }
	if c := s.CPU; c != nil {
		used := time.Duration(c.UsageUsec) * time.Microsecond
		add("cpu %v (%.1f)", used.Round(100*time.Millisecond), float64(used)/float64(max(wall, 1)))
	}
	if m := s.Memory; m != nil {
		limit := ""
		if m.Limit != math.MaxUint64 {
			limit = " of " + Bytes(m.Limit).String()
		}
		add("memory %dM%s", m.Usage>>20, limit)
	}
	if n := s.Pids; n != nil {
		add("pids %d", n.Current)
	}
	return list
}

// end takes the line away.
func (p *progress) end() {
	if p == nil {
		return
	}
	if p.quit != nil {
		close(p.quit)
		p.drawer.Wait()
		p.quit = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	_ = p.screen.Close()
}
