package runtime

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process identifies a process for good: a pid can be reused, but not with the same
// start time, and it means nothing in another PID namespace.
type process struct {
	PID   int
	Start uint64 // clock ticks since boot
	NS    uint64 // inode of the PID namespace in which PID is its number
}

// errForeign is said of a process whose number is of another PID namespace than ours.
var errForeign = errors.New("its processes are numbered in another PID namespace")

// identify describes the process pid of our PID namespace, which must be alive.
func identify(pid int) (process, error) {
	start, err := processStart(pid)
	return process{PID: pid, Start: start, NS: pidNamespace()}, err
}

// self identifies the calling process.
func self() (process, error) { return identify(os.Getpid()) }

// pidNamespace returns the inode of our PID namespace.
func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}

// alive says whether the process still runs: the same one, and not a zombie. Whoever
// cannot tell, for want of descriptors or memory, must not take it for dead.
func (p process) alive() bool {
	fd, err := p.handle()
	if err == nil {
		_ = unix.Close(fd)
	}
	return err != errForeign && !errors.Is(err, unix.ESRCH)
}

// foreign says whether there is no telling from here.
func (p process) foreign() bool { return p.PID > 0 && p.NS != pidNamespace() }

// handle returns a pidfd of the process, ESRCH if it has ended, or errForeign. The
// descriptor is opened before the check, so that what was checked is what will be
// signalled. A pidfd is readable once all threads have ended, which the state letter of
// the main thread does not tell.
func (p process) handle() (int, error) {
	if p.PID <= 0 {
		return -1, unix.ESRCH
	}
	if p.foreign() {
		return -1, errForeign
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == unix.EINVAL || err == unix.ENOENT {
		return -1, unix.ESRCH // the number is a thread's by now
	}
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	start, err := processStart(p.PID)
	if err == nil && start == p.Start && !ended(fd) {
		return fd, nil
	}
	_ = unix.Close(fd)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
		return -1, err
	}
	return -1, unix.ESRCH
}

func ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := retry(func() (int, error) { return unix.Poll(fds, 0) })
	return err == nil && n == 1
}

// processStart returns the start time of a process.
func processStart(pid int) (uint64, error) {
	start, _, err := readStat(pid)
	return start, err
}

// readStat reads start time and flags (PF_*) of a process from /proc/PID/stat.
func readStat(pid int) (start, flags uint64, err error) {
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

// exiting says whether the main thread of a process has ended, or has begun to.
func exiting(pid int) bool {
	const exiting = 4 // PF_EXITING
	_, flags, err := readStat(pid)
	return err != nil || flags&exiting != 0
}

// parseStat takes the flags (field 9) and the start time (field 22) out of a line of
// /proc/PID/stat. The command name in parentheses may itself hold anything, even
// ") S 1 (": only its last parenthesis counts.
func parseStat(b []byte) (start, flags uint64, err error) {
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if strings.IndexByte(s, ')') < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, errors.New("malformed /proc/PID/stat")
	}
	if flags, err = strconv.ParseUint(fields[6], 10, 64); err != nil {
		return 0, 0, err
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, flags, err
}
