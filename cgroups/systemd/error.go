package systemd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Error is a failure to do something with a unit.
type Error struct {
	Op   string // "start", "set properties of", "stop", "find the place of"
	Unit string
	Err  error
}

func (e *Error) Error() string { return e.Op + " unit " + e.Unit + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// BusError is an error that systemd, or the message bus, answered. Where its name says
// something that an errno says, errors.Is finds that.
type BusError struct {
	Name    string // "org.freedesktop.systemd1.UnitExists"
	Message string
}

func (e *BusError) Error() string {
	if e.Message == "" {
		return e.Name
	}
	return fmt.Sprintf("systemd says %q (%s)", e.Message, e.Name)
}

func (e *BusError) Unwrap() error {
	name := e.Name[strings.LastIndexByte(e.Name, '.')+1:]
	for _, n := range errnos {
		if n.name == name {
			return n.errno
		}
	}
	return nil
}

// errnos are those of the last words of error names that have one. The last rows are
// for errors of system calls, System.Error.EPERM.
var errnos = []struct {
	name  string
	errno syscall.Errno
}{
	{"UnitExists", unix.EEXIST},
	{"NoSuchUnit", unix.ENOENT},
	{"NoUnitForPID", unix.ESRCH},
	{"NoSuchProcess", unix.ESRCH},
	{"UnixProcessIdUnknown", unix.ESRCH},
	{"AccessDenied", unix.EACCES},
	{"AuthFailed", unix.EACCES},
	{"InteractiveAuthorizationRequired", unix.EACCES},
	{"InvalidArgs", unix.EINVAL},
	{"InvalidSignature", unix.EINVAL},
	{"BadUnitSetting", unix.EINVAL},
	{"PropertyReadOnly", unix.EROFS},
	{"UnknownProperty", unix.EROFS},
	{"UnknownMethod", unix.ENOSYS},
	{"NotSupported", unix.EOPNOTSUPP},
	{"UnitMasked", unix.EPERM},
	{"LimitsExceeded", unix.ENOBUFS},
	{"NoMemory", unix.ENOMEM},
	{"NoReply", unix.ECONNRESET}, // systemd left the bus before it answered
	{"Timeout", unix.ETIMEDOUT},
	{"TimedOut", unix.ETIMEDOUT},
	{"Disconnected", unix.ECONNRESET},
	{"ServiceUnknown", unix.ECONNREFUSED},
	{"NameHasNoOwner", unix.ECONNREFUSED},
	{"ShuttingDown", unix.ESHUTDOWN},
	{"EPERM", unix.EPERM},
	{"EACCES", unix.EACCES},
	{"EBUSY", unix.EBUSY},
	{"EINVAL", unix.EINVAL},
	{"ENXIO", unix.ENXIO},
	{"ENOENT", unix.ENOENT},
	{"ESRCH", unix.ESRCH},
	{"ENOMEM", unix.ENOMEM},
	{"ENOSPC", unix.ENOSPC},
	{"EROFS", unix.EROFS},
	{"EAGAIN", unix.EAGAIN},
}

// busError takes the error from a message; its first argument is text, if there is any.
func busError(m *message) error {
	e := &BusError{Name: m.errorName}
	if strings.HasPrefix(m.signature, "s") && !m.long {
		e.Message = (&decoder{b: m.body}).str()
	}
	if e.Name == "" {
		return errMalformed
	}
	return e
}

// JobError says that systemd took up the work and did not get it done.
type JobError struct {
	Result string // "failed", "timeout", "canceled", "dependency", …
}

func (e *JobError) Error() string {
	text := "the job ended as \"" + e.Result + `"`
	if e.Result == "failed" || e.Result == "dependency" {
		text += " (journalctl -u UNIT may tell why)"
	}
	return text
}

// Unwrap lets a job that timed out be seen as what it is.
func (e *JobError) Unwrap() error {
	switch e.Result {
	case "timeout":
		return os.ErrDeadlineExceeded
	case "canceled":
		return unix.ECANCELED
	}
	return nil
}

// isGone says that there is no such unit.
func isGone(err error) bool {
	e, ok := errors.AsType[*BusError](err)
	return ok && strings.HasSuffix(e.Name, ".NoSuchUnit")
}

func isTaken(err error) bool {
	e, ok := errors.AsType[*BusError](err)
	return ok && strings.HasSuffix(e.Name, ".UnitExists")
}
