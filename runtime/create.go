package runtime

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Runtime creates and handles the containers of one state root. The zero value with a
// Root is ready for use. Its methods may be called from several goroutines and
// processes at once; operations on one container exclude each other.
type Runtime struct {
	Root    string           // directory of the containers' state, made if missing (0700)
	Seccomp seccomp.Compiler // compiles filters that are not in the cache; nil: a profile is an error
	Log     *slog.Logger     // warnings; nil: discarded
}

// CreateOptions are the parts of create and run that the command line decides.
type CreateOptions struct {
	ConsoleSocket string // unix socket that receives the pty master
	PidfdSocket   string // unix socket that receives a pidfd of the container's init
	PidFile       string // file to write the init's pid to
	NoPivot       bool   // MS_MOVE and chroot instead of pivot_root, for an initramfs
	NoNewKeyring  bool   // keep the caller's session keyring
	PreserveFDs   int    // descriptors from 3 on (after LISTEN_FDS) that the process keeps

	// Terminal receives the pty master of a container in the foreground; only Run uses
	// it. It must not block.
	Terminal func(master *os.File) error
}

// patience is how long one answer of a container's init may take, hooks aside.
const patience = 60 * time.Second

// Create makes a container from the bundle and leaves its init parked, waiting for
// Start. It returns an *Error whose Field names the config field to blame; a failed
// Create leaves nothing behind. OCI runtime-spec, runtime.md, "Create".
func (r *Runtime) Create(id, bundle string, o CreateOptions) error {
	growStack()
	c, err := r.create(id, bundle, o, false)
	if err == nil {
		err = c.finish(goPark)
		c.close()
	}
	return wrap("create", id, err)
}

// creation is a container that is being made.
type creation struct {
	*Runtime
	o      CreateOptions
	config *Config
	plan   *Plan
	entry  *entry
	rec    *record
	group  *cgroups.Group
	conn   *namespaces.Conn
	child  *namespaces.Conn
	proc   *namespaces.Process
	end    ending // of the init, once reaped
}

// create does everything up to READY. On error nothing is left.
func (r *Runtime) create(id, bundle string, o CreateOptions, start bool) (c *creation, err error) {
	c = &creation{Runtime: r, o: o}
	if err := checkID(id); err != nil {
		return nil, err
	}
	if c.config, err = r.load(bundle); err != nil {
		return nil, err
	}
	if err := checkConsole(c.config.Spec.Process, o); err != nil {
		return nil, err
	}
	if c.plan, err = r.compile(c.config, id, o); err != nil {
		return nil, err
	}
	if c.entry, err = r.claim(id); err != nil {
		return nil, err
	}
	if err = c.make(start); err != nil {
		c.undo()
		return nil, err
	}
	return c, nil
}

func (r *Runtime) load(bundle string) (*Config, error) {
	config, err := LoadSpec(bundle)
	if err != nil {
		return nil, err
	}
	warnings, err := Validate(config)
	for _, w := range warnings {
		r.warn(w.String())
	}
	return config, err
}

func (r *Runtime) warn(text string) {
	if r.Log != nil {
		r.Log.Warn(text)
	}
}

func (r *Runtime) compile(config *Config, id string, o CreateOptions) (*Plan, error) {
	inherit, env, err := inherited(o.PreserveFDs)
	if err != nil {
		return nil, err
	}
	plan, err := Compile(config, id, PlanOptions{
		NoPivot: o.NoPivot, NoNewKeyring: o.NoNewKeyring, Inherit: inherit, Env: env, Filter: r.filter,
	})
	if err != nil {
		return nil, err
	}
	for _, w := range append(plan.Warnings, plan.ungrantable()...) {
		r.warn(w)
	}
	plan.Spawn.Inherit = inherit
	// What the caller left open must reach neither hooks nor the init.
	return plan, os.NewSyscallError("close_range", unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC))
}

func (r *Runtime) filter(profile []byte) (*seccomp.Filter, error) {
	// The cache lives in the state root, which the first container makes.
	if fd, err := r.openRoot(true); err == nil {
		_ = unix.Close(fd)
	}
	return seccomp.Load(r.Root, profile, r.Seccomp)
}

