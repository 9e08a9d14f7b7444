package namespaces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KindError is the kind of a packet that reports a failure of the peer. Its
// payload is what [EncodeError] makes.
const KindError byte = 0xff

// StepSpawn stands in an error packet for "before any step": the failure
// happened between clone and exec.
const StepSpawn uint32 = 0xffffffff

const (
	headerLen  = 2        // kind, flags
	flagMore   = 1        // another packet continues this message
	chunkLen   = 64 << 10 // well below the default socket buffer of 208 KiB
	maxMessage = 32 << 20 // a config.json has at most 16 MiB
	maxFDs     = 253      // SCM_MAX_FD
	sendWait   = 10 * time.Second
)

// Conn is one end of the conversation between husk and its child: a connected
// SOCK_SEQPACKET socket, on which a message is a kind, bytes and descriptors.
//
// A Conn never touches Go's poller, and one made by [FromFD] waits in raw
// system calls. The child needs both: its Go threads count against the
// container's own limits, and a wait that the scheduler knows about may have it
// start another thread.
//
// A Conn must not be used by two goroutines at once.
type Conn struct {
	fd  int
	raw bool
	// Sender is the process that wrote what Recv has returned last, if the kernel was
	// asked to tell: see [Conn.AskSender].
	Sender int
}

// Pair returns the two connected ends of a conversation, both close-on-exec.
func Pair() (parent, child *Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return &Conn{fd: fds[0]}, &Conn{fd: fds[1]}, nil
}

// FromFD returns the Conn on a connected SOCK_SEQPACKET socket, which it owns
// from now on.
func FromFD(fd int) *Conn { return &Conn{fd: fd, raw: true} }

// FD returns the socket, -1 after Close.
func (c *Conn) FD() int { return c.fd }

// AskSender has the kernel say from which process every further message comes.
func (c *Conn) AskSender() error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
}

// Close closes the socket. Closing again is fine.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	// No retry on EINTR: Linux has released the descriptor by then (close(2)).
	return os.NewSyscallError("close", unix.Close(fd))
}

// Send sends one message. Descriptors are copied, the caller keeps its own.
// Payloads above 64 KiB travel in several packets. Send waits while the
// peer's queue is full, but not forever: then it returns
// [os.ErrDeadlineExceeded].
//
// When Send fails because the peer is gone, Recv still returns what the peer
// said last.
func (c *Conn) Send(kind byte, payload []byte, fds ...int) error {
	if len(fds) > maxFDs || len(payload) > maxMessage {
		return fmt.Errorf("message of %d bytes and %d descriptors: %w", len(payload), len(fds), unix.EMSGSIZE)
	}
	var control []byte
	if len(fds) > 0 {
		control = unix.UnixRights(fds...)
	}
	deadline := time.Now().Add(sendWait)
	for {
		n := min(len(payload), chunkLen)
		header := [headerLen]byte{kind, 0}
		if n < len(payload) {
			header[1] = flagMore
		}
		if err := c.sendPacket(header[:], payload[:n], control, deadline); err != nil {
			return err
		}
		payload, control = payload[n:], nil
		if len(payload) == 0 {
			return nil
		}
	}
}

func (c *Conn) sendPacket(header, payload, control []byte, deadline time.Time) error {
	iov := [2]unix.Iovec{{Base: &header[0]}}
	iov[0].SetLen(len(header))
	msg := unix.Msghdr{Iov: &iov[0]}
	msg.SetIovlen(1)
	if len(payload) > 0 {
		iov[1].Base = &payload[0]
		iov[1].SetLen(len(payload))
		msg.SetIovlen(2)
	}
	if len(control) > 0 {
		msg.Control = &control[0]
		msg.SetControllen(len(control))
	}
	for {
		_, errno := c.message(unix.SYS_SENDMSG, &msg, unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := c.wait(unix.POLLOUT, deadline); err != nil {
				return err
			}
		default:
			return os.NewSyscallError("sendmsg", errno)
		}
	}
}

// Recv waits for the next message. The descriptors that came with it are
// close-on-exec and belong to the caller. The error is io.EOF when the peer is
// gone, [os.ErrDeadlineExceeded] when nothing came by the deadline (the zero
// time means none), and wraps EBADMSG when what came is not a message.
func (c *Conn) Recv(deadline time.Time) (kind byte, payload []byte, fds []int, err error) {
	for first := true; ; first = false {
		packet, rights, err := c.recvPacket(deadline)
		if err == nil {
			err = checkPacket(packet, rights, first, kind, len(payload))
		}
		if err != nil {
			closeAll(rights)
			closeAll(fds)
			return 0, nil, nil, err
		}
		if first {
			kind, payload, fds = packet[0], packet[headerLen:], rights
		} else {
			payload = append(payload, packet[headerLen:]...)
		}
		if packet[1]&flagMore == 0 {
			return kind, payload, fds, nil
		}
	}
}

// checkPacket says whether a packet is well-formed and may follow the have
// bytes of a message of the given kind.
func checkPacket(packet []byte, rights []int, first bool, kind byte, have int) error {
	switch {
	case len(packet) < headerLen:
		return fmt.Errorf("packet of %d bytes: %w", len(packet), unix.EBADMSG)
	case packet[1]&^flagMore != 0:
		return fmt.Errorf("packet with flags %#x: %w", packet[1], unix.EBADMSG)
	case first:
		return nil
	case packet[0] != kind:
		return fmt.Errorf("packet of kind %#x inside a message of kind %#x: %w", packet[0], kind, unix.EBADMSG)
	case len(rights) > 0:
		return fmt.Errorf("descriptors inside a message: %w", unix.EBADMSG)
	case len(packet) == headerLen || have+len(packet) > maxMessage+headerLen:
		// Nothing at all would keep the receiver busy for ever.
		return fmt.Errorf("message of %d bytes goes on with %d: %w", have, len(packet)-headerLen, unix.EBADMSG)
	}
	return nil
}

