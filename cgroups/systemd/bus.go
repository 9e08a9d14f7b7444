package systemd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	busName    = "org.freedesktop.DBus"
	busPath    = "/org/freedesktop/DBus"
	properties = "org.freedesktop.DBus.Properties"

	managerName  = "org.freedesktop.systemd1"
	managerPath  = "/org/freedesktop/systemd1"
	managerIface = "org.freedesktop.systemd1.Manager"
	unitIface    = "org.freedesktop.systemd1.Unit"

	jobRemoved = "type='signal',sender='" + managerName + "',path='" + managerPath +
		"',interface='" + managerIface + "',member='JobRemoved'"
)

// destination: there are two whom we talk to.
func destination(iface string) string {
	if iface == busName {
		return busName
	}
	return managerName
}

// address is a socket of the manager itself, or of a message bus that it is on.
type address struct {
	path string // "@" begins the name of an abstract socket
	bus  bool
}

// conn is a connection to the manager. After an error of reading or writing it is of no
// use: nobody knows where in a message the stream stands.
type conn struct {
	address
	f      *os.File // not blocking: the runtime's poller gives it deadlines and deals with signals
	r      *bufio.Reader
	serial uint32
	dead   bool

	// The jobs that ended, of the unit that is being watched. A job can end before the
	// answer that names it has been read.
	watched string
	manager string // its unique name on the bus: others may send us signals too
	ended   []job
}

// job is what JobRemoved tells of it.
type job struct{ path, result string }

// maxEnded bounds what a hostile peer can make us remember.
const maxEnded = 16

