package namespaces

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is the child between clone and exec. It is a copy of one thread of
// a program with many: locks may be held for ever, the scheduler and the
// garbage collector are gone, and the goroutine's stack cannot grow. The rules
// are those of forkAndExecInChild1 in Go's package syscall:
//
//   - no allocation, no map, no interface, no defer, no panic
//   - only functions marked nosplit, and of other packages only the raw
//     system calls
//   - no store of a pointer (a write barrier may be armed): addresses are
//     uintptr
//
// Everything is therefore laid out before, in a half.

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// join is a setns call.
type join struct {
	fd, flag uintptr
	user     bool
	again    bool // after the user namespace was entered
	text     string
}

// gap is a range of descriptors to close.
type gap struct{ first, last uintptr }

// message is struct msghdr with addresses in place of pointers.
type message struct {
	name, nameLen       uintptr
	iov, iovLen         uintptr
	control, controlLen uintptr
	flags               uintptr
}

// rights is struct cmsghdr with one descriptor.
type rights struct {
	len                  uintptr
	level, kind, fd, pad int32
}

// half is the child's half of a spawn.
type half struct {
	args   cloneArgs // of the first process
	second cloneArgs // of the second, if there is one
	stages bool      // there are two
	shared bool      // the first runs in our memory, on the stack below
	stack  []byte

	joins     []join
	joinsUser bool
	joinsPID  bool
	early     uintptr // unshared by the first of two processes, before its gate
	late      uintptr // unshared by the last process
	maps      bool    // wait at the gate: id maps
	offsets   bool    // wait at the gate: time offsets
	place     bool    // wait at the gate: be moved into the cgroup
	ids       bool    // become root of the user namespace
	small     bool    // no transparent huge pages

	root         uintptr // detached mount to pivot into before the second process, 0: none
	conn, target uintptr // the conversation's descriptor, now and at exec
	exe          uintptr
	leave        uintptr // cgroup.procs of the cgroup to move to, 0: none
	slot         [1]byte // "0", this process
	boot         int32   // socket to the parent until the last process runs, or -1
	gaps         []gap
	argv, envv   []*byte

	// Scratch.
	pidfd    int32
	secondFD int32
	report   uintptr // where errors go
	pollfd   unix.PollFd
	instant  unix.Timespec
	action   [4]uint64 // struct sigaction: SIG_DFL
	packet   [128]byte
	iov      [2]uintptr
	rights   rights
	msg      message
	slash    [2]byte // "/"
	dot      [2]byte // "."
	slave    unix.MountAttr
	caps     unix.CapUserHeader
	capData  [2]unix.CapUserData
}

// run is the life of the first process.
//
//go:nosplit
//go:norace
func (h *half) run() {
	h.report = h.conn
	if h.stages {
		h.report = uintptr(h.boot)
	}
	h.guard()
	h.resetSignals()
	h.closeGaps()
	if len(h.joins) > 0 {
		// Before any namespace is joined: from then on processes of the
		// container may see this one (CVE-2016-9962).
		if !h.shared { // else it is unseen, and its memory the caller's
			h.dumpable(0)
		}
		// Nor shall they find a way to our terminal (TIOCSTI) in it, as they
		// would in a process of our session.
		syscall.RawSyscall6(unix.SYS_SETSID, 0, 0, 0, 0, 0, 0)
		h.enter()
	}
	h.unshare(h.early, "unshare user, time, mnt")
	h.passGate()
	if h.ids {
		h.becomeRoot()
	}
	if h.root != 0 {
		h.pivot()
	}
	if h.stages {
		h.stageTwo()
	}
	h.unshare(h.late, "unshare cgroup")
	if h.leave != 0 {
		h.slot[0] = '0'
		syscall.RawSyscall6(unix.SYS_WRITE, h.leave, uintptr(unsafe.Pointer(&h.slot)), 1, 0, 0, 0)
	}
	if h.small {
		syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_THP_DISABLE, 1, 0, 0, 0, 0)
	}
	h.guard() // cleared when the ids changed
	h.exec()
}

