package runtime

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// patience is how long one answer of a container's init may take, hooks aside.
const patience = 60 * time.Second

// boot starts the init and serves it until it is READY.
func (c *creation) boot(start bool) (err error) {
	if err = c.spawn(); err != nil {
		return err
	}
	if err = c.prepare(); err != nil {
		return err
	}
	if err = c.sendPlan(start); err != nil {
		if told, ok := errors.AsType[reported](err); ok {
			return told.error
		}
		return c.diagnose(err)
	}
	return c.awaitReady()
}

// spawn starts the init in its namespaces and its cgroup.
func (c *creation) spawn() (err error) {
	s := &c.plan.Spawn
	for _, j := range c.plan.Joined {
		f, err := namespaces.Open(j.Path, namespaceFlag(j.Type))
		if err != nil {
			return at(j.Field, j.Path, err)
		}
		if j.Type == specs.NetworkNamespace && c.netns == nil {
			c.netns = f // the devices go there, once the init is on its way
		} else {
			defer f.Close()
		}
		s.Join = append(s.Join, namespaces.Join{Flag: namespaceFlag(j.Type), FD: int(f.Fd())})
	}
	root, err := c.rootMount()
	if err != nil {
		return err
	}
	if s.Root = root; root > 0 {
		defer unix.Close(root)
	}
	s.Cgroup = -1
	if c.group != nil && s.Place == nil {
		s.Cgroup = c.group.FD()
	}
	if c.tight() {
		// Where we may not move it, it must do with what there is.
		if fd, err := cgroups.OwnProcs(); err == nil {
			defer unix.Close(fd)
			s.Leave, c.apart = fd, true
		}
	}
	c.proc, c.conn, err = launch(s)
	return err
}

// launch starts our own program as the child that s describes, and returns our end of
// the conversation with it.
func launch(s *namespaces.Config) (proc *namespaces.Process, conn *namespaces.Conn, err error) {
	exe, err := namespaces.Sealed(s)
	if err != nil {
		return nil, nil, err
	}
	defer exe.Close()
	s.Exe = exe
	if conn, s.Child, err = namespaces.Pair(); err != nil {
		return nil, nil, err
	}
	s.Args = []string{initName, strconv.Itoa(3 + s.Inherit)}
	s.Env = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GOTRACEBACK=none"}
	if s.Small = namespaces.HugePages(); s.Small {
		s.Env = append(s.Env, envSmall+"=1")
	}
	// The process shall get the caller's limit on open files, not the one that the Go
	// runtime raised for itself.
	namespaces.RestoreNofile()
	keepOnExec(s.Inherit, true)
	proc, err = namespaces.Spawn(s)
	keepOnExec(s.Inherit, false)
	if err != nil {
		_ = conn.Close()
		if e, ok := errors.AsType[*Error](err); ok { // of Config.Place, ours
			return nil, nil, e
		}
		return nil, nil, at("/linux/namespaces", "", err)
	}
	return proc, conn, nil
}