// Plan compiles the plan that Create would carry out for a container called after its
// bundle, and touches nothing: it does not even fill the cache of filters.
func (r *Runtime) Plan(bundle string) (*Plan, error) {
	plan, err := r.dryPlan(bundle)
	return plan, wrap("plan", "", err)
}

func (r *Runtime) dryPlan(bundle string) (*Plan, error) {
	config, err := r.load(bundle)
	if err != nil {
		return nil, err
	}
	return Compile(config, filepath.Base(config.Bundle), PlanOptions{
		Filter: func(profile []byte) (*seccomp.Filter, error) { return seccomp.Load("", profile, r.Seccomp) },
	})
}

// checkConsole: a detached terminal needs somebody who takes its master.
func checkConsole(proc *specs.Process, o CreateOptions) error {
	terminal := proc != nil && proc.Terminal
	switch {
	case terminal && o.ConsoleSocket == "" && o.Terminal == nil:
		return &Error{
			Field: "/process/terminal",
			Err:   errors.New("cannot allocate tty if husk will detach without setting console socket"),
			Hint:  "give --console-socket, or set process.terminal to false",
		}
	case o.ConsoleSocket != "" && (!terminal || o.Terminal != nil):
		return &Error{
			Field: "/process/terminal",
			Err:   errors.New("cannot use console socket if husk will not detach or allocate tty"),
			Hint:  "drop --console-socket, or set process.terminal to true and detach",
		}
	}
	return nil
}

// inherited counts the descriptors that the process keeps: those of LISTEN_FDS, if
// they are meant for us, then preserve more. Each must be open, or the process would
// get one of ours in its place.
func inherited(preserve int) (n int, env []string, err error) {
	if preserve < 0 {
		return 0, nil, fmt.Errorf("cannot preserve %d file descriptors", preserve)
	}
	if pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID")); pid == os.Getpid() {
		if n, _ = strconv.Atoi(os.Getenv("LISTEN_FDS")); n > 0 {
			env = []string{"LISTEN_FDS=" + strconv.Itoa(n), "LISTEN_PID=1"}
		}
	}
	n = max(n, 0) + preserve
	for fd := 3; fd < 3+n; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return 0, nil, &Error{
				Err:  fmt.Errorf("file descriptor %d to preserve is not open", fd),
				Hint: "--preserve-fds N passes descriptors 3 to 2+N of husk's caller (after those of LISTEN_FDS)",
			}
		}
	}
	return n, env, nil
}

// make does what changes the host, after the intent record.
func (c *creation) make(start bool) (err error) {
	if err = c.intend(); err != nil {
		return err
	}
	if err = c.makeGroup(); err != nil {
		return err
	}
	if err = c.boot(start); c.stillborn(err) {
		err = c.bootPlaced(start)
	}
	return err
}

// boot starts the init and serves it until it is READY.
func (c *creation) boot(start bool) (err error) {
	if err = c.spawn(); err != nil {
		return err
	}
	if err = c.prepare(); err != nil {
		return err
	}
	if err = c.sendPlan(start); err != nil {
		return c.diagnose(err)
	}
	return c.awaitReady()
}

// intend writes the record of what is about to be made, before it is made: whoever
// finds it after our death can undo everything.
func (c *creation) intend() error {
	me, err := self()
	if err != nil {
		return err
	}
	spec := c.config.Spec
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(c.config.Bundle, root)
	}
	hooks := hooksOf(spec)
	c.rec = &record{
		Version: recordVersion, OCIVersion: spec.Version, ID: c.entry.id, Phase: phaseCreating, Creator: me,
		Bundle: c.config.Bundle, Rootfs: root, Created: time.Now().UTC(), Owner: os.Geteuid(),
		Annotations: spec.Annotations, Cgroup: c.plan.Cgroup, CgroupMade: cgroups.Missing(c.plan.Cgroup),
		NoProcess: spec.Process == nil, Poststart: hooks.Poststart, Poststop: hooks.Poststop,
	}
	for _, h := range hooks.StartContainer {
		c.rec.StartHooks = append(c.rec.StartHooks, int(hookTimeout(h)))
	}
	return c.entry.write(c.rec)
}