// guard has the kernel kill this process when the thread that called Spawn
// ends. It may have ended before; then its end of the socket is closed.
//
//go:nosplit
//go:norace
func (h *half) guard() {
	if _, _, e := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0); e != 0 {
		h.fail("prctl PDEATHSIG", e)
	}
	if h.abandoned() {
		h.exit(1)
	}
}

// abandoned says whether the other end of the socket is closed.
//
//go:nosplit
//go:norace
func (h *half) abandoned() bool {
	h.pollfd.Fd = int32(h.report)
	h.pollfd.Events = 0
	syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&h.pollfd)), 1, uintptr(unsafe.Pointer(&h.instant)), 0, 0, 0)
	return h.pollfd.Revents != 0
}

// resetSignals gives every signal its default meaning and unblocks it. Ignored
// and blocked ones would otherwise be inherited by the container. Go's handlers
// cannot run here: all is blocked until they are gone.
//
//go:nosplit
//go:norace
func (h *half) resetSignals() {
	for sig := uintptr(1); sig <= 64; sig++ { // SIGKILL and SIGSTOP: EINVAL
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&h.action)), 0, 8, 0, 0)
	}
	const setmask = 2
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setmask, uintptr(unsafe.Pointer(&h.action)), 0, 8, 0, 0)
}

// closeGaps closes for good what close-on-exec would close only at the end:
// our parent's end of the sockets, on which nobody else must wait for EOF, and
// every descriptor of the host.
//
//go:nosplit
//go:norace
func (h *half) closeGaps() {
	for i := range h.gaps {
		if _, _, e := syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, h.gaps[i].first, h.gaps[i].last, 0, 0, 0, 0); e != 0 {
			h.fail("close_range", e)
		}
	}
}

//go:nosplit
//go:norace
func (h *half) dumpable(v uintptr) {
	if _, _, e := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, v, 0, 0, 0, 0); e != 0 {
		h.fail("prctl DUMPABLE", e)
	}
}

// enter joins all namespaces, the user namespace last: as root of the host we
// may enter any, as root of a container only its own. For a rootless caller it
// is the other way round, so what is refused is asked for again.
//
//go:nosplit
//go:norace
func (h *half) enter() {
	for i := range h.joins {
		j := &h.joins[i]
		e := h.setns(j)
		if e == unix.EPERM && h.joinsUser && !j.user {
			j.again = true
		} else if e != 0 {
			h.fail(j.text, e)
		}
	}
	for i := range h.joins {
		j := &h.joins[i]
		if j.again {
			if e := h.setns(j); e != 0 {
				h.fail(j.text, e)
			}
		}
	}
}

//go:nosplit
//go:norace
func (h *half) setns(j *join) syscall.Errno {
	_, _, e := syscall.RawSyscall6(unix.SYS_SETNS, j.fd, j.flag, 0, 0, 0, 0)
	return e
}

//go:nosplit
//go:norace
func (h *half) unshare(flags uintptr, text string) {
	if flags == 0 {
		return
	}
	if _, _, e := syscall.RawSyscall6(unix.SYS_UNSHARE, flags, 0, 0, 0, 0, 0); e != 0 {
		h.fail(text, e)
	}
}

// passGate waits until the parent has moved us into our cgroup, and written our id
// maps and time offsets.
//
//go:nosplit
//go:norace
func (h *half) passGate() {
	if !h.maps && !h.offsets && !h.place {
		return
	}
	hide := len(h.joins) > 0 && (h.maps || h.offsets)
	if hide {
		// Only root may write the /proc files of a process that is not
		// dumpable. We are in no PID namespace of others yet.
		h.dumpable(1)
	}
	if h.stages { // else the parent knows without being told
		h.packet[0], h.packet[1] = bootGate, 0
		if e := h.send(uintptr(h.boot), headerLen, -1); e != 0 {
			h.exit(1)
		}
	}
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(h.boot), uintptr(unsafe.Pointer(&h.packet)), headerLen, 0, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 || n == 0 {
			h.exit(1) // our parent is gone
		}
		break
	}
	if hide {
		h.dumpable(0)
	}
}

