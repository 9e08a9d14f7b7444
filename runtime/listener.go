package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A filter with SCMP_ACT_NOTIFY gives the one who installs it a descriptor, its
// listener, on which an agent answers the calls that the filter reports. It goes to the
// agent while the filter is in force and before the process can run:
//
//	init (or the process that joins)         start, run, exec              agent
//	seccomp(2): the filter holds
//	LISTENER, its number ──────────────────▶ pidfd_getfd
//	                                         connect, state + listener ───▶
//	read ◀─────────────────────── RESUME ─── close
//	what is left, execve
//
// After seccomp(2) the init makes its calls under the filter: write(2) and read(2) for
// this conversation, which passListener asks the filter about in time. Calls after that
// may be reported too, for the agent is there to answer them.

// filterStep is the step that installs a filter. Its listener's address is for those who
// hand it over, and goes with what create keeps for them.
func filterStep(f *seccomp.Filter) *Step {
	// Execve leaves one thread, the one that is filtered anyway. The init's others would
	// only be killed for what they do until then.
	flags := f.Flags &^ (unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH)
	s := &Step{Op: opSeccomp, Field: "/linux/seccomp", Args: []string{string(f.BPF)}, Nums: []int64{int64(flags), 0}}
	if f.Listener() {
		s.Args = append(s.Args, f.ListenerPath, f.ListenerMetadata)
	}
	return s
}

// listens says whether the step's filter has a listener.
func (s *Step) listens() bool { return s != nil && len(s.Args) > 1 }

func (s *Step) filter() *seccomp.Filter {
	return &seccomp.Filter{BPF: []byte(s.Args[0]), Flags: uint32(s.Nums[0])}
}

// passListener makes sure that the filter lets its own listener be handed over.
func passListener(f *seccomp.Filter) error {
	if !f.Listener() {
		return nil
	}
	for _, call := range []struct {
		name   string
		number int
		may    bool // wait for the agent, who has the listener by then
	}{{"write", unix.SYS_WRITE, false}, {"read", unix.SYS_READ, true}} {
		if !f.Allows(call.number) && !(call.may && f.Notifies(call.number)) {
			return &seccomp.FieldError{
				Field: seccomp.Pointer + "/syscalls",
				Err:   fmt.Errorf("the filter forbids %s, by which its listener is handed over: give it SCMP_ACT_ALLOW", call.name),
			}
		}
	}
	return nil
}

// install makes the filter that of this thread, which is the one that will execve.
func (i *initer) install(s *Step) error {
	namespaces.Pin()
	fd, err := seccomp.Install(s.filter())
	if err != nil || fd < 0 {
		return err
	}
	said := listenerPacket(uint32(fd))
	// A recording's filter knows these calls by an argument that they do not have.
	key := uintptr(s.Nums[1])
	if _, _, errno := unix.RawSyscall6(unix.SYS_WRITE, uintptr(i.conn.FD()), uintptr(unsafe.Pointer(&said)), uintptr(len(said)),
		key, 0, 0); errno != 0 {
		return fmt.Errorf("write about the listener: %w", errno)
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_READ, uintptr(i.conn.FD()), uintptr(unsafe.Pointer(&said)), uintptr(len(said)), key, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return fmt.Errorf("read whether the listener was handed over: %w", errno)
		case n == 0: // it was not, and who knows why tells so
			exit(1)
		default:
			return nil
		}
	}
}

// listenerPacket is LISTENER with the descriptor's number.
func listenerPacket(fd uint32) (packet [6]byte) {
	packet[0] = msgListener
	binary.NativeEndian.PutUint32(packet[2:], fd)
	return packet
}

// install makes the filter that of the process. If the filter lets a process be born it
// inherits that from us, whom nobody in the container can see: then it never has the
// right that this takes. The listener's number gets into the packet.
func (l *last) install(s *Step, packet *[8]byte, have int64) error {
	said := listenerPacket(0)
	copy(packet[2:], said[:]) // the number is at a multiple of its size
	number := (*uint32)(unsafe.Pointer(&packet[4]))
	if l.late {
		prog := bpfProgram(s)
		l.hold = append(l.hold, prog)
		l.call(s, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(s.Nums[0]), uintptr(unsafe.Pointer(prog)))
		if s.listens() {
			l.Calls[len(l.Calls)-1].Result = number
		}
		return nil
	}
	fd, err := seccomp.Install(s.filter())
	if *number = uint32(fd); err != nil || l.caps == nil {
		return err
	}
	l.extra &^= 1 << unix.CAP_SYS_ADMIN
	header, data := l.rights(have, l.extra)
	if l.extra == 0 {
		l.caps = nil
	}
	return os.NewSyscallError("capset", unix.Capset(header, &data[0]))
}

