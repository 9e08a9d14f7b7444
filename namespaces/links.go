package namespaces

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Device is a network device that moves from the caller's network namespace into another.
type Device struct {
	Host string // its name here
	Name string // its name there; the kernel puts a number in place of %d
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
	conn *Conn
	proc Process
	said *os.File // what the program wrote on stderr
	asks bool     // an answer is due
}

// The kinds of messages. KindError answers with the index of a device as its step.
const (
	linksMove byte = iota + 1 // devices (+the namespace they go to)
	linksBack                 // put back what was moved
	linksKeep                 // it stays: the end
	linksDone                 // answers the first two
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
	exe, err := sealedProgram("husk-linker", program)
	if err != nil {
		return err
	}
	defer exe.Close()
	said, err := unix.MemfdCreate("husk-linker-errors", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	l.said = os.NewFile(uintptr(said), "stderr")
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
		Files: []uintptr{closed, closed, uintptr(said), uintptr(theirs.fd)},
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

// Move begins to move devices into the network namespace of which fd is a descriptor.
// They keep their permanent global addresses and are brought up there.
func (l *Links) Move(fd int, devices []Device) error {
	var b []byte
	for _, d := range devices {
		b = append(append(append(append(b, d.Host...), 0), d.Name...), 0)
	}
	l.asks = true
	return l.conn.Send(linksMove, b, fd)
}

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
		return &DeviceError{-1, fmt.Errorf("the network helper died: %s", l.complaint())}
	case err != nil:
		return &DeviceError{-1, err}
	case kind == linksDone:
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
	if err := l.conn.Send(linksBack, nil); err != nil {
		return err
	}
	l.asks = true
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
		return fmt.Errorf("the network helper: %s", l.complaint())
	}
	return nil // ECHILD: somebody else has waited for it
}

func (l *Links) complaint() string {
	b, _ := io.ReadAll(io.NewSectionReader(l.said, 0, 4096))
	return strings.TrimSpace(string(b))
}

// A Linker does the work of the program behind [Links].
type Linker interface {
	// Move moves the devices, or none. The index is that of the one that could not be.
	Move(fd int, devices []Device) (index int, err error)
	// Back undoes all moves; what cannot be undone is reported.
	Back() error
}

// ServeLinks is the program's side of the conversation.
func ServeLinks(conn *Conn, l Linker) error {
	for {
		kind, payload, fds, err := conn.Recv(time.Time{})
		if err != nil {
			break // our caller is gone, or out of its mind
		}
		index := -1
		switch {
		case kind == linksKeep:
			return nil
		case kind == linksMove && len(fds) == 1:
			var devices []Device
			if devices, err = decodeDevices(payload); err == nil {
				index, err = l.Move(fds[0], devices)
			}
		case kind == linksBack:
			err = l.Back()
		default:
			err = fmt.Errorf("message of kind %d with %d descriptors: %w", kind, len(fds), unix.EBADMSG)
		}
		closeAll(fds)
		answer, text := linksDone, []byte(nil)
		if err != nil {
			answer, text = KindError, encodeDeviceError(index, err)
		}
		if conn.Send(answer, text) != nil {
			break
		}
	}
	return l.Back()
}

func decodeDevices(b []byte) ([]Device, error) {
	words := strings.Split(string(b), "\x00")
	if len(words)%2 != 1 || words[len(words)-1] != "" {
		return nil, fmt.Errorf("list of devices: %w", unix.EBADMSG)
	}
	var devices []Device
	for i := 0; i+1 < len(words); i += 2 {
		devices = append(devices, Device{words[i], words[i+1]})
	}
	return devices, nil
}

// encodeDeviceError: the errno has a place of its own, and then does not stand in the text.
func encodeDeviceError(index int, err error) []byte {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = unix.EIO
	}
	return EncodeError(uint32(int32(index)), errno, strings.TrimSuffix(err.Error(), ": "+errno.Error()))
}
