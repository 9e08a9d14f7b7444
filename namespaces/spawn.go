package namespaces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Go runtime keeps these two stable for programs that fork on their own
// (go.dev/issue/67401). Between them no signal reaches this thread, and a
// function that would grow the stack crashes instead.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// bootWait bounds the conversation with a child that is not past its gate.
const bootWait = 30 * time.Second

// What the two ends of the boot socket say to each other.
const (
	bootGate byte = iota + 1 // child: place me, write my maps and offsets; parent: done
	bootPID                  // child: this is the real child (+pidfd)
)

// Spawn starts c.Exe as a child in the namespaces and the cgroup of c, and
// returns while it starts. A failure on the child's side from then on arrives
// as a [KindError] message with [StepSpawn] on the parent's end of c.Child,
// followed by io.EOF.
//
// The child is killed when the calling *thread* ends (PR_SET_PDEATHSIG), until
// it decides otherwise. The Go runtime ends a thread only when a goroutine exits
// that is locked to it. Locking this one would rule that out, and cost a quarter
// of a millisecond: the first runtime.LockOSThread starts one more thread.
func Spawn(c *Config) (*Process, error) {
	if c.Child != nil {
		defer c.Child.Close()
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("spawn: %w", err)
	}
	p, err := c.spawn()
	if err != nil {
		return nil, fmt.Errorf("spawn: %w", err)
	}
	return p, nil
}

func (c *Config) spawn() (*Process, error) {
	h, boot, err := prepare(c)
	if err != nil {
		return nil, err
	}
	// The child may be reading what they hold until it executes.
	defer goruntime.KeepAlive(h)
	defer goruntime.KeepAlive(c)
	if h.small && h.shared {
		defer allowHugePages() // it is our memory of which the child said it
	}
	p, err := h.start()
	if boot == nil {
		return p, err
	}
	defer boot.Close()
	unix.Close(int(h.boot))
	if err != nil {
		return nil, err
	}
	return c.attend(p, boot, h)
}

// HugePages says whether this process may get transparent huge pages.
func HugePages() bool {
	v, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	return err == nil && v == 0
}

func allowHugePages() { _ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0) }

// prepare lays out everything that the child will need, since it cannot
// allocate. It also returns our end of the boot socket, if one is needed.
func prepare(c *Config) (*half, *Conn, error) {
	h := &half{
		conn: uintptr(c.Child.fd), target: uintptr(3 + c.Inherit), exe: c.Exe.Fd(), boot: -1,
		maps: c.New&unix.CLONE_NEWUSER != 0 && len(c.UIDMaps)+len(c.GIDMaps) > 0, place: c.Place != nil,
		leave: uintptr(c.Leave), small: c.Small,
	}
	h.setJoins(c.Join)
	h.setFlags(c)
	var err error
	if h.argv, err = syscall.SlicePtrFromStrings(c.Args); err != nil {
		return nil, nil, err
	}
	if h.envv, err = syscall.SlicePtrFromStrings(c.Env); err != nil {
		return nil, nil, err
	}
	if c.Cgroup >= 0 {
		h.args.flags |= unix.CLONE_INTO_CGROUP
		h.args.cgroup = uint64(c.Cgroup)
	}
	var boot *Conn
	if h.maps || h.place || h.stages {
		ours, theirs, err := Pair()
		if err != nil {
			return nil, nil, err
		}
		boot, h.boot = ours, int32(theirs.fd)
	}
	h.setGaps(c.Inherit)
	h.setMemory(c)
	return h, boot, nil
}

func (h *half) setJoins(joins []Join) {
	for _, n := range names {
		for _, j := range joins {
			// One of several types goes where its strongest belongs.
			if j.Flag&n.flag == 0 || (j.Flag&unix.CLONE_NEWUSER != 0) != (n.flag == unix.CLONE_NEWUSER) {
				continue
			}
			if slices.ContainsFunc(h.joins, func(k join) bool { return k.fd == uintptr(j.FD) && k.flag == j.Flag }) {
				continue
			}
			user := n.flag == unix.CLONE_NEWUSER
			h.joins = append(h.joins, join{fd: uintptr(j.FD), flag: j.Flag, user: user, text: "setns " + typeNames(j.Flag)})
			h.joinsUser = h.joinsUser || user
			h.joinsPID = h.joinsPID || j.Flag&unix.CLONE_NEWPID != 0
		}
	}
}