// makeGroup makes the container's cgroup. An ordinary user who may not, and who asks for
// no limit, gets a container that stays in the cgroup of its caller.
func (c *creation) makeGroup() (err error) {
	c.group, err = cgroups.Create(c.plan.Cgroup, c.plan.Groups)
	if err == nil {
		c.rec.owned = true
		return nil
	}
	c.rec.Cgroup, c.rec.CgroupMade = "", nil // whatever is there is not ours
	if c.mayGoWithout(err) {
		return nil
	}
	if e, ok := errors.AsType[*cgroups.ControllerError](err); ok {
		return at(e.Field(c.plan.Limits), "", err)
	}
	return at("/linux/cgroupsPath", c.plan.Cgroup, err)
}

func (c *creation) mayGoWithout(err error) bool {
	refused := errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
	linux := c.config.Spec.Linux
	asked := len(c.plan.Limits) > 0 || linux.CgroupsPath != "" || linux.Resources != nil && len(linux.Resources.Devices) > 0
	return refused && !asked && unprivileged()
}

// unprivileged says whether we are no root, or root of a user namespace only.
func unprivileged() bool {
	if os.Geteuid() != 0 {
		return true
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

// spawn starts the init in its namespaces and its cgroup.
func (c *creation) spawn() (err error) {
	s := &c.plan.Spawn
	for _, j := range c.plan.Joined {
		f, err := namespaces.Open(j.Path, namespaceFlag(j.Type))
		if err != nil {
			return at(j.Field, j.Path, err)
		}
		defer f.Close()
		s.Join = append(s.Join, namespaces.Join{Flag: namespaceFlag(j.Type), FD: int(f.Fd())})
	}
	root, err := c.rootMount()
	if err != nil {
		return err
	}
	if s.Root = root; root > 0 {
		defer unix.Close(root)
	}
	if s.Exe, err = namespaces.Sealed(); err != nil {
		return err
	}
	defer s.Exe.Close()
	if c.conn, c.child, err = namespaces.Pair(); err != nil {
		return err
	}
	s.Child, s.Cgroup = c.child, -1
	if c.group != nil && s.Place == nil {
		s.Cgroup = c.group.FD()
	}
	s.Args = []string{initName, strconv.Itoa(3 + s.Inherit)}
	s.Env = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GOTRACEBACK=none"}
	// The process shall get the caller's limit on open files, not the one that the Go
	// runtime raised for itself.
	namespaces.RestoreNofile()
	keepOnExec(s.Inherit, true)
	c.proc, err = namespaces.Spawn(s)
	keepOnExec(s.Inherit, false)
	_ = c.child.Close()
	if err != nil {
		return at("/linux/namespaces", "", err)
	}
	return nil
}

// rootMount opens the container's root if the init is to be born in it, else it returns 0.
func (c *creation) rootMount() (int, error) {
	for k := range c.plan.Steps {
		s := &c.plan.Steps[k]
		if s.Op != opRootfs || s.Mount.Op != rootfs.OpRoot || s.Mount.Flags&rootfs.FlagEntered == 0 {
			continue
		}
		fd, err := s.Mount.Open()
		if err != nil {
			return 0, at(s.Field, s.Mount.Source, err)
		}
		return fd, nil
	}
	return 0, nil
}

// keepOnExec marks the n preserved descriptors as kept, or closed, on execve.
func keepOnExec(n int, keep bool) {
	for fd := 3; fd < 3+n; fd++ {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 1-boolInt(keep)) // FD_CLOEXEC is 1
	}
}

// prepare does what only needs the child's pid, while the child boots.
func (c *creation) prepare() error {
	if err := c.limit(); err != nil {
		return err
	}
	if err := c.recordInit(c.proc.PID); err != nil {
		return err
	}
	if err := c.checkJoinedMaps(); err != nil {
		return err
	}
	proc := c.config.Spec.Process
	if proc == nil {
		return nil
	}
	if err := c.delegate(proc); err != nil {
		return err
	}
	if err := setOOMScore(c.proc.PID, proc.OOMScoreAdj); err != nil {
		return err
	}
	return raiseLimits(c.proc.PID, c.plan.Steps)
}

// recordInit adds the init to the record where a cgroup of the container's own would
// not lead to it, should we die between GO and the final record.
func (c *creation) recordInit(pid int) error {
	if slices.Contains(c.rec.CgroupMade, c.rec.Cgroup) {
		return nil
	}
	var err error
	if c.rec.Init, err = identify(pid); err != nil {
		return err
	}
	return c.entry.write(c.rec)
}

// limit applies the limits that cannot hurt a child that boots.
func (c *creation) limit() error {
	if c.group == nil {
		return nil
	}
	if err := c.group.Apply(c.plan.Limits, false); err != nil {
		return fieldError(err)
	}
	err := c.group.AttachDevices(c.plan.Devices)
	if errors.Is(err, unix.EPERM) && unprivileged() {
		// Only real root may load the program, and only real root could make device
		// nodes for which it would matter.
		return nil
	}
	return fieldError(err)
}

// delegate gives the cgroup to the container's user if the container may manage it: in
// a cgroup namespace of its own with the hierarchy mounted writable (runtime-spec,
// config-linux.md, "Cgroup ownership").
func (c *creation) delegate(proc *specs.Process) error {
	if c.group == nil || !c.plan.isNew(unix.CLONE_NEWCGROUP) {
		return nil
	}
	k := slices.IndexFunc(c.config.Spec.Mounts, func(m specs.Mount) bool {
		return (m.Type == "cgroup" || m.Type == "cgroup2") && m.Destination == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro")
	})
	uid, mapped := hostID(proc.User.UID, c.plan.Spawn.UIDMaps)
	if k < 0 || !mapped || uid == os.Geteuid() {
		return nil
	}
	return at(pointer("/mounts", strconv.Itoa(k)), "/sys/fs/cgroup", c.group.Delegate(uid))
}

// hostID maps an id of the container to the host's. Without maps they are the same.
func hostID(id uint32, maps []specs.LinuxIDMapping) (int, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID), true
		}
	}
	return int(id), len(maps) == 0
}

