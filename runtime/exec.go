package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ExecOptions say what to execute in a container, and how. Without a process file it is
// the container's own process with other arguments and with what else is given here.
type ExecOptions struct {
	Args           []string // the program and its arguments
	Cwd            string
	Env            []string // added, NAME=value
	User           string   // UID[:GID], numbers
	AdditionalGIDs []string // added, numbers
	Caps           []string // added, CAP_NAME
	NoNewPrivs     bool
	TTY            bool
	ProcessLabel   string // of SELinux
	AppArmor       string // profile

	// ProcessFile holds the process as config.json does. Nothing above counts then.
	ProcessFile string

	Cgroup       string // below the container's
	IgnorePaused bool   // wait for a paused container instead of failing
	Detach       bool   // return as soon as the process runs

	ConsoleSocket string // as in CreateOptions
	PidfdSocket   string
	PidFile       string
	PreserveFDs   int
	Terminal      func(master *os.File) error
}

// Exec executes a further process in a created or running container and, unless
// detached, waits for it and forwards signals to it, as Run does. It returns the
// process's exit status, 128+n if signal n killed it; the Exit of its error is 127 or 126
// if there is no such program or it cannot be executed, 128+n if signal n came before it
// was, and else 255.
//
// The process is made as a container's init is: by our own program, executed again in
// the container's namespaces, which interprets the steps of a plan. Exec takes no lock:
// any number may run at once, and the kernel refuses what comes too late.
func (r *Runtime) Exec(id string, o ExecOptions) (status int, err error) {
	growStack()
	j := &joining{Runtime: r, o: o}
	defer j.close()
	if err = j.open(id); err == nil {
		err = j.start()
	}
	if err == nil {
		status, err = j.finish()
	}
	return status, wrap("exec", id, err)
}

// joining is a process that is being added to a container.
//
// A process of a container's PID namespace is seen by the others in there, and those
// with CAP_SYS_PTRACE may trace it and take what it has, before it has become one of
// them (CVE-2016-9962). Where the container has a PID namespace, therefore, the child
// that interprets the plan stays outside of it, gives up its rights, and only then has a
// process born inside that executes the payload at once (last.go):
//
//	exec           child, outside                  payload, inside
//	Spawn ───────▶ in the cgroup;
//	               mnt, net, … by one setns
//	PLAN ────────▶ terminal, cwd, PID namespace
//	               for its children, user,
//	               capabilities, filter
//	               clone ────────────────────────▶ setsid, terminal, rlimits, execve
//	   ◀──── EXEC, exits                           a child of exec
//
// Elsewhere the child is the payload: where there is no PID namespace to hide from, and
// where it is of a stranger to the container's user namespace.
type joining struct {
	*Runtime
	o      ExecOptions
	entry  *entry
	rec    *record
	status specs.ContainerState
	init   int // pidfd of the container's init
	group  *cgroups.Group
	below  string // where group is below the container's
	spawn  namespaces.Config
	steps  []Step
	last   *Step // opLast, if the child is not the payload
	agent  agent // who gets the listener of its filter, if that has one

	visits   bool     // the root comes from the container's init
	terminal bool     // the process has one
	user     bool     // the container has a user namespace
	due      []byte   // the messages that may come, in this order
	oom      *int     // oom_score_adj
	first    string   // CPUs to start on
	signals  *signals // caught in the foreground
	conn     *namespaces.Conn
	child    *namespaces.Process
	proc     *namespaces.Process // the payload
}

// open finds the container and compiles what is to be done. It changes nothing.
func (j *joining) open(id string) (err error) {
	j.init = -1
	if err = checkJoining(&j.o); err != nil {
		return err
	}
	if j.entry, j.rec, err = j.find(id); err != nil {
		return err
	}
	if err = j.openContainer(); err != nil {
		return err
	}
	k, err := j.entry.kept()
	if err != nil && j.rec.status(j.entry) == specs.StateStopped {
		return errExecStopped() // it is being deleted
	}
	if err != nil {
		return err
	}
	proc, err := k.process(&j.o)
	if err != nil {
		return err
	}
	if err := checkTerminal(proc.Terminal, &j.o); err != nil {
		return err
	}
	return j.compile(k, proc)
}

func checkJoining(o *ExecOptions) error {
	if o.PreserveFDs < 0 {
		return fmt.Errorf("cannot preserve %d file descriptors", o.PreserveFDs)
	}
	return checkPreserved(o.PreserveFDs)
}

// checkTerminal: a terminal needs somebody who takes its master, and only one.
func checkTerminal(terminal bool, o *ExecOptions) error {
	switch {
	case terminal && o.ConsoleSocket == "" && (o.Detach || o.Terminal == nil):
		return &Error{
			Field: "/process/terminal",
			Err:   errors.New("cannot allocate tty if husk will detach without setting console socket"),
			Hint:  "give --console-socket, or leave out --tty",
		}
	case !terminal && o.ConsoleSocket != "", o.ConsoleSocket != "" && !o.Detach && o.Terminal != nil:
		return &Error{
			Field: "/process/terminal",
			Err:   errors.New("cannot use console socket if husk will not detach or allocate tty"),
			Hint:  "drop --console-socket, or give --tty and --detach",
		}
	}
	return nil
}