func (c *Conn) recvPacket(deadline time.Time) (packet []byte, rights []int, err error) {
	// Peek at the length first, so that a small message costs a small buffer.
	size, _, _, err := c.recv(nil, nil, unix.MSG_PEEK|unix.MSG_TRUNC, deadline)
	if err != nil {
		return nil, nil, err
	}
	if size == 0 {
		return nil, nil, io.EOF
	}
	if size > headerLen+chunkLen {
		return nil, nil, fmt.Errorf("packet of %d bytes: %w", size, unix.EBADMSG)
	}
	packet = make([]byte, size)
	control := make([]byte, unix.CmsgSpace(4*maxFDs)+unix.CmsgSpace(unix.SizeofUcred))
	n, controlLen, flags, err := c.recv(packet, control, unix.MSG_CMSG_CLOEXEC, deadline)
	if err != nil {
		return nil, nil, err
	}
	rights, c.Sender, err = parseControl(control[:controlLen])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		// unix(7): descriptors beyond our RLIMIT_NOFILE are dropped.
		err = fmt.Errorf("descriptors were lost on the way: %w", unix.EMFILE)
	}
	return packet[:n], rights, err
}

// recv is recvmsg that waits until the deadline.
func (c *Conn) recv(buf, control []byte, flags int, deadline time.Time) (n, controlLen, got int, err error) {
	var iov unix.Iovec
	msg := unix.Msghdr{Iov: &iov}
	msg.SetIovlen(1)
	if len(buf) > 0 {
		iov.Base = &buf[0]
		iov.SetLen(len(buf))
	}
	if len(control) > 0 {
		msg.Control = &control[0]
		msg.SetControllen(len(control))
	}
	for {
		n, errno := c.message(unix.SYS_RECVMSG, &msg, flags)
		switch errno {
		case 0:
			return n, int(msg.Controllen), int(msg.Flags), nil
		case unix.EINTR:
		case unix.ECONNRESET:
			// The peer died with something of ours unread. The kernel says so
			// once, before it hands out what the peer sent before its death:
			// its error packet, which is what we are here for.
		case unix.EAGAIN:
			if err := c.wait(unix.POLLIN, deadline); err != nil {
				return 0, 0, 0, err
			}
		default:
			return 0, 0, 0, os.NewSyscallError("recvmsg", errno)
		}
	}
}

// message does sendmsg or recvmsg without waiting, so it needs no hand-off of
// the processor and is raw at both ends.
func (c *Conn) message(trap uintptr, msg *unix.Msghdr, flags int) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(trap, uintptr(c.fd), uintptr(unsafe.Pointer(msg)), uintptr(flags|unix.MSG_DONTWAIT))
	return int(n), errno
}

// wait waits until the socket is ready for the events, or broken.
func (c *Conn) wait(events int16, deadline time.Time) error {
	for {
		var timeout *unix.Timespec
		if !deadline.IsZero() {
			// One that has passed may have done so while we were stopped, or waited for a
			// processor: what came meanwhile counts.
			ts := unix.NsecToTimespec(max(time.Until(deadline), 0).Nanoseconds())
			timeout = &ts
		}
		n, err := poll(&unix.PollFd{Fd: int32(c.fd), Events: events}, timeout, c.raw)
		switch {
		case n > 0:
			return nil
		case err == nil:
			return os.ErrDeadlineExceeded
		case err != unix.EINTR:
			return os.NewSyscallError("ppoll", err)
		}
	}
}

func poll(fd *unix.PollFd, timeout *unix.Timespec, raw bool) (int, error) {
	if !raw {
		return unix.Ppoll(unsafe.Slice(fd, 1), timeout, nil)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fd)), 1, uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// parseControl returns the descriptors of all SCM_RIGHTS control messages, and the
// process that an SCM_CREDENTIALS names.
func parseControl(control []byte) (rights []int, sender int, err error) {
	if len(control) == 0 {
		return nil, 0, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	for i := range messages {
		if messages[i].Header.Type == unix.SCM_CREDENTIALS {
			cred, parseErr := unix.ParseUnixCredentials(&messages[i])
			if err = errors.Join(err, parseErr); cred != nil {
				sender = int(cred.Pid)
			}
			continue
		}
		fds, parseErr := unix.ParseUnixRights(&messages[i])
		rights = append(rights, fds...)
		err = errors.Join(err, parseErr)
	}
	if err != nil {
		err = fmt.Errorf("control message: %w", unix.EBADMSG)
	}
	return rights, sender, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// EncodeError makes the payload of a [KindError] message: step and errno as
// little-endian uint32, then the text.
func EncodeError(step uint32, errno syscall.Errno, text string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, step)
	b = binary.LittleEndian.AppendUint32(b, uint32(errno))
	return append(b, text...)
}

// DecodeError takes apart the payload of a [KindError] message. The text comes
// from a process that may already be in the hands of the container; its length
// is bounded here, printing it safely is the caller's task.
func DecodeError(payload []byte) (step uint32, errno syscall.Errno, text string, err error) {
	if len(payload) < 8 {
		return 0, 0, "", fmt.Errorf("error packet of %d bytes: %w", len(payload), unix.EBADMSG)
	}
	step = binary.LittleEndian.Uint32(payload)
	errno = syscall.Errno(binary.LittleEndian.Uint32(payload[4:]))
	return step, errno, string(payload[8:min(len(payload), 8+chunkLen)]), nil
}