// setFlags decides on one or two stages and which of them makes what.
func (h *half) setFlags(c *Config) {
	offsets := len(c.TimeOffsets) > 0
	newUser := c.New&unix.CLONE_NEWUSER != 0
	h.ids = newUser || h.joinsUser
	// copy_cgroup_ns() roots a namespace made by clone at the *parent's*
	// cgroup; the child unshares it once it is in its own.
	h.late = c.New & unix.CLONE_NEWCGROUP
	fresh := c.New &^ unix.CLONE_NEWCGROUP
	h.stages = h.joinsPID || offsets || newUser && len(h.joins) > 0 || h.joinsUser && c.New != 0
	h.args.exitSignal = uint64(unix.SIGCHLD)
	h.args.flags = unix.CLONE_PIDFD
	h.args.pidfd = uint64(uintptr(unsafe.Pointer(&h.pidfd)))
	if !h.stages {
		h.args.flags |= uint64(fresh)
		return
	}
	h.early = fresh & unix.CLONE_NEWUSER
	if offsets {
		// clone would freeze the offsets of a time namespace that it makes.
		h.early |= fresh & unix.CLONE_NEWTIME
	}
	if c.Root != 0 && h.joinsPID {
		h.early |= fresh & unix.CLONE_NEWNS
		h.root = uintptr(c.Root)
		h.slash, h.dot = [2]byte{'/'}, [2]byte{'.'}
		h.slave.Propagation = unix.MS_SLAVE
	}
	h.offsets = offsets
	h.second.flags = uint64(fresh&^h.early) | unix.CLONE_PARENT | unix.CLONE_PIDFD
	h.second.pidfd = uint64(uintptr(unsafe.Pointer(&h.secondFD)))
}

// setGaps lists the descriptors to close: all above 2 but those the child uses.
func (h *half) setGaps(inherit int) {
	keep := []uintptr{h.conn, h.exe}
	if h.boot >= 0 {
		keep = append(keep, uintptr(h.boot))
	}
	if h.root != 0 {
		keep = append(keep, h.root)
	}
	if h.leave != 0 {
		keep = append(keep, h.leave)
	}
	for i := range h.joins {
		keep = append(keep, h.joins[i].fd)
	}
	slices.Sort(keep)
	next := uintptr(3 + inherit)
	for _, fd := range keep {
		if fd < next {
			continue
		}
		if fd > next {
			h.gaps = append(h.gaps, gap{next, fd - 1})
		}
		next = fd + 1
	}
	h.gaps = append(h.gaps, gap{next, ^uintptr(0) >> 32})
}

// setMemory decides whether the child runs in our memory until it executes, or
// in a copy of it. Sharing saves the half millisecond that copying page tables
// and taking the faults costs both sides. It is out of the question where
//   - namespaces are joined whose processes might come to look at this one;
//   - the time namespace is another, since the kernel's clock page is mapped
//     for a whole address space at once;
//   - a user namespace is new and we are not root: the child's change of ids
//     makes the memory non-dumpable, and so our own /proc files root's;
//   - the child is to be placed: too rare to have the caller's code run beside it.
func (h *half) setMemory(c *Config) {
	times := c.New
	for _, j := range c.Join {
		times |= j.Flag
	}
	if !canShare || h.place || len(h.joins) > 0 && !c.Unseen || times&unix.CLONE_NEWTIME != 0 || h.ids && !mayMapAnything() {
		return
	}
	h.shared = true
	h.args.flags |= unix.CLONE_VM
	if h.boot < 0 {
		h.args.flags |= unix.CLONE_VFORK // return when it has executed
	}
	h.stack = make([]byte, 16<<10)
	h.args.stack = uint64(uintptr(unsafe.Pointer(&h.stack[0])))
	h.args.stackSize = uint64(len(h.stack) - 64)
}

