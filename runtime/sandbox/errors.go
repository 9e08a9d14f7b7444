package sandbox

import (
	"fmt"

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
