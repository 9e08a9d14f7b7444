package namespaces

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Device is a network device that a network namespace is to have.
type Device struct {
	Name string // its name there; the kernel puts a number in place of %d, if it moves
	Host string // its name in the caller's network namespace, which it leaves; "": it is made
	Make string // how: what ParseInterface reads
}

// DeviceError says for which of several devices something failed.
type DeviceError struct {
	Index int // -1: for none in particular
	Err   error
}

func (e *DeviceError) Error() string { return e.Err.Error() }
func (e *DeviceError) Unwrap() error { return e.Err }

// Links is a conversation with the program that changes network links (package
// main in ./linker). It is a program of its own because what it is made of would cost
// every start of the caller more than all other packages together, while few containers
// need it.
//
// What it did lasts only once Keep was called: if the caller goes away before, by
// whatever way, the program puts everything back and then ends. So it does not die with
// its caller, and is no part of the caller's session.
//
// A Links must not be used by two goroutines at once.
type Links struct {
	Leased []string // addresses that were chosen, once what Wire began is done
	Names  []string // and those of names, each with its name behind

	conn *Conn
	proc Process
	said *os.File // what the program wrote on stderr
	asks bool     // an answer is due
}

// The kinds of messages. KindError answers with the index of a device as its step.
const (
	linksWire   byte = iota + 1 // owner, devices (+the namespace that gets them)
	linksBack                   // undo that
	linksRemove                 // owner, bridges
	linksKeep                   // what was done stays: the end
	linksDone                   // answers the first three
)

// linksWait is how long one answer may take. The kernel changes links one at a time.
const linksWait = 30 * time.Second

// StartLinks starts the program. It boots while the caller goes on.
func StartLinks(program io.ReaderAt) (*Links, error) {
	l := new(Links)
	if err := l.start(program); err != nil {
		return nil, fmt.Errorf("network helper: %w", err)
	}
	return l, nil
}