// openContainer makes sure that the container can be joined, and opens what leads to it:
// the init and the cgroup.
func (j *joining) openContainer() (err error) {
	switch j.status = j.rec.status(j.entry); j.status {
	case specs.StateCreated, specs.StateRunning:
	case StatusPaused:
		if !j.o.IgnorePaused {
			return errPaused
		}
	case specs.StateStopped:
		return errExecStopped()
	default:
		return fmt.Errorf("cannot exec in a container that is %s", j.status)
	}
	if j.init, err = j.rec.Init.handle(); err != nil {
		return orStopped(err)
	}
	if j.rec.Cgroup == "" {
		if j.o.Cgroup != "" {
			return errors.New("the container has no cgroup of its own that --cgroup could be below")
		}
		return nil
	}
	return j.openGroup()
}

// openGroup opens the container's cgroup, or the one below it that is asked for. Where
// the container passes controllers on to groups below, its own can hold no processes:
// then it is that of the init.
func (j *joining) openGroup() (err error) {
	if j.group, err = cgroups.Open(j.rec.Cgroup); err != nil {
		return orStopped(err)
	}
	below := j.o.Cgroup
	if below == "" {
		if !j.group.PassesOn() {
			return nil
		}
		of, err := cgroups.Of(j.rec.Init.PID)
		if err != nil {
			return orStopped(err)
		}
		if !strings.HasPrefix(of, j.rec.Cgroup+"/") {
			return nil
		}
		below = strings.TrimPrefix(of, j.rec.Cgroup)
	}
	g, err := j.group.Below(below)
	if err != nil {
		return &Error{
			Err:  fmt.Errorf("--cgroup %s: %w", below, err),
			Hint: "it names an existing cgroup by its path below the container's own, " + j.rec.Cgroup,
		}
	}
	j.group.Close()
	j.group, j.below = g, "/"+strings.Trim(below, "/")
	return nil
}

// The words in which engines learn that there is nothing to join.
var errPaused = errors.New("cannot exec in a paused container (use --ignore-paused to override)")

func errExecStopped() error {
	return fmt.Errorf("cannot exec in a stopped container: %w", ErrNotRunning)
}

// orStopped says so where err only tells that something of the container is gone.
func orStopped(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return errExecStopped()
	}
	return err
}

// compile makes the plan: which namespaces to join, and the steps of the process.
func (j *joining) compile(k *kept, proc *specs.Process) error {
	j.spawn.Inherit, j.oom, j.terminal = j.o.PreserveFDs, proc.OOMScoreAdj, proc.Terminal
	j.visits = k.Visits
	if a := proc.ExecCPUAffinity; a != nil {
		j.first = a.Initial
	}
	j.divide(k, proc, j.hides(k))
	flags := k.Namespaces
	j.user = flags&unix.CLONE_NEWUSER != 0
	if flags&unix.CLONE_NEWUSER != 0 && sharesUser(j.rec.Init.PID) {
		flags &^= unix.CLONE_NEWUSER // the kernel refuses to enter it again
	}
	if j.last != nil {
		flags &^= unix.CLONE_NEWPID
		j.spawn.Unseen = j.status != StatusPaused
	}
	if flags != 0 {
		j.spawn.Join = []namespaces.Join{{Flag: flags, FD: j.init}}
	}
	p := &Plan{last: j.last, config: &Config{Spec: &specs.Spec{
		Version: j.rec.OCIVersion, Process: proc, Linux: &specs.Linux{}, Annotations: j.rec.Annotations,
	}}}
	if k.Unmapped {
		p.Spawn.New = unix.CLONE_NEWUSER // it keeps its ids
	}
	if k.Filter.listens() {
		if k.Filter.Args[1] == "" {
			return &Error{Err: errors.New("the container's system calls are being recorded"), Hint: "what it executes itself is recorded too; nothing can join it"}
		}
		j.agent = k.agent(j.rec, j.status)
	}
	p.join(k, j.rec, proc)
	p.affinity(proc.ExecCPUAffinity)
	p.payload(proc, box(&k.Box), k.Filter, nil)
	if k.Namespaces&unix.CLONE_NEWUSER == 0 { // which has all of them
		for _, w := range p.ungrantable(k.told) {
			j.warn(w)
		}
	}
	j.steps = p.Steps
	if j.status == specs.StateCreated {
		j.withholdTracing()
	}
	return nil
}

// withholdTracing keeps who joins a container that is not started from its parked init.
func (j *joining) withholdTracing() {
	for k := range j.steps {
		s := &j.steps[k]
		if s.Op == opCaps && s.Nums[1]&tracing != 0 {
			j.warn("/process/capabilities: CAP_SYS_PTRACE is withheld until the container is started")
		}
		*s = *s.untracing()
	}
}