// rootMount opens the container's root if the init is to be born in it, else it returns 0.
func (c *creation) rootMount() (int, error) {
	for k := range c.plan.Steps {
		s := &c.plan.Steps[k]
		if s.Op != opRootfs || s.Mount.Op != rootfs.OpRoot || s.Mount.Flags&rootfs.FlagEntered == 0 {
			continue
		}
		fd, err := s.Mount.Open(-1)
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
	if err := c.enterClass(); err != nil {
		return err
	}
	if err := c.recordInit(c.proc.PID); err != nil {
		return err
	}
	if err := c.wire(); err != nil {
		return err
	}
	if err := c.keep(); err != nil {
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
	if slices.Contains(c.rec.CgroupMade, c.rec.Cgroup) && !c.apart {
		return nil
	}
	var err error
	if c.rec.Init, err = identify(pid); err != nil {
		return err
	}
	return c.entry.write(c.rec)
}

// batchFDs bounds the descriptors in flight, so that a container with hundreds of
// mounts starts under a small RLIMIT_NOFILE.
const batchFDs = 16

// sendPlan opens the sources of bind mounts and sends the steps with them, batch by
// batch; the init works on one while the next is made.
func (c *creation) sendPlan(start bool) error {
	steps := c.plan.Steps
	ids := c.idMapper()
	defer ids.close()
	for first := 0; first < len(steps); {
		fds, next := []int(nil), first
		for ; next < len(steps) && (len(fds) < batchFDs || !steps[next].needsFD()); next++ {
			opened, err := c.open(&steps[next], ids, start)
			if err != nil {
				closeAll(fds)
				return err
			}
			fds = append(fds, opened...)
			if steps[next].Op == opTurn {
				next++
				break
			}
		}
		err := c.conn.Send(msgPlan, encodeSteps(steps[first:next]), fds...)
		closeAll(fds)
		if err == nil && steps[next-1].Op == opTurn {
			ids.foresee(steps[next:])
			err = c.awaitTurn()
		}
		if err != nil {
			return err
		}
		first = next
	}
	return nil
}

// reported is an error that the init has told us of.
type reported struct{ error }

// awaitTurn waits until the init has mounted what it was told to.
func (c *creation) awaitTurn() error {
	kind, payload, fds, err := c.conn.Recv(time.Now().Add(patience))
	closeAll(fds)
	if err == nil && kind != msgTurn {
		err = reported{remoteError(kind, payload)}
	}
	return err
}

// needsFD says whether a step comes with descriptors. Those after opReady do not, and
// so travel with it: the init takes no more batches once it is READY.
func (s *Step) needsFD() bool {
	return s.Op == opReady || s.Op == opVisit || s.Op == opRootfs && s.Mount.FD
}

// open opens what the parent must open for a step.
func (c *creation) open(s *Step, ids *idMapper, start bool) ([]int, error) {
	switch {
	case s.Op == opRootfs && s.Mount.FD:
		user, err := ids.find(s.Mount.IDMap)
		if err != nil {
			return nil, at(s.Field+"/uidMappings", s.Mount.Target, err)
		}
		fd, err := openMount(s.Mount, user)
		if err != nil {
			return nil, at(s.Field, s.Mount.Target, err)
		}
		return []int{fd}, nil
	case s.Op == opVisit:
		f, err := namespaces.Open(c.plan.Visited.Path, unix.CLONE_NEWNS)
		if err != nil {
			return nil, at(s.Field, c.plan.Visited.Path, err)
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		return []int{fd}, err
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

// openMount opens the mount of a step, in the namespace that it is to show.
func openMount(m *rootfs.Step, user int) (fd int, err error) {
	n := m.Within
	if n.Path == "" {
		return m.Open(user)
	}
	err = namespaces.Within(n.Path, namespaceFlag(n.Type), func() (err error) {
		fd, err = m.Open(user)
		return err
	})
	return fd, err
}

// awaitReady serves the init until it is READY.
func (c *creation) awaitReady() error {
	// Hooks of our own end with us: until then nothing needs to be caught.
	if c.plan.outside == 0 {
		c.catch()
	}
	for {
		kind, payload, fds, err := c.signals.recv(c.conn, c.deadline(), func() error { return nil })
		if err != nil {
			return c.diagnose(err)
		}
		switch kind {
		case msgHooks:
			if err := c.awaitLinks(); err != nil {
				return err
			}
			if err := c.runtimeHooks(); err != nil {
				return err
			}
			if err := c.conn.Send(msgResume, nil); err != nil {
				return c.diagnose(err)
			}
			c.catch()
		case msgReady:
			if c.plan.owned(specs.UserNamespace) {
				prioritize(c.proc.PID, c.plan.Steps, false)
			}
			return c.deliver(fds)
		default:
			return remoteError(kind, payload)
		}
	}
}

// catch has signals wait from here on, if Run is to forward them.
func (c *creation) catch() {
	if c.o.foreground && c.signals == nil {
		c.signals = catchSignals()
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

// runtimeHooks runs those of create that belong to the runtime's namespaces. Prestart
// hooks once ran in start, of a container that was "created"; those that are still in
// use, and the official validation suite, are told so to this day, and by the letter
// of the lifecycle they may be: they are called after its step 2.
func (c *creation) runtimeHooks() error {
	hooks := hooksOf(c.config.Spec)
	state := func(s specs.ContainerState) []byte { return appendPid(c.rec.hookState(s), c.proc.PID) }
	if err := runHooks("prestart", hooks.Prestart, c.rec.Bundle, state(specs.StateCreated)); err != nil {
		return err
	}
	return runHooks("createRuntime", hooks.CreateRuntime, c.rec.Bundle, state(specs.StateCreating))
}

// deliver hands the pty master and the pidfd to those who asked for them.
func (c *creation) deliver(fds []int) error {
	if last := len(fds) - 1; c.o.Scratch != nil && last >= 0 {
		dir := os.NewFile(uintptr(fds[last]), "scratch")
		fds = fds[:last]
		if err := c.o.Scratch(dir); err != nil {
			closeAll(fds)
			return err
		}
	}
	defer closeAll(fds)
	if err := deliverTerminal(fds, c.o.ConsoleSocket, c.o.Terminal); err != nil {
		return err
	}
	return deliverPidfd(c.proc, c.o.PidfdSocket, "standard")
}

// deliverTerminal hands over the pty master, if there is one, to a socket, or to the
// function of a caller that stays in the foreground.
func deliverTerminal(fds []int, socket string, foreground func(*os.File) error) error {
	if len(fds) == 0 {
		return nil
	}
	if socket != "" {
		if err := sendFD(socket, "/dev/ptmx", fds[0]); err != nil {
			return fmt.Errorf("console socket %s: %w", socket, err)
		}
	}
	if foreground == nil {
		return nil
	}
	master, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	return foreground(os.NewFile(uintptr(master), "/dev/ptmx"))
}

func deliverPidfd(proc *namespaces.Process, socket, data string) error {
	if socket == "" {
		return nil
	}
	if err := sendFD(socket, data, int(proc.FD.Fd())); err != nil {
		return fmt.Errorf("pidfd socket %s: %w", socket, err)
	}
	return nil
}