func (l *Links) start(program io.ReaderAt) error {
	exe, err := SealedProgram("husk-linker", program)
	if err != nil {
		return err
	}
	defer exe.Close()
	if l.said, err = newSaid(); err != nil {
		return err
	}
	ours, theirs, err := Pair()
	if err != nil {
		l.said.Close()
		return err
	}
	defer theirs.Close()
	const closed = ^uintptr(0)
	pidfd := -1
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(int(exe.Fd())), []string{"husk-linker"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"},
		Files: []uintptr{closed, closed, l.said.Fd(), uintptr(theirs.fd)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		l.said.Close()
		ours.Close()
		return os.NewSyscallError("execve", err)
	}
	l.conn, l.proc = ours, Process{PID: pid, FD: os.NewFile(uintptr(pidfd), "pidfd")}
	return nil
}

// Wire begins to furnish a network namespace, of which fd is a descriptor, with devices.
// Those that move keep their permanent global addresses. All are brought up. What is
// made is marked with the owner's name; of all callers in one network namespace, one at a
// time makes or removes.
func (l *Links) Wire(fd int, owner string, devices []Device) error {
	b := appendText(nil, owner)
	for _, d := range devices {
		b = appendText(appendText(appendText(b, d.Name), d.Host), d.Make)
	}
	return l.begin(linksWire, b, fd)
}

// Remove begins to remove what was made for an owner, and those of the bridges that were
// made for anybody and have no port any more.
func (l *Links) Remove(owner string, bridges []string) error {
	b := appendText(nil, owner)
	for _, name := range bridges {
		b = appendText(b, name)
	}
	return l.begin(linksRemove, b)
}

func (l *Links) begin(kind byte, payload []byte, fds ...int) error {
	err := l.conn.Send(kind, payload, fds...)
	l.asks = err == nil
	return err
}

func appendText(b []byte, s string) []byte { return append(append(b, s...), 0) }

// Wait waits until what was begun is done. On failure, then a [*DeviceError], nothing
// has changed.
func (l *Links) Wait() error {
	if !l.asks {
		return nil
	}
	l.asks = false
	kind, payload, fds, err := l.conn.Recv(time.Now().Add(linksWait))
	closeAll(fds)
	switch {
	case errors.Is(err, io.EOF):
		return &DeviceError{-1, fmt.Errorf("the network helper died: %s", complaint(l.said))}
	case err != nil:
		return &DeviceError{-1, err}
	case kind == linksDone:
		leased, names, _ := strings.Cut(string(payload), "\n")
		l.Leased = append(l.Leased, strings.Fields(leased)...)
		l.Names = slices.AppendSeq(l.Names, strings.Lines(names))
		return nil
	case kind != KindError:
		return &DeviceError{-1, fmt.Errorf("answer of kind %d: %w", kind, unix.EBADMSG)}
	}
	step, errno, text, err := DecodeError(payload)
	if err == nil {
		err = fmt.Errorf("%s: %w", text, errno)
	}
	return &DeviceError{int(int32(step)), err}
}

// Back puts the devices back, under their names and with their addresses.
func (l *Links) Back() error {
	if err := l.Wait(); err != nil {
		return nil // it has put back, or is about to, what it could
	}
	if err := l.begin(linksBack, nil); err != nil {
		return err
	}
	return l.Wait()
}

// Keep makes what was done last, and ends the program.
func (l *Links) Keep() error {
	err := l.Wait()
	if err == nil {
		err = l.conn.Send(linksKeep, nil)
	}
	return errors.Join(err, l.Close())
}

// Close ends the program, which puts back what it is not to keep.
func (l *Links) Close() error {
	l.conn.Close()
	defer l.proc.FD.Close()
	defer l.said.Close()
	wait := unix.NsecToTimespec(int64(linksWait))
	n, err := retry(func() (int, error) {
		return poll(&unix.PollFd{Fd: int32(l.proc.FD.Fd()), Events: unix.POLLIN}, &wait, false)
	})
	if n == 0 && err == nil {
		err = fmt.Errorf("the network helper, process %d, does not end: %w", l.proc.PID, os.ErrDeadlineExceeded)
	}
	if err != nil {
		return err
	}
	var status unix.WaitStatus
	_, err = retry(func() (int, error) { return unix.Wait4(l.proc.PID, &status, 0, nil) })
	if err == nil && status != 0 {
		return fmt.Errorf("the network helper: %s", complaint(l.said))
	}
	return nil // ECHILD: somebody else has waited for it
}

// newSaid is for what a program writes on stderr: nobody need read it meanwhile.
func newSaid() (*os.File, error) {
	fd, err := unix.MemfdCreate("husk-errors", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "stderr"), nil
}

func complaint(said *os.File) string {
	b, _ := io.ReadAll(io.NewSectionReader(said, 0, 4096))
	return strings.TrimSpace(string(b))
}

// A Linker does the work of the program behind [Links]. Its descriptors are the caller's.
type Linker interface {
	// Wire furnishes a namespace with all devices, or none. The index is that of the one
	// with which it could not.
	Wire(fd int, owner string, devices []Device) (index int, err error)
	// Leased lists the addresses that it has chosen for them.
	Leased() []string
	// Names lists those of names, ADDRESS NAME.
	Names() []string
	// Back undoes that; what cannot be undone is reported.
	Back() error
	// Remove removes what was made for an owner, and bridges without ports.
	Remove(owner string, bridges []string) error
}

// ServeLinks is the program's side of the conversation.
func ServeLinks(conn *Conn, l Linker) error {
	for {
		kind, payload, fds, err := conn.Recv(time.Time{})
		if err == nil && kind == linksKeep {
			return nil
		}
		if err != nil {
			break // our caller is gone, or out of its mind
		}
		index, err := serve(l, kind, payload, fds)
		closeAll(fds)
		answer, text := linksDone, []byte(strings.Join(append([]string{strings.Join(l.Leased(), " ")}, l.Names()...), "\n"))
		if err != nil {
			answer, text = KindError, encodeDeviceError(index, err)
		}
		if conn.Send(answer, text) != nil {
			break
		}
	}
	return l.Back()
}

func serve(l Linker, kind byte, payload []byte, fds []int) (index int, err error) {
	texts := strings.Split(string(payload), "\x00")
	n := len(texts) - 1 // each ends with a NUL
	switch {
	case kind == linksWire && len(fds) == 1 && n%3 == 1 && texts[n] == "":
		devices := make([]Device, 0, n/3)
		for i := 1; i < n; i += 3 {
			devices = append(devices, Device{Name: texts[i], Host: texts[i+1], Make: texts[i+2]})
		}
		return l.Wire(fds[0], texts[0], devices)
	case kind == linksBack:
		return -1, l.Back()
	case kind == linksRemove && len(fds) == 0 && n > 0 && texts[n] == "":
		return -1, l.Remove(texts[0], texts[1:n])
	}
	return -1, fmt.Errorf("message of kind %d with %d descriptors: %w", kind, len(fds), unix.EBADMSG)
}

// encodeDeviceError: the errno has a place of its own, and then does not stand in the text.
func encodeDeviceError(index int, err error) []byte {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = unix.EIO
	}
	return EncodeError(uint32(int32(index)), errno, strings.TrimSuffix(err.Error(), ": "+errno.Error()))
}
