package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/huskrun/husk/runtime"
)

// Exit statuses besides those of the job. 126 and 127 are as a shell's: the program
// cannot be executed, or is not there.
const (
	StatusEnded  = 124 // time or output was over the limit
	StatusFailed = 125 // it is husk that has failed
)

// bad is a mistake in the flag of that name.
func bad(name, hint, format string, args ...any) error {
	return &runtime.Error{Op: "sandbox", Err: fmt.Errorf("--"+name+": "+format, args...), Hint: hint, Exit: StatusFailed}
}

// failed gives an error the exit status of one that is husk's, and advice in terms of
// flags.
func failed(err error) *runtime.Error {
	e, ok := errors.AsType[*runtime.Error](err)
	if !ok {
		e = &runtime.Error{Op: "sandbox", Err: err}
	}
	e.Exit = cmp.Or(e.Exit, StatusFailed)
	if strings.HasPrefix(e.Field, "/mounts/") && strings.Contains(e.Error(), "id-map ") && errors.Is(e, syscall.EINVAL) {
		e.Hint = "this file system knows no id-mapped mounts, which root's jobs need: take one on ext4, XFS or Btrfs, or run husk as an ordinary user"
	}
	if cause := errors.Unwrap(e.Err); cause != nil && strings.HasPrefix(e.Err.Error(), "--net eth0: allow: ") {
		e.Err = fmt.Errorf("--%w", cause)
	}
	return e
}