// handOver adds the calls by which the process has its listener taken, and waits for its agent.
func (l *last) handOver(s *Step, packet *[8]byte) {
	l.hold = append(l.hold, packet)
	at, size := uintptr(unsafe.Pointer(&packet[2])), unsafe.Sizeof(listenerPacket(0))
	l.call(s, unix.SYS_WRITE, uintptr(l.Conn), at, size)
	l.call(s, unix.SYS_READ, uintptr(l.Conn), at, size)
	l.Calls[len(l.Calls)-1].Least = 1
}

func bpfProgram(s *Step) *unix.SockFprog {
	bpf := []byte(s.Args[0])
	return &unix.SockFprog{Len: uint16(len(bpf) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&bpf[0]))}
}

// An agent gets the listener of a container's process.
type agent interface {
	take(listener int, pid int) error
}

// listening is the agent at listenerPath. OCI runtime-spec, config-linux.md, "Seccomp",
// "The Container Process State".
type listening struct {
	rec            *record
	status         specs.ContainerState
	path, metadata string
}

// agent is who answers for a process of the container.
func (k *kept) agent(rec *record, status specs.ContainerState) agent {
	return &listening{rec: rec, status: status, path: k.Filter.Args[1], metadata: k.Filter.Args[2]}
}

// agent is who answers for the container's own process. It has not executed that yet,
// whatever the state has to say by now.
func (e *entry) agent(rec *record) (agent, error) {
	k, err := e.kept()
	if err == nil && !k.Filter.listens() {
		err = errWire
	}
	if err != nil {
		return nil, err
	}
	return k.agent(rec, specs.StateCreated), nil
}

func (c *creation) agent() (agent, error) {
	switch {
	case c.o.recording != nil:
		return server{c.o.recording}, nil
	case c.o.denials != nil && c.o.denials.Ended() != nil:
		return server{c.o.denials}, nil
	}
	return c.entry.agent(c.rec)
}

// handOver serves the init of the container itself.
func (rec *record) handOver(conn *namespaces.Conn, payload []byte, to func() (agent, error)) error {
	agent, err := to()
	if err != nil {
		return err
	}
	pid := rec.Init.PID
	init, err := rec.Init.handle()
	if err == nil && conn.Sender != 0 && conn.Sender != pid { // the process of an init that stays
		_ = unix.Close(init)
		pid = conn.Sender
		init, err = retry(func() (int, error) { return unix.PidfdOpen(pid, 0) })
	}
	if err != nil {
		return err
	}
	defer unix.Close(init)
	return handOver(conn, payload, init, pid, agent)
}

func (a *listening) take(listener, pid int) error {
	if err := sendFD(a.path, string(a.state(pid)), listener); err != nil {
		return &Error{Field: seccomp.Pointer + "/listenerPath", Path: a.path, Err: err}
	}
	return nil
}

// state is the container process state.
func (a *listening) state(pid int) []byte {
	w := &jsonWriter{}
	w.object(func() {
		w.text("ociVersion", a.rec.OCIVersion)
		w.list("fds", 1, func(int) { w.quote(specs.SeccompFdName) })
		w.num("pid", pid)
		if a.metadata != "" {
			w.text("metadata", a.metadata)
		}
		w.key("state")
		w.b = append(w.b, appendPid(a.rec.hookState(a.status), a.rec.Init.PID)...)
	})
	return w.b
}

// handOver takes the listener out of the process pid and gives it to the agent. What the
// process says is not believed: it may be another's by now.
func handOver(conn *namespaces.Conn, payload []byte, pidfd, pid int, to agent) error {
	if len(payload) != 4 {
		return errWire
	}
	number := int(binary.NativeEndian.Uint32(payload))
	fd, err := retry(func() (int, error) { return unix.PidfdGetfd(pidfd, number, 0) })
	if err != nil {
		return at(seccomp.Pointer, "", os.NewSyscallError("pidfd_getfd", err))
	}
	defer unix.Close(fd)
	if !seccomp.IsListener(fd) {
		return at(seccomp.Pointer, "", errors.New("the process sent another descriptor instead of its filter's listener"))
	}
	if err := to.take(fd, pid); err != nil {
		return err
	}
	return conn.Send(msgResume, nil)
}