// beyond are the capabilities that a payload's own process needs to get there, and gives
// up then; late says that it installs a filter itself.
func beyond(proc *specs.Process, late bool) (extra int64) {
	if late && !proc.NoNewPrivileges {
		extra |= 1 << unix.CAP_SYS_ADMIN
	}
	if s := proc.Scheduler; s != nil && s.Policy == specs.SchedDeadline {
		extra |= 1 << unix.CAP_SYS_NICE
	}
	return extra
}

// divide decides whether the payload is a process of its own, and how it gets its filter.
func (j *joining) divide(k *kept, proc *specs.Process, hidden bool) {
	if !hidden {
		return
	}
	// The filter is there before the payload is born, if that is still possible then.
	filtered := k.Filter != nil && allowsLast(k.Filter, proc)
	extra := beyond(proc, k.Filter != nil && !(filtered && !k.Filter.listens()))
	j.last = &Step{Op: opLast, Field: "/linux/namespaces", Nums: []int64{
		int64(boolInt(proc.Terminal)), int64(boolInt(filtered)), extra,
	}}
}

// hides says whether the container has a PID namespace that hides the child, and that
// the child may enter from the container's user namespace. (One that is an ancestor of
// ours would not hide it; but who is in there sees the host's processes anyway.)
func (j *joining) hides(k *kept) bool {
	if k.Namespaces&unix.CLONE_NEWPID == 0 {
		return false
	}
	dir := "/proc/" + strconv.Itoa(j.rec.Init.PID) + "/ns/"
	pids, err := openPath(dir+"pid", unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(pids)
	var own unix.Stat_t
	if unix.Fstat(pids, &own) != nil || own.Ino == pidNamespace() {
		return false
	}
	if k.Namespaces&unix.CLONE_NEWUSER == 0 {
		return true
	}
	owner, err := unix.IoctlRetInt(pids, unix.NS_GET_USERNS)
	if err != nil {
		return false
	}
	defer unix.Close(owner)
	var of, user unix.Stat_t
	return unix.Fstat(owner, &of) == nil && unix.Stat(dir+"user", &user) == nil && of.Ino == user.Ino
}

// allowsLast says whether the filter lets a process do what namespaces.Last does, and
// before that our child give up the right to install one with a listener.
func allowsLast(filter *Step, proc *specs.Process) bool {
	f := filter.filter()
	if proc.Scheduler != nil && !f.Allows(unix.SYS_SCHED_SETATTR) ||
		filter.listens() && !proc.NoNewPrivileges && !f.Allows(unix.SYS_CAPSET) {
		return false
	}
	for _, call := range [][]uint64{
		{unix.SYS_CLONE, unix.CLONE_PARENT | unix.CLONE_VFORK | uint64(unix.SIGCHLD)},
		{unix.SYS_RT_SIGACTION, 1},
		{unix.SYS_RT_SIGPROCMASK, 2},
		{unix.SYS_SETSID},
		{unix.SYS_IOCTL, 0, unix.TIOCSCTTY},
		{unix.SYS_PRLIMIT64},
		{unix.SYS_MMAP},
		{unix.SYS_FUTEX},
		{unix.SYS_PPOLL},
		{unix.SYS_WRITE},
		{unix.SYS_EXECVE},
		{unix.SYS_EXIT_GROUP},
	} {
		if !f.Allows(int(call[0]), call[1:]...) {
			return false
		}
	}
	return true
}

// join adds what a process of the container does first if it is not its init.
func (p *Plan) join(k *kept, rec *record, proc *specs.Process) {
	if p.last != nil {
		p.add(opProc, "")
	}
	steps := []rootfs.Step{{Op: rootfs.OpRoot, Field: "/root/path", Target: "/", Flags: rootfs.FlagEntered}}
	if proc.Terminal {
		steps = append(steps, rootfs.Step{Op: rootfs.OpConsole, Field: "/process/terminal"})
	}
	if k.Chroot { // its terminals are those of the mount namespace, as at create
		steps = append(steps, rootfs.Step{Op: rootfs.OpChroot, Field: "/root/path", Source: rec.Rootfs, FD: k.Visits})
	}
	steps = append(steps, rootfs.Step{Op: rootfs.OpStdio, Field: "/process"})
	if k.Keyring {
		p.keyring(rec.ID, proc)
	}
	p.rootfs(steps)
	p.session()
	if _, home := searchPath(proc.Env); !home {
		p.addNums(opHome, "/process/user/uid", int64(proc.User.UID))
	}
	p.labels(proc)
	if proc.Terminal {
		p.add(opReady, "") // its master is delivered before anything is written to it
	}
}

// sharesUser says whether we are in the user namespace of the process pid already.
func sharesUser(pid int) bool {
	var own, other unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &own) == nil &&
		unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/user", &other) == nil && own.Ino == other.Ino
}