// becomeRoot changes to uid and gid 0 of the user namespace, since execve would
// take its capabilities from anybody else. Where there is no uid 0, ambient
// capabilities keep them.
//
//go:nosplit
//go:norace
func (h *half) becomeRoot() {
	// EPERM: setgroups is denied there, or no gid is mapped. Others cannot be.
	_, _, e := syscall.RawSyscall6(unix.SYS_SETGROUPS, 0, 0, 0, 0, 0, 0)
	if e != 0 && e != unix.EPERM {
		h.fail("setgroups", e)
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_SETRESGID, 0, 0, 0, 0, 0, 0)
	if e != 0 && e != unix.EINVAL {
		h.fail("setresgid", e)
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_SETRESUID, 0, 0, 0, 0, 0, 0)
	if e == unix.EINVAL {
		h.keepCapabilities()
	} else if e != 0 {
		h.fail("setresuid", e)
	}
}

//go:nosplit
//go:norace
func (h *half) keepCapabilities() {
	h.caps.Version = unix.LINUX_CAPABILITY_VERSION_3
	header, data := uintptr(unsafe.Pointer(&h.caps)), uintptr(unsafe.Pointer(&h.capData))
	if _, _, e := syscall.RawSyscall6(unix.SYS_CAPGET, header, data, 0, 0, 0, 0); e != 0 {
		h.fail("capget", e)
	}
	h.capData[0].Inheritable = h.capData[0].Permitted
	h.capData[1].Inheritable = h.capData[1].Permitted
	if _, _, e := syscall.RawSyscall6(unix.SYS_CAPSET, header, data, 0, 0, 0, 0); e != 0 {
		h.fail("capset", e)
	}
	for c := uintptr(0); c < 64; c++ { // those that do not exist: EINVAL
		syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0, 0)
	}
}

// pivot makes the container's root the only one that this process and its child can
// reach (security of a joined PID namespace: enter it last).
//
//go:nosplit
//go:norace
func (h *half) pivot() {
	const cwd = ^uintptr(99) // AT_FDCWD, -100
	slash, dot, end := uintptr(unsafe.Pointer(&h.slash)), uintptr(unsafe.Pointer(&h.dot)), uintptr(unsafe.Pointer(&h.slash[1]))
	_, _, e := syscall.RawSyscall6(unix.SYS_MOUNT_SETATTR, cwd, slash, unix.AT_RECURSIVE, uintptr(unsafe.Pointer(&h.slave)), unsafe.Sizeof(h.slave), 0)
	if e != 0 {
		h.fail("mount_setattr /", e)
	}
	old, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, cwd, slash, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, 0, 0)
	if e != 0 {
		h.fail("open /", e)
	}
	if _, _, e = syscall.RawSyscall6(unix.SYS_MOVE_MOUNT, h.root, end, cwd, slash, unix.MOVE_MOUNT_F_EMPTY_PATH, 0); e != 0 {
		h.fail("move_mount root", e)
	}
	h.fchdir(h.root)
	// pivot_root(2): the old root then lies on top of the new one.
	if _, _, e = syscall.RawSyscall6(unix.SYS_PIVOT_ROOT, dot, dot, 0, 0, 0, 0); e != 0 {
		h.fail("pivot_root", e)
	}
	h.fchdir(old)
	if _, _, e = syscall.RawSyscall6(unix.SYS_UMOUNT2, dot, unix.MNT_DETACH, 0, 0, 0, 0); e != 0 {
		h.fail("umount2", e)
	}
	h.fchdir(h.root)
	syscall.RawSyscall6(unix.SYS_CLOSE, old, 0, 0, 0, 0, 0)
	syscall.RawSyscall6(unix.SYS_CLOSE, h.root, 0, 0, 0, 0, 0)
}

//go:nosplit
//go:norace
func (h *half) fchdir(fd uintptr) {
	if _, _, e := syscall.RawSyscall6(unix.SYS_FCHDIR, fd, 0, 0, 0, 0, 0); e != 0 {
		h.fail("fchdir", e)
	}
}