// limitLate applies those that might: the child is parked now and needs no more.
func (c *creation) limitLate() error {
	if c.group == nil {
		return nil
	}
	return fieldError(c.group.Apply(c.plan.Limits, true))
}

// batchFDs bounds the descriptors in flight, so that a container with hundreds of
// mounts starts under a small RLIMIT_NOFILE.
const batchFDs = 16

// sendPlan opens the sources of bind mounts and sends the steps with them, batch by
// batch; the init works on one while the next is made.
func (c *creation) sendPlan(start bool) error {
	steps := c.plan.Steps
	for first := 0; first < len(steps); {
		fds, next := []int(nil), first
		for ; next < len(steps) && (len(fds) < batchFDs || !steps[next].needsFD()); next++ {
			opened, err := c.open(&steps[next], start)
			if err != nil {
				closeAll(fds)
				return err
			}
			fds = append(fds, opened...)
		}
		err := c.conn.Send(msgPlan, encodeSteps(steps[first:next]), fds...)
		closeAll(fds)
		if err != nil {
			return err
		}
		first = next
	}
	return nil
}

// needsFD says whether a step comes with descriptors. Those after opReady do not, and
// so travel with it: the init takes no more batches once it is READY.
func (s *Step) needsFD() bool { return s.Op == opReady || s.Op == opRootfs && s.Mount.FD }

// open opens what the parent must open for a step.
func (c *creation) open(s *Step, start bool) ([]int, error) {
	switch {
	case s.Op == opRootfs && s.Mount.FD:
		fd, err := s.Mount.Open()
		if err != nil {
			return nil, at(s.Field, s.Mount.Target, err)
		}
		return []int{fd}, nil
	case s.Op == opReady:
		lock, err := c.entry.initLock()
		if err != nil || start {
			return []int{lock}, err
		}
		listen, err := c.entry.listen()
		if err != nil {
			_ = unix.Close(lock)
			return nil, err
		}
		return []int{lock, listen}, nil
	}
	return nil, nil
}

