package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// killPatience is how long killed processes may take to end.
const killPatience = 10 * time.Second

// Signal sends a signal to the container's init or, if all is set, to every process in
// its cgroup. OCI runtime-spec, runtime.md, "Kill".
func (r *Runtime) Signal(id string, sig syscall.Signal, all bool) error {
	return wrap("kill", id, r.signal(id, sig, all))
}

func (r *Runtime) signal(id string, sig syscall.Signal, all bool) error {
	e, rec, err := r.find(id)
	if err != nil {
		return err
	}
	defer e.close()
	if rec.Phase != phaseCreated {
		return ErrNotRunning
	}
	if all {
		return e.signalAll(rec, sig)
	}
	return rec.signalInit(sig)
}

func (rec *record) signalInit(sig syscall.Signal) error {
	pidfd, err := rec.Init.handle()
	if errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if err = unix.PidfdSendSignal(pidfd, sig, nil, 0); err == unix.ESRCH {
		return ErrNotRunning
	}
	return err
}

// signalAll reaches every process of the container, also when its init is gone; engines
// rely on that it is no error if nobody is left. SIGKILL goes to the whole cgroup at
// once; for another signal the cgroup stands still while its processes are counted. Who is
// killed at that moment leaves it frozen, as a Pause that is killed does.
func (e *entry) signalAll(rec *record, sig syscall.Signal) error {
	g, err := rec.openGroup()
	if err != nil {
		return err
	}
	if g == nil {
		// Somebody may have moved the init elsewhere and removed the cgroup.
		if err = rec.signalInit(sig); err == ErrNotRunning {
			err = nil
		}
		return err
	}
	defer g.Close()
	if sig == unix.SIGKILL {
		return g.Kill()
	}
	release, err := e.standStill(g)
	if err != nil {
		return err
	}
	defer release()
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// Delete removes a stopped container and whatever create made for it. Any other is
// killed first if force is set, and left alone if not. With force, a container that does
// not exist is no error. OCI runtime-spec, runtime.md, "Delete".
func (r *Runtime) Delete(id string, force bool) error {
	err := r.delete(id, force)
	if force && errors.Is(err, ErrNotExist) {
		return nil
	}
	return wrap("delete", id, err)
}

func (r *Runtime) delete(id string, force bool) error {
	e, err := r.openLocked(id, force)
	if err != nil {
		return err
	}
	defer e.close()
	rec, err := e.read()
	if errors.Is(err, ErrNotExist) {
		// What a create that died before its first record left.
		_ = e.remove()
		return ErrNotExist
	}
	if err != nil {
		return err
	}
	switch status := rec.status(e); {
	case force, status == specs.StateStopped:
	default:
		return &Error{
			Err:  fmt.Errorf("cannot delete container %s that is not stopped: %s", id, status),
			Hint: "husk kill it first, or husk delete --force",
		}
	}
	return r.destroy(e, rec)
}

// destroy ends every process of the container and removes its cgroup and its class of
// service, then runs the poststop hooks, then forgets the state. The caller holds the
// lock. It can be repeated from any point at which it was interrupted.
func (r *Runtime) destroy(e *entry, rec *record) error {
	links := r.startRemoval(rec)
	// The helper ends also if the processes cannot be ended.
	if err := cmp.Or(r.endProcesses(rec, links), links.end()); err != nil {
		return err
	}
	if err := rec.endPasta(e); err != nil {
		return err
	}
	if err := r.leaveClass(rec); err != nil {
		return err
	}
	state := rec.hookState(specs.StateStopped)
	for k, h := range rec.Poststop {
		if err := runHook(newHookCall(h, rec.Bundle, state)); err != nil {
			r.warn(at(pointer("/hooks/poststop", strconv.Itoa(k)), h.Path, err).Error())
		}
	}
	return e.remove()
}

// endProcesses ends them all, removes their cgroup, and meanwhile begins with the links.
func (r *Runtime) endProcesses(rec *record, links *linksRemoval) error {
	removes, err := rec.end()
	if err != nil {
		return err
	}
	links.begin(rec)
	if removes {
		if err := cgroups.Remove(rec.Cgroup, rec.CgroupMade); err != nil {
			return err
		}
		r.stopUnit(rec)
	}
	return nil
}

// ownsCgroup: a group that was there before is ours only once create found it empty.
// Whoever died before that leaves a record that names the group of somebody else.
func (rec *record) ownsCgroup() bool {
	return rec.Cgroup != "" && (rec.owned || rec.Phase == phaseCreated || slices.Contains(rec.CgroupMade, rec.Cgroup))
}

// end kills the init and all processes of the cgroup and waits until they are gone. It
// says whether the cgroup, or what is left of its place, is this container's to remove.
func (rec *record) end() (removes bool, err error) {
	deadline := time.Now().Add(killPatience)
	pidfd, err := rec.Init.handle()
	if err == nil {
		defer unix.Close(pidfd)
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
	if !rec.ownsCgroup() {
		if err == nil {
			return false, waitReadable(pidfd, deadline)
		}
		return false, nil
	}
	g, err := cgroups.Open(rec.Cgroup)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer g.Close()
	switch {
	case rec.lost(g):
		return false, nil
	case !g.Populated():
		return true, nil
	}
	return true, g.KillAll(deadline)
}