// start clones the first process.
func (h *half) start() (*Process, error) {
	var pid uintptr
	var errno syscall.Errno
	beforeFork()
	if h.shared {
		var e uintptr
		pid, e = cloneShared(&h.args, unsafe.Sizeof(h.args), h)
		errno = syscall.Errno(e)
	} else {
		pid, errno = h.fork()
	}
	afterFork()
	if errno != 0 {
		return nil, os.NewSyscallError("clone3", errno)
	}
	return &Process{PID: int(pid), FD: os.NewFile(uintptr(h.pidfd), "pidfd")}, nil
}

// fork clones with a copy of our memory. The child never returns from it.
//
//go:noinline
//go:norace
//go:nosplit
func (h *half) fork() (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&h.args)), unsafe.Sizeof(h.args), 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	h.run()
	return 0, 0 // not reached
}

// attend serves the first process p at its gate, and returns the child when it
// no longer needs us: the second process if there are two, else p once it has
// executed or died. On failure nothing is left of either.
func (c *Config) attend(p *Process, boot *Conn, h *half) (child *Process, err error) {
	defer func() {
		if err != nil {
			err = p.abandon(boot, err)
		} else if child != p {
			p.reap() // the first of two ends by itself
		}
	}()
	if !h.stages {
		err = c.open(p.PID, boot) // it waits for this without asking
	}
	for deadline := time.Now().Add(bootWait); err == nil; {
		var kind byte
		var payload []byte
		var fds []int
		switch kind, payload, fds, err = boot.Recv(deadline); {
		case err == io.EOF && !h.stages:
			return p, nil
		case err == io.EOF:
			err = errors.New("the child ended before it had entered its namespaces")
		case err != nil:
		case kind == bootGate:
			err = c.open(p.PID, boot)
		case kind == bootPID && len(fds) == 1 && len(payload) == 4:
			pid := int(binary.LittleEndian.Uint32(payload))
			return &Process{PID: pid, FD: os.NewFile(uintptr(fds[0]), "pidfd")}, nil
		default:
			closeAll(fds)
			err = failure(payload)
		}
	}
	return nil, err
}

// failure is the error that an error packet reports.
func failure(payload []byte) error {
	_, errno, text, err := DecodeError(payload)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", text, errno)
}

// open does what the child cannot do itself and lets it pass the gate. A second
// process inherits the cgroup of the first, which cloned it.
func (c *Config) open(pid int, boot *Conn) error {
	var err error
	if c.Place != nil {
		err = c.Place(pid)
	}
	if err == nil && c.New&unix.CLONE_NEWUSER != 0 {
		err = c.writeMaps(pid)
	}
	if err == nil && len(c.TimeOffsets) > 0 {
		err = c.writeOffsets(pid)
	}
	if err != nil {
		return err // of Place it may be of any other connection that broke
	}
	err = boot.Send(bootGate, nil)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil // it died: EOF comes next
	}
	return err
}

// abandon ends the first process after err, and returns [ErrKilled] if somebody else
// did: all that failed then failed for that. So it must not be killed by us as long as
// it may be ending by itself, as it does when the conversation is over.
func (p *Process) abandon(boot *Conn, err error) error {
	boot.Close()
	second := unix.NsecToTimespec(int64(time.Second))
	n, _ := retry(func() (int, error) {
		return poll(&unix.PollFd{Fd: int32(p.FD.Fd()), Events: unix.POLLIN}, &second, false)
	})
	if n <= 0 {
		_ = unix.PidfdSendSignal(int(p.FD.Fd()), unix.SIGKILL, nil, 0)
	}
	if status := p.reap(); n > 0 && status.Signaled() && status.Signal() == unix.SIGKILL {
		return ErrKilled
	}
	return err
}

// reap waits for the end of a child that the caller will never hear of.
func (p *Process) reap() (status unix.WaitStatus) {
	// ECHILD: somebody else has waited for it, or SIGCHLD is ignored. Fine.
	_, _ = retry(func() (int, error) { return unix.Wait4(p.PID, &status, unix.WALL, nil) })
	p.FD.Close()
	return status
}