// awaitReady serves the init until it is READY.
func (c *creation) awaitReady() error {
	for {
		kind, payload, fds, err := c.conn.Recv(c.deadline())
		if err != nil {
			return c.diagnose(err)
		}
		switch kind {
		case msgHooks:
			if err := c.runtimeHooks(); err != nil {
				return err
			}
			if err := c.conn.Send(msgResume, nil); err != nil {
				return c.diagnose(err)
			}
		case msgReady:
			return c.deliver(fds)
		default:
			return remoteError(kind, payload)
		}
	}
}

// deadline: createContainer hooks run in the init; one without a timeout may take any time.
func (c *creation) deadline() time.Time {
	total := patience
	for _, h := range hooksOf(c.config.Spec).CreateContainer {
		if h.Timeout == nil {
			return time.Time{}
		}
		total += time.Duration(*h.Timeout) * time.Second
	}
	return time.Now().Add(total)
}

func (c *creation) runtimeHooks() error {
	hooks := hooksOf(c.config.Spec)
	state := appendPid(c.rec.hookState(specs.StateCreating), c.proc.PID)
	if err := runHooks("prestart", hooks.Prestart, state); err != nil {
		return err
	}
	return runHooks("createRuntime", hooks.CreateRuntime, state)
}

// deliver hands the pty master and the pidfd to those who asked for them.
func (c *creation) deliver(fds []int) error {
	defer closeAll(fds)
	if len(fds) > 0 && c.o.ConsoleSocket != "" {
		if err := sendFD(c.o.ConsoleSocket, "/dev/ptmx", fds[0]); err != nil {
			return fmt.Errorf("console socket %s: %w", c.o.ConsoleSocket, err)
		}
	}
	if len(fds) > 0 && c.o.Terminal != nil {
		master, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err
		}
		if err := c.o.Terminal(os.NewFile(uintptr(master), "/dev/ptmx")); err != nil {
			return err
		}
	}
	if c.o.PidfdSocket != "" {
		if err := sendFD(c.o.PidfdSocket, "standard", int(c.proc.FD.Fd())); err != nil {
			return fmt.Errorf("pidfd socket %s: %w", c.o.PidfdSocket, err)
		}
	}
	return nil
}

// finish commits: the late limits, the record, the pid file, GO. If it fails nothing is left.
func (c *creation) finish(mode byte) error {
	err := c.commit(mode)
	if err != nil {
		removePidFile(c.o.PidFile, c.proc.PID)
		c.undo()
	}
	return err
}

// commit sends GO before it writes the record: should we die in between, the record
// still says creating, and the next command undoes it all. The other way round it would
// describe a container whose init has followed us into death.
func (c *creation) commit(mode byte) error {
	if err := c.limitLate(); err != nil {
		return c.diagnose(err)
	}
	init, err := identify(c.proc.PID)
	if err != nil {
		return c.diagnose(err)
	}
	if err := writePidFile(c.o.PidFile, c.proc.PID); err != nil {
		return err
	}
	if err := c.conn.Send(msgGo, []byte{mode}); err != nil {
		return c.diagnose(err)
	}
	c.rec.Init = init
	c.rec.Phase, c.rec.Creator = phaseCreated, process{}
	return c.entry.write(c.rec)
}

// undo tears down whatever was made so far.
func (c *creation) undo() {
	if c.proc != nil {
		_ = unix.PidfdSendSignal(int(c.proc.FD.Fd()), unix.SIGKILL, nil, 0)
		c.reap()
	}
	if c.group != nil {
		c.group.Close()
		c.group = nil
	}
	if c.rec == nil {
		_ = c.entry.remove()
	} else if err := c.destroy(c.entry, c.rec); err != nil {
		c.warn("clean up after failed create: " + err.Error())
	}
	c.close()
}

// close gives up our descriptors; the container is not concerned.
func (c *creation) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	if c.proc != nil {
		_ = c.proc.FD.Close()
	}
	if c.group != nil {
		c.group.Close()
	}
	c.entry.close()
	c.conn, c.proc, c.group = nil, nil, nil
}