// stageTwo clones the second process as a sibling of this one, so that it is
// the caller's own child, and returns in it. A joined PID namespace and a time
// namespace with offsets are entered only by children; a new user namespace has
// to own the namespaces that are new with it.
//
//go:nosplit
//go:norace
func (h *half) stageTwo() {
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&h.second)), unsafe.Sizeof(h.second), 0, 0, 0, 0)
	if e != 0 {
		h.fail("clone3", e)
	}
	if pid == 0 {
		h.report = h.conn
		h.guard()
		return
	}
	h.packet[0], h.packet[1] = bootPID, 0
	h.putWord(headerLen, uint32(pid))
	if e := h.send(uintptr(h.boot), headerLen+4, h.secondFD); e != 0 {
		h.exit(1) // our parent is gone, and the second process with it
	}
	h.exit(0)
}

// clear returns fd, or a copy if the conversation needs its number.
//
//go:nosplit
//go:norace
func (h *half) clear(fd uintptr) uintptr {
	if fd != h.target {
		return fd
	}
	fd, _, e := syscall.RawSyscall6(unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, h.target+1, 0, 0, 0)
	if e != 0 {
		h.fail("fcntl F_DUPFD_CLOEXEC", e)
	}
	return fd
}

// exec leaves 0-2, the inherited descriptors and the conversation.
//
//go:nosplit
//go:norace
func (h *half) exec() {
	h.exe = h.clear(h.exe)
	if h.boot >= 0 {
		h.clear(uintptr(h.boot)) // its end must be the exec's, not dup3's
	}
	var e syscall.Errno
	if h.conn == h.target { // dup3 refuses this
		_, _, e = syscall.RawSyscall6(unix.SYS_FCNTL, h.conn, unix.F_SETFD, 0, 0, 0, 0)
	} else {
		_, _, e = syscall.RawSyscall6(unix.SYS_DUP3, h.conn, h.target, 0, 0, 0, 0)
	}
	if e != 0 {
		h.fail("dup3", e)
	}
	h.report = h.target
	syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, h.target+1, ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC, 0, 0, 0)
	_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, h.exe, uintptr(unsafe.Pointer(&h.packet[len(h.packet)-1])),
		uintptr(unsafe.Pointer(&h.argv[0])), uintptr(unsafe.Pointer(&h.envv[0])), unix.AT_EMPTY_PATH, 0)
	h.fail("execveat", e)
}

// fail reports what failed and ends the process.
//
//go:nosplit
//go:norace
func (h *half) fail(text string, e syscall.Errno) {
	h.packet[0], h.packet[1] = KindError, 0
	h.putWord(headerLen, StepSpawn)
	h.putWord(headerLen+4, uint32(e))
	n := headerLen + 8
	for i := 0; i < len(text) && n < len(h.packet); i++ {
		h.packet[n] = text[i]
		n++
	}
	h.send(h.report, uintptr(n), -1)
	h.exit(1)
}

//go:nosplit
//go:norace
func (h *half) putWord(at int, v uint32) {
	for i := range 4 {
		h.packet[at+i] = byte(v >> (8 * i))
	}
}

// send sends n bytes of the packet, and a descriptor if it is not -1.
//
//go:nosplit
//go:norace
func (h *half) send(to, n uintptr, fd int32) syscall.Errno {
	h.iov[0] = uintptr(unsafe.Pointer(&h.packet))
	h.iov[1] = n
	h.msg.iov = uintptr(unsafe.Pointer(&h.iov))
	h.msg.iovLen = 1
	h.msg.controlLen = 0
	if fd >= 0 {
		h.rights.len = unix.SizeofCmsghdr + 4
		h.rights.level, h.rights.kind, h.rights.fd = unix.SOL_SOCKET, unix.SCM_RIGHTS, fd
		h.msg.control = uintptr(unsafe.Pointer(&h.rights))
		h.msg.controlLen = unsafe.Sizeof(h.rights)
	}
	for {
		_, _, e := syscall.RawSyscall6(unix.SYS_SENDMSG, to, uintptr(unsafe.Pointer(&h.msg)), unix.MSG_NOSIGNAL, 0, 0, 0)
		if e != unix.EINTR {
			return e
		}
	}
}

//go:nosplit
//go:norace
func (h *half) exit(status uintptr) {
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, status, 0, 0, 0, 0, 0)
	}
}
