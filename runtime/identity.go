package runtime

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process identifies a process for good: a pid can be reused, but not with the same start time.
type process struct {
	PID   int
	Start uint64 // clock ticks since boot
}

// self identifies the calling process.
func self() (process, error) {
	start, _, err := processStart(os.Getpid())
	return process{PID: os.Getpid(), Start: start}, err
}

// alive says whether the process still runs: the same one, and not a zombie.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	start, state, err := processStart(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// handle returns a pidfd of the process, or ESRCH. It is opened before the check, so
// that what was checked is what will be signalled.
func (p process) handle() (int, error) {
	if p.PID <= 0 {
		return -1, unix.ESRCH
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	if !p.alive() {
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// processStart reads start time and state of a process from /proc/PID/stat.
func processStart(pid int) (start uint64, state byte, err error) {
	fd, err := openPath("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(fd)
	b, err := readAll(fd, 1<<16)
	if err != nil {
		return 0, 0, err
	}
	return parseStat(b)
}

// parseStat takes the state (field 3) and the start time (field 22) out of a line of
// /proc/PID/stat. The command name in parentheses may itself hold anything, even ") S 1 (":
// only its last parenthesis counts.
func parseStat(b []byte) (start uint64, state byte, err error) {
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if strings.IndexByte(s, ')') < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, errors.New("malformed /proc/PID/stat")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}