// dial connects to the first address that there is.
func dial(addrs []address, deadline time.Time) (*conn, error) {
	var errs []error
	for _, a := range addrs {
		c, err := a.patiently(deadline, unix.ECONNREFUSED)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ECONNREFUSED) && !a.bus {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// While systemd executes itself anew its socket refuses, or is missing even, some 100 ms
// long, and nothing tells when it is back. The bus could not reach it either, and would
// not say so.
const (
	absencePause = 20 * time.Millisecond
	absenceTime  = 10 * time.Second
)

// patiently waits for somebody to be there as long as the errors are among these.
func (a address) patiently(deadline time.Time, absent ...error) (*conn, error) {
	if a.bus {
		return a.dial(deadline)
	}
	for end := time.Now().Add(absenceTime); ; time.Sleep(absencePause) {
		c, err := a.dial(deadline)
		now := time.Now().Add(absencePause)
		if !slices.ContainsFunc(absent, func(e error) bool { return errors.Is(err, e) }) || now.After(end) || now.After(deadline) {
			return c, err
		}
	}
}

func (a address) dial(deadline time.Time) (*conn, error) {
	fd, err := a.connect(deadline)
	if err != nil {
		return nil, &os.PathError{Op: "connect to systemd at", Path: a.path, Err: err}
	}
	c := &conn{address: a, f: os.NewFile(uintptr(fd), a.path)}
	c.r = bufio.NewReader(c.f)
	c.until(deadline)
	if err := c.hello(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// connect waits too, while the peer's queue of connections is full: connect(2) does so
// only on a socket that blocks, with the timeout for sending.
func (a address) connect(deadline time.Time) (int, error) {
	left := time.Until(deadline)
	if left <= 0 {
		return -1, os.ErrDeadlineExceeded
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	wait := unix.NsecToTimeval(max(left, time.Microsecond).Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	for err == nil {
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: a.path}); err != unix.EINTR {
			break
		}
		err = nil
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == unix.EAGAIN {
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (c *conn) until(deadline time.Time) { _ = c.f.SetDeadline(deadline) }

func (c *conn) close() {
	c.dead = true
	_ = c.f.Close()
}

// hello says who we are. EXTERNAL without an identity leaves that to SO_PEERCRED, which
// is right in every user namespace. All of it is said at once, as systemd's own client does.
func (c *conn) hello() error {
	if _, err := c.f.WriteString("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"); err != nil {
		return c.lost(err)
	}
	for _, want := range []string{"DATA", "OK"} {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return c.lost(cut(err))
		}
		if word, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" ")); string(word) != want {
			return fmt.Errorf("%s does not let us in: it says %q: %w", c.path, line[:min(len(line), 80)], unix.EACCES)
		}
	}
	if !c.bus {
		return nil // and it tells everybody of all jobs
	}
	_, err := c.call(busPath, busName, "Hello")
	return err
}

// subscribe makes the manager tell us about jobs; it does so unasked on its own socket.
func (c *conn) subscribe() error {
	if !c.bus || c.manager != "" {
		return nil
	}
	if _, err := c.call(busPath, busName, "AddMatch", jobRemoved); err != nil {
		return err
	}
	m, err := c.call(managerPath, managerIface, "Subscribe")
	if err != nil {
		return err
	}
	c.manager = m.sender
	return nil
}

// call makes a method call and waits for its answer.
func (c *conn) call(path, iface, member string, args ...any) (*message, error) {
	if err := c.send(path, iface, member, args); err != nil {
		return nil, err
	}
	serial := c.serial
	for {
		m, err := c.next()
		switch {
		case err != nil:
			return nil, err
		case m.reply != serial:
		case m.kind == kindError:
			return nil, busError(m)
		case m.kind == kindReturn:
			return m, nil
		}
	}
}

func (c *conn) send(path, iface, member string, args []any) error {
	c.serial++
	_, err := c.f.Write(encode(c.serial, path, iface, member, args))
	return c.lost(err)
}

// next receives a message, and takes note of a job that ended.
func (c *conn) next() (*message, error) {
	m, err := read(c.r)
	if err != nil {
		return nil, c.lost(err)
	}
	if m.kind != kindSignal || m.iface != managerIface || m.member != "JobRemoved" || c.bus && m.sender != c.manager {
		return m, nil
	}
	d := m.expect("uoss")
	d.u32()
	ended := job{path: d.str()}
	unit := d.str()
	ended.result = d.str()
	if d.err == nil && unit == c.watched && len(c.ended) < maxEnded {
		c.ended = append(c.ended, ended)
	}
	return m, nil
}

// watch begins to take note of the jobs of a unit.
func (c *conn) watch(unit string) { c.watched, c.ended = unit, nil }

// wait returns the result of the job.
func (c *conn) wait(path string) (string, error) {
	for {
		for _, j := range c.ended {
			if j.path == path {
				return j.result, nil
			}
		}
		c.ended = c.ended[:0]
		if _, err := c.next(); err != nil {
			return "", err
		}
	}
}

// lost makes of a failure to read or write one that says where and what it means.
func (c *conn) lost(err error) error {
	if err == nil {
		return nil
	}
	c.dead = true
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s does not answer in time: %w", c.path, os.ErrDeadlineExceeded)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = unix.ECONNRESET
	}
	return fmt.Errorf("connection to %s: %w", c.path, err)
}

// disconnected says that the other side went away, as it does when it is executed anew
// (systemctl daemon-reexec). A peer that is slow, or talks nonsense, is not asked again.
func disconnected(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ENOTCONN)
}

// addresses are where the system's manager, or the user's, can be reached. To its own
// socket there is no message bus between, which could be slow, absent or mute.
func addresses(user bool) []address {
	if !user {
		return []address{{"/run/systemd/private", false}, {"/run/dbus/system_bus_socket", true}}
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = fmt.Sprintf("/run/user/%d", os.Geteuid())
	}
	all := []address{{dir + "/systemd/private", false}}
	if bus := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); bus != "" {
		return append(all, parseAddresses(bus)...)
	}
	return append(all, address{dir + "/bus", true})
}

// parseAddresses takes the unix sockets from the D-Bus specification's list:
// "unix:path=/run/user/1000/bus,guid=…;unix:abstract=…".
func parseAddresses(list string) (all []address) {
	for one := range strings.SplitSeq(list, ";") {
		params, ok := strings.CutPrefix(one, "unix:")
		if !ok {
			continue
		}
		for param := range strings.SplitSeq(params, ",") {
			key, value, _ := strings.Cut(param, "=")
			switch value = unescapeAddress(value); key {
			case "path":
				all = append(all, address{value, true})
			case "abstract":
				all = append(all, address{"@" + value, true})
			}
		}
	}
	return all
}

// unescapeAddress replaces %hh.
func unescapeAddress(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String()
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0
}
