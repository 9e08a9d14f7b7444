package runtime

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/seccomp"
	"golang.org/x/sys/unix"
)

// forbidden is a system call for which the kernel has killed a process, from its log.
type forbidden struct {
	audit, number uint32
}

// forbiddenCall asks the kernel's log for which call a filter has killed the process pid,
// which began at since. Where a daemon takes the audit records, or the log is not for us,
// it does not tell. From another PID namespace than the first the pid is not comparable;
// then what all records since say must be the same.
func forbiddenCall(pid int, since time.Time) (call forbidden, ok bool) {
	if pidNamespace() != firstPIDNamespace {
		pid = 0
	}
	fd, err := openPath("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return call, false
	}
	defer unix.Close(fd)
	buf := make([]byte, 8<<10) // a read gives one record, of at most 1 KiB and its prefix
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
		if err == unix.EPIPE {
			continue // it was overwritten, the next one is there
		}
		if err != nil || n == 0 {
			return call, ok
		}
		c, match := parseForbidden(string(buf[:n]), pid, since)
		if match && ok && c != call {
			return call, false
		}
		if match {
			call, ok = c, true
		}
	}
}

// firstPIDNamespace has a fixed inode (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const firstPIDNamespace = 0xeffffffc

// coarse is how much, in seconds, the clock of audit records may be behind: a tick.
const coarse = 0.02

// parseForbidden takes apart a record like
//
//	6,9,8,-;audit: type=1326 audit(1700000000.805:91): … pid=7 comm="x" exe="/x" sig=31 arch=c000003e syscall=79 …
//
// The names of the program cannot forge a word: those with blanks or quotes are in hex.
func parseForbidden(record string, pid int, since time.Time) (call forbidden, ok bool) {
	prefix, record, _ := strings.Cut(record, ";")
	// What programs write there is of another facility than the kernel's, 0.
	priority, _, _ := strings.Cut(prefix, ",")
	record, isAudit := strings.CutPrefix(record, "audit: type=1326 audit(")
	stamp, words, _ := strings.Cut(record, ":")
	seconds, err := strconv.ParseFloat(stamp, 64)
	if !isAudit || len(priority) != 1 || priority > "7" || err != nil || seconds < float64(since.UnixMilli())/1000-coarse {
		return call, false
	}
	values := map[string]string{}
	for word := range strings.FieldsSeq(words) {
		if name, value, ok := strings.Cut(word, "="); ok {
			values[name] = value
		}
	}
	arch, err1 := strconv.ParseUint(values["arch"], 16, 32)
	number, err2 := strconv.ParseUint(values["syscall"], 10, 32)
	if err1 != nil || err2 != nil || values["sig"] != strconv.Itoa(int(unix.SIGSYS)) || pid != 0 && values["pid"] != strconv.Itoa(pid) {
		return call, false
	}
	return forbidden{uint32(arch), uint32(number)}, true
}

// filtered is the error about a process that was killed by its filter. The profile, if
// there is one, tells which rule that was.
func (r *Runtime) filtered(who string, pid int, since time.Time, profile []byte) *Error {
	e := &Error{
		Field: seccomp.Pointer,
		Err:   errors.New(who + " was killed by SIGSYS, which is how a seccomp filter kills"),
		Hint:  "the audit log may tell for which system call; husk seccomp record makes a profile that allows what the program needs",
	}
	call, ok := forbiddenCall(pid, since)
	if !ok {
		return e
	}
	name, arch := seccomp.NameCall(r.Seccomp, call.audit, call.number)
	e.Err = fmt.Errorf("%s was killed by its filter for the system call %s of %s", who, name, arch)
	if field := seccomp.RuleOf(profile, name); field != "" {
		e.Field = field
	}
	e.Hint = "if the program needs it, allow " + name + " in " + seccomp.Pointer + "/syscalls, or have it fail (SCMP_ACT_ERRNO)"
	return e
}

// died is what is behind err, if that is errDied: the memory limit, or the filter.
func (r *Runtime) died(rec *record, err error) error {
	if err = rec.died(err); !errors.Is(err, errDied) {
		return err
	}
	if _, ok := forbiddenCall(rec.Init.PID, rec.Created); ok {
		return r.filtered("the container's init, before it executed the process,", rec.Init.PID, rec.Created, nil)
	}
	return err
}

// explained is an error with its hint, for a warning, which has none.
func explained(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Hint != "" {
		return e.Error() + "; " + e.Hint
	}
	return err.Error()
}
