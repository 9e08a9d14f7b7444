package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"golang.org/x/sys/unix"
)

// initName is argv[0] of the re-executed child; no user types it.
const initName = "husk-init"

// envSmall tells the init that only it is kept from huge pages, not the process.
const envSmall = "HUSK_SMALL"

// init takes over the program where it runs as a container's init: a program that
// creates containers is executed again for each of them, as initName. That it happens
// here and not in main saves the start of everything that is initialised later, and a
// thread: while packages are initialised the main goroutine is locked to the main
// thread, whereas the first call of runtime.LockOSThread would start another one.
func init() {
	if len(os.Args) != 2 || os.Args[0] != initName {
		return
	}
	growStack()
	_ = growHeap()
	namespaces.RestoreNofile()
	conn := parseFD(os.Args[1])
	// Hooks must not get the descriptors that the process will keep.
	_ = unix.CloseRange(3, uint(conn), unix.CLOSE_RANGE_CLOEXEC)
	i := &initer{root: rootfs.New(), conn: namespaces.FromFD(conn), inherit: conn - 3}
	i.umask, i.birth = unix.Umask(0), unix.Getuid()
	i.main()
	exit(1)
}

// exit ends the init, or leaves that to whoever made it: a filter may refuse even
// exit_group(2), and nothing of the program must run after that.
func exit(code int) {
	os.Exit(code)
	for {
		_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// growStack makes room at once for the deepest calls that follow. Growing by doubling
// would copy the stack several times, and read cold tables to do so. The array is never
// used: that it has a place in the frame is enough, and its pages stay untouched.
//
//go:noinline
func growStack() (b byte) {
	if len(os.Args) > 1<<30 {
		var room [48 << 10]byte
		b = room[len(os.Args)%len(room)]
	}
	return b
}

// growHeap has the heap reach as far as it will be needed, while that is still possible:
// a filter or a limit of the process may forbid it later. It begins at a random page of
// 4 MiB, so that any allocation may be the one that makes it grow. The block is never
// used, and its pages stay untouched; behind it there is room.
//
//go:noinline
func growHeap() []byte { return make([]byte, 4<<20+1) }

func parseFD(s string) (fd int) {
	for _, c := range []byte(s) {
		fd = fd*10 + int(c-'0')
	}
	return fd
}

// initer is the container's init before execve: the interpreter of the plan. All of it
// runs on the main thread, which will execve. It starts no goroutine: a new thread could
// fail under the container's own pids limit.
type initer struct {
	conn    *namespaces.Conn
	root    *rootfs.Root
	inherit int       // descriptors from 3 on that the process keeps
	fds     []int     // descriptors of the current batch that no step has taken yet
	early   []message // batches that came while another answer was awaited

	listen, lock int    // start's listening socket; lock held until execve
	rest         []Step // of the batch, after the current one
	home         string // value of HOME, "" when the config sets it
	umask        int    // the caller's
	birth        int    // the uid that this program began as
	inside       bool   // opChdir succeeded
	became       bool   // opUser has run
	denied       bool   // the user namespace forbids setgroups
	tied         bool   // to the life of the parent
	announced    bool   // EXEC was sent, if it is we who execute
	last         *last  // who executes, if it is not we
	pidfd        int    // of the container's init, for last
}

// main receives batches of steps and runs them until execve or an error.
func (i *initer) main() {
	// Cleared by the change of ids before this program ran.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	_ = prctl(unix.PR_SET_DUMPABLE, 0, 0)
	for {
		m, err := i.await(msgPlan)
		if err != nil {
			return // the parent died: nothing to report, and nobody to report to
		}
		i.fds = m.fds
		steps, err := decodeSteps(m.payload)
		if err != nil {
			i.report(&Step{}, err)
			return
		}
		for k := range steps {
			i.rest = steps[k+1:]
			if err := i.apply(&steps[k]); err != nil {
				i.report(&steps[k], err)
				return
			}
		}
	}
}

// message is what came over the conversation.
type message struct {
	payload []byte
	fds     []int
}

// await returns the next message of a kind. The parent does not wait with the next
// batch of steps until we are done with one, or with what one of them asks for.
func (i *initer) await(want byte) (message, error) {
	if want == msgPlan && len(i.early) > 0 {
		m := i.early[0]
		i.early = i.early[1:]
		return m, nil
	}
	for {
		kind, payload, fds, err := i.conn.Recv(time.Time{})
		switch m := (message{payload, fds}); {
		case err != nil:
			return m, err
		case kind == want:
			return m, nil
		case kind == msgPlan:
			i.early = append(i.early, m)
		default:
			return m, errWire
		}
	}
}

// maxReport keeps a report within one packet, whatever the config's strings are.
const maxReport = 16 << 10

// report sends what failed as facts: field, path, text and errno. It writes instead of
// sending because a seccomp filter that is already loaded more often allows write(2).
func (i *initer) report(s *Step, err error) {
	var errno unix.Errno
	text := err.Error()
	if errors.As(err, &errno) {
		text = strings.TrimSuffix(strings.TrimSuffix(text, errno.Error()), ": ")
	}
	path := ""
	if s.Mount != nil {
		path = s.Mount.Target
	}
	packet := namespaces.EncodeError(uint32(s.Op), errno, shorten(s.Field)+"\x00"+shorten(path)+"\x00"+text[:min(len(text), maxReport)])
	_, _ = unix.Write(i.conn.FD(), append([]byte{namespaces.KindError, 0}, packet...))
}

// take gives the next descriptor that came with the batch, -1 when there is none.
func (i *initer) take() int {
	if len(i.fds) == 0 {
		return -1
	}
	fd := i.fds[0]
	i.fds = i.fds[1:]
	return fd
}

func (i *initer) apply(s *Step) error {
	switch s.Op {
	case opRootfs:
		fd := -1
		if s.Mount.FD {
			fd = i.take()
		}
		return i.root.Apply(s.Mount, fd)
	case opLoopback:
		return namespaces.LoopbackUp()
	case opHostname:
		return unix.Sethostname([]byte(s.Args[0]))
	case opDomainname:
		return unix.Setdomainname([]byte(s.Args[0]))
	case opKeyring:
		return joinKeyring(s.Args[0])
	case opLabel:
		return i.setLabel(s)
	case opOutside:
		return i.outside()
	case opHook:
		return i.hook(s)
	case opSysctl:
		return i.root.Proc().Sysctl(s.Args[0], s.Args[1])
	case opSession:
		return i.session(s)
	case opTerminal:
		_, err := i.terminal(s)
		return err
	case opProc:
		i.root.UseProc(i.take())
		i.pidfd = i.take()
		return nil
	case opInit:
		i.last = &last{Last: namespaces.Last{Own: true, Conn: i.conn.FD()}, late: true, extra: s.Nums[0]}
		i.last.room(s)
		return nil
	case opLast:
		return i.enterPIDs(s)
	case opCwd:
		return i.makeCwd(s.Args[0])
	case opHome:
		return i.findHome(s.Nums[0])
	case opLookup:
		return lookup(s.Args[0], s.Args[1], s.Args[2])
	case opTurn:
		return i.conn.Send(msgTurn, nil)
	case opVisit:
		ns := i.take()
		defer unix.Close(ns)
		return i.root.Visit(ns)
	case opReady:
		return i.ready(s)
	case opNoProcess:
		return errors.New("there is no process to start")
	default:
		return i.applyProcess(s)
	}
}

// outside lets the parent run its hooks while everything is mounted and nothing pivoted.
func (i *initer) outside() error {
	if err := i.conn.Send(msgHooks, nil); err != nil {
		return err
	}
	if _, err := i.await(msgResume); err != nil {
		os.Exit(1)
	}
	return nil
}

// hook runs a createContainer or startContainer hook here, inside. The state that the
// parent prepared lacks the pid, which in here is that of the container's PID namespace.
func (i *initer) hook(s *Step) error {
	n := int(s.Nums[1])
	state := appendPid([]byte(s.Args[0]), os.Getpid())
	defer unix.Umask(unix.Umask(i.umask))
	h := &hookCall{
		path: s.Args[2], args: s.Args[3 : 3+n], env: s.Args[3+n:], state: state,
		timeout: time.Duration(s.Nums[0]) * time.Second,
	}
	if bundle := s.Args[1]; bundle != "" {
		h.dir = hookDir(bundle)
	} else {
		h.init = i
	}
	return runHook(h)
}

func (i *initer) makeCwd(dir string) error {
	fd, err := i.root.MkdirAll(dir, 0o755)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// findHome: an image whose /etc/passwd cannot be used has no say in HOME, that is all.
func (i *initer) findHome(uid int64) error {
	i.home = "/"
	if home, err := i.root.Home(uint32(uid)); err == nil && home != "" {
		i.home = home
	}
	return nil
}

// session makes the init the leader of a new session, so that it has no way to the
// caller's terminal (TIOCSTI), and gives it the container's own terminal if there is one.
func (i *initer) session(s *Step) error {
	// One that has joined namespaces leads its session since before it did.
	if _, err := unix.Setsid(); err != nil && !leads() {
		return os.NewSyscallError("setsid", err)
	}
	if given, err := i.terminal(s); !given || err != nil {
		return err
	}
	return os.NewSyscallError("set controlling terminal", unix.IoctlSetInt(0, unix.TIOCSCTTY, 0))
}

// leads says whether this process leads its session already.
func leads() bool {
	id, err := unix.Getsid(0)
	return err == nil && id == os.Getpid()
}

// terminal makes the container's terminal, if there is one, descriptors 0 to 2.
func (i *initer) terminal(s *Step) (given bool, err error) {
	peer := i.root.Peer()
	if peer < 0 {
		return false, nil
	}
	if height, width := s.Nums[0], s.Nums[1]; height != 0 || width != 0 {
		size := unix.Winsize{Row: uint16(height), Col: uint16(width)}
		if err := unix.IoctlSetWinsize(peer, unix.TIOCSWINSZ, &size); err != nil {
			return true, os.NewSyscallError("set terminal size", err)
		}
	}
	for fd := range 3 {
		if err := unix.Dup3(peer, fd, 0); err != nil {
			return true, os.NewSyscallError("dup3", err)
		}
	}
	return true, nil
}

// lookup finds the program as execvp(3) will, so that a missing one fails at create,
// where engines expect it, in the words that they look for.
func lookup(name, path, cwd string) error {
	if strings.Contains(name, "/") {
		if err := executable(name, cwd); err != nil {
			return fmt.Errorf("exec: %q: %w", name, &fs.PathError{Op: "stat", Path: name, Err: err})
		}
		return nil
	}
	cause := error(unix.ENOENT)
	for _, file := range candidates(name, path) {
		err := executable(file, cwd)
		if err == nil {
			return nil
		}
		if err == unix.EACCES {
			cause = err
		}
	}
	return &notFoundError{name, cause}
}

// executable says whether file, relative to cwd, is one that somebody may execute.
// Whether the process's user may is for execve to say.
func executable(file, cwd string) error {
	if !strings.HasPrefix(file, "/") {
		file = cwd + "/" + file
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

// notFoundError is worded as moby, containerd and Podman match it.
type notFoundError struct {
	name string
	err  error
}

func (e *notFoundError) Error() string {
	if e.err == unix.EACCES {
		return fmt.Sprintf("exec: %q: %s", e.name, e.err)
	}
	return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.name)
}

func (e *notFoundError) Unwrap() error { return e.err }

var errNoScratch = errors.New("no overlay has the option scratch")

// ready ends create: from here on the init lives on its own, not as long as its parent.
// Between READY and GO the parent's death still ends it, by EOF.
func (i *initer) ready(s *Step) error {
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
	var fds []int
	if master := i.root.Master(); master >= 0 {
		fds = append(fds, master)
	}
	if len(s.Nums) > 0 {
		scratch := i.root.Scratch()
		if scratch < 0 {
			return errNoScratch
		}
		fds = append(fds, scratch)
	}
	if err := i.conn.Send(msgReady, nil, fds...); err != nil {
		os.Exit(1)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	i.lock, i.listen = i.take(), i.take()
	m, err := i.await(msgGo)
	if err != nil || len(m.payload) != 1 {
		os.Exit(1)
	}
	if i.tied = m.payload[0] == goTied; i.tied || m.payload[0] == goStart {
		return nil
	}
	_ = i.conn.Close()
	i.park()
	return nil
}

// park waits for a start command. A connection that ends without START, or before our
// answer (a start that was killed, or has lost its patience), changes nothing.
func (i *initer) park() {
	dropProgram()
	for {
		fd, _, err := unix.Accept4(i.listen, unix.SOCK_CLOEXEC)
		if err != nil {
			if err == unix.EINTR || err == unix.ECONNABORTED {
				continue
			}
			os.Exit(1)
		}
		i.conn = namespaces.FromFD(fd)
		kind, _, _, err := i.conn.Recv(time.Now().Add(10 * time.Second))
		if err == nil && kind == msgStart && i.conn.Send(msgStarted, nil) == nil {
			_ = unix.Close(i.listen)
			return
		}
		_ = i.conn.Close()
	}
}

// setCaps sets the capabilities, and once more that nobody may look: a change of rights
// makes a process what fs.suid_dumpable says.
func (i *initer) setCaps(s *Step) error {
	var err error
	if i.last != nil {
		err = i.last.setCaps(s)
	} else {
		err = setCaps(s.Nums[0], s.Nums[1], s.Nums[2])
	}
	_ = prctl(unix.PR_SET_DUMPABLE, 0, 0)
	return err
}

// applyProcess runs the steps of start on the thread that will execve.
func (i *initer) applyProcess(s *Step) error {
	switch s.Op {
	case opAffinity:
		return setAffinity(s)
	case opScheduler:
		if i.last != nil {
			return i.last.schedule(s)
		}
		return setScheduler(s, s.schedAttr())
	case opIOPriority:
		return setIOPriority(s)
	case opMempolicy:
		return setMemoryPolicy(s)
	case opPersona:
		return setPersonality(s)
	case opRlimit:
		if i.last != nil {
			return i.last.rlimit(s)
		}
		return setRlimit(s)
	case opStdio:
		return ownStdio(uint32(s.Nums[0]), i.root.Peer() >= 0)
	case opChdir:
		return i.chdir(s.Args[0])
	case opChdirAgain:
		if i.inside {
			return nil
		}
		return chdir(s.Args[0])
	case opSeccomp:
		if i.last != nil && (i.last.late || s.listens()) {
			i.last.filter = s
			return nil
		}
		if err := i.announce(); err != nil {
			return err
		}
		return i.install(s)
	case opBounding:
		return dropBounding(s.Nums[0])
	case opUser:
		return i.become(s.Nums)
	case opCaps:
		return i.setCaps(s)
	case opAmbient:
		raiseAmbient(s.Nums[0])
		return nil
	case opUmask:
		i.setUmask(s.Nums[0])
		return nil
	case opNoNewPrivs:
		return prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	case opLandlock:
		return restrict(s.Args)
	case opExec:
		return i.execute(s)
	}
	return fmt.Errorf("unknown operation %d", s.Op)
}

// tie has the kernel kill us with our parent, if that is wanted. A change of ids undoes it.
func (i *initer) tie() bool {
	if i.tied {
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	}
	return i.tied
}

// announce tells start that only execve is left: EOF after it means success, EOF
// without it that the init died. It comes before the filter, which might forbid it, and
// so does the end of all descriptors but the connection and those the process keeps.
// They are closed, not just close-on-exec, because execve resolves its path before
// close-on-exec takes effect: through /proc/self/fd it could reach the host
// (CVE-2024-21626).
func (i *initer) announce() error {
	if i.announced {
		return nil
	}
	i.announced = true
	i.denied = !i.became && i.setgroupsDenied()
	if os.Getenv(envSmall) != "" {
		_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	}
	keepOnExec(i.inherit, true)
	if i.last != nil && !i.last.Own {
		return os.NewSyscallError("close_range", closeAllBut(3+i.inherit, i.conn.FD()))
	}
	// From here on a process that joined a container lives on its own too.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
	if err := i.conn.Send(msgExec, nil); i.tie() && err != nil {
		os.Exit(1)
	}
	return os.NewSyscallError("close_range", closeAllBut(3+i.inherit, i.conn.FD()))
}
