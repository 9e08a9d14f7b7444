package runtime

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// initLock makes the file whose lock says that the init has not executed the process
// yet, and returns it locked. The lock belongs to the open file, not to a process: it
// moves to the init with the descriptor, and the kernel drops it at execve.
func (e *entry) initLock() (int, error) {
	fd, err := openat(e.fd, lockFile, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err == nil {
		err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	if err != nil {
		return -1, e.pathError("lock", lockFile, err)
	}
	return fd, nil
}

// initLocked says whether husk's init still holds the lock.
func (e *entry) initLocked() bool {
	fd, err := openat(e.fd, lockFile, unix.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK
}

// sockaddr addresses the start socket through the directory's descriptor, because the
// path of a state root may be longer than the 107 bytes that a socket address holds.
func (e *entry) sockaddr() *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(e.fd) + "/" + startSock}
}

// listen makes the socket on which the init awaits start.
func (e *entry) listen() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// bind(2) takes the mode of the new name from the socket.
	if err = unix.Fchmod(fd, 0o600); err == nil {
		err = unix.Bind(fd, e.sockaddr())
	}
	if err == nil {
		err = unix.Listen(fd, 8)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, e.pathError("listen", startSock, err)
	}
	return fd, nil
}

// dial connects to the parked init.
func (e *entry) dial() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// An init that does not accept must not keep us for ever once its queue is full.
	tv := unix.NsecToTimeval(int64(startPatience))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	err = retryErr(func() error { return unix.Connect(fd, e.sockaddr()) })
	if err != nil {
		_ = unix.Close(fd)
		return -1, e.pathError("connect", startSock, err)
	}
	return fd, nil
}

// sendFD connects to a unix stream socket and sends one descriptor with data, the way
// that engines expect consoles (data is the terminal's name) and pidfds.
func sendFD(socket, data string, fd int) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	tv := unix.NsecToTimeval(int64(lockPatience))
	_ = unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	if err := connectUnix(s, socket); err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", sendAll(s, []byte(data), unix.UnixRights(fd)))
}

// sendAll sends data, of which more may be than the socket takes at once, and the
// descriptors with the first of it.
func sendAll(s int, data, rights []byte) error {
	for {
		n, err := retry(func() (int, error) { return unix.SendmsgN(s, data, rights, nil, unix.MSG_NOSIGNAL) })
		if err != nil {
			return err
		}
		if data, rights = data[n:], nil; len(data) == 0 {
			return nil
		}
	}
}

// connectUnix connects to a socket whose path may be too long for an address: then the
// directory is reached through a descriptor.
func connectUnix(s int, path string) error {
	if len(path) > 107 {
		dir, err := openPath(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return os.NewSyscallError("open", err)
		}
		defer unix.Close(dir)
		path = "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path)
	}
	return os.NewSyscallError("connect", retryErr(func() error { return unix.Connect(s, &unix.SockaddrUnix{Name: path}) }))
}

// writePidFile writes the pid, digits only: engines parse the raw bytes. They may watch
// for the name, so it appears with its content.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	dir, err := openPath(filepath.Dir(path), dirFlags)
	if err == nil {
		err = replaceFile(dir, filepath.Base(path), strconv.AppendInt(nil, int64(pid), 10), 0o644, false)
		_ = unix.Close(dir)
	}
	if err != nil {
		return fmt.Errorf("pid file: %w", &fs.PathError{Op: "write", Path: path, Err: err})
	}
	return nil
}

// removePidFile takes back the pid file of a create that failed after writing it.
func removePidFile(path string, pid int) {
	if path == "" {
		return
	}
	if b, err := os.ReadFile(path); err == nil && string(b) == strconv.Itoa(pid) {
		_ = os.Remove(path)
	}
}
