package runtime

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// Where husk may not change the host's network, pasta(1) makes the container's interface
// and stays in the background to serve it (see namespaces.Pasta). It is ended with the
// container.

// pastaFile is where it writes its pid, in the directory of the container's state.
const pastaFile = "pasta.pid"

// pasta is one that is being started.
type pasta struct {
	path string
	done chan error // nil: not begun, or done
}

// throughPasta plans that.
func (p *Plan) throughPasta(i *namespaces.Interface) (err error) {
	switch {
	case p.Pasta != nil:
		return errors.New("is a second interface, of which pasta makes one")
	case !p.isNew(unix.CLONE_NEWUSER):
		return &Error{Err: errors.New("needs a new user namespace, where husk lacks CAP_NET_ADMIN over the host's network"), Hint: "add {\"type\": \"user\"} to /linux/namespaces, or run husk as root"}
	}
	p.Pasta, err = i.PastaOptions()
	return err
}

// pastaResolver has pasta stand for the host's name servers where none of them can be
// reached.
func (p *Plan) pastaResolver(host func() (string, error)) (string, error) {
	text, err := host()
	if errors.Is(err, errNoServers) && p.Pasta != nil {
		p.Pasta = append(p.Pasta, "--dns-forward", namespaces.PastaDNS)
		return "nameserver " + namespaces.PastaDNS + "\n", nil
	}
	return text, err
}

// startPasta has it begin while the init boots and mounts.
func (c *creation) startPasta() {
	c.pasta.done = make(chan error, 1)
	file := c.stateDir(c.entry.id) + "/" + pastaFile
	go func() { c.pasta.done <- namespaces.Pasta(c.pasta.path, c.proc.PID, file, c.plan.Pasta) }()
}

func (c *creation) awaitPasta() error {
	if c.pasta.done == nil {
		return nil
	}
	err := <-c.pasta.done
	c.pasta.done = nil
	if err == nil {
		c.rec.Pasta, err = c.entry.pasta()
	}
	return err
}

// pasta identifies the one that has written its pid. Should that have ended long ago, and
// another process have its number, it is at least called like that.
func (e *entry) pasta() (p process, err error) {
	text, err := readSmall("/proc/self/fd/" + strconv.Itoa(e.fd) + "/" + pastaFile)
	if err != nil {
		return p, e.pathError("read", pastaFile, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return p, fmt.Errorf("%s: %w", pastaFile, err)
	}
	name, err := readSmall("/proc/" + strconv.Itoa(pid) + "/comm")
	if err == nil && !slices.ContainsFunc([]string{"pasta", "passt"}, func(s string) bool { return strings.HasPrefix(name, s) }) {
		err = unix.ESRCH
	}
	if err != nil {
		return p, fmt.Errorf("pasta, process %d, has ended: %w", pid, err)
	}
	return identify(pid)
}

// endPasta ends the one of a container, also if husk died before it could record which
// that is.
func (rec *record) endPasta(e *entry) error {
	p := rec.Pasta
	if p.PID == 0 && rec.Phase == phaseCreating {
		p, _ = e.pasta()
	}
	pidfd, err := p.handle()
	if err != nil {
		return nil // it has ended, or never begun
	}
	defer unix.Close(pidfd)
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	return waitReadable(pidfd, time.Now().Add(killPatience))
}
