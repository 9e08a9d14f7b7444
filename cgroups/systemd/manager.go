package systemd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// undoPatience is how long it takes at most to undo what was begun.
const undoPatience = 4 * time.Second

// Manager is a connection to systemd: the system's manager or the user's.
type Manager struct {
	bus            *conn
	deadline       time.Time     // of the operation under way
	patience, undo time.Duration // what is left, with every operation less
	version        int
}

// Connect reaches the manager of u. Patience is how long all waits for it may take
// together, this one included, so that on a mute systemd a command costs no more than that
// and the four seconds in which a failed Start is undone, however much it asks.
func (u Unit) Connect(patience time.Duration) (*Manager, error) {
	m, err := connect(addresses(u.User), patience)
	if err != nil {
		return nil, &Error{Op: "reach systemd for", Unit: u.Name, Err: err}
	}
	return m, nil
}

func connect(addrs []address, patience time.Duration) (*Manager, error) {
	start := time.Now()
	bus, err := dial(addrs, start.Add(patience))
	if err != nil {
		return nil, err
	}
	return &Manager{bus: bus, patience: patience - time.Since(start), undo: undoPatience}, nil
}

// Close ends the connection, if there is one; units stay as they are.
func (m *Manager) Close() {
	if m != nil {
		m.bus.close()
	}
}

// reconnects is how often an operation is begun anew. Once is not enough: who connects to
// a systemd that is about to execute itself anew is not refused but dropped later.
const reconnects = 3

// do carries out an operation on a unit within the time for it. If the other side goes
// away meanwhile, it is done once more on a new connection: it must bear that.
func (m *Manager) do(op string, u Unit, work func() error) error {
	start := time.Now()
	m.deadline = start.Add(m.patience)
	defer func() { m.patience -= time.Since(start) }()
	err := m.ready(u)
	if err == nil {
		err = work()
	}
	for try := 0; disconnected(err) && try < reconnects; try++ {
		if err = m.ready(u); err == nil {
			err = work()
		}
	}
	if err != nil {
		return &Error{Op: op, Unit: u.Name, Err: err}
	}
	return nil
}

// ready sees to a connection that is of use, with the deadline of the operation.
func (m *Manager) ready(u Unit) error {
	if m.bus.dead {
		bus, err := m.bus.patiently(m.deadline, unix.ECONNREFUSED, unix.ENOENT)
		if err != nil {
			return err
		}
		m.bus.close()
		m.bus = bus
	}
	m.bus.until(m.deadline)
	m.bus.watch(u.Name)
	return nil
}

// Start makes the unit with the process in it, and returns its cgroup. Limits are in
// force when it returns, since systemd has been waited for. A slice starts empty: the
// caller moves the process into it. If it fails, the unit is gone again.
func (m *Manager) Start(u Unit, pid int, props []Property) (cgroup string, err error) {
	s := start{Manager: m, unit: u, pid: pid, props: props}
	err = m.do("start", u, func() (err error) {
		cgroup, err = s.run()
		return err
	})
	if err != nil && s.queued {
		m.abandon(u)
	}
	return cgroup, err
}

// start is one attempt, maybe in two halves, to start a unit.
type start struct {
	*Manager
	unit  Unit
	pid   int
	props []Property
	asked bool // systemd may have got the request
	// queued: systemd has taken it up. Until then a unit of that name is not ours to stop.
	// If the answer is lost, nothing is left for long either: a scope ends with its last
	// process, and one whose process is gone cannot begin.
	queued bool
}

func (s *start) run() (string, error) {
	if s.asked {
		if ours, err := s.resume(); ours || err != nil {
			return s.group(err)
		}
	}
	if err := s.know(); err != nil {
		return "", err
	}
	if err := s.bus.subscribe(); err != nil {
		return "", err
	}
	s.asked = true
	job, err := s.request()
	if isTaken(err) {
		// It may be the remains of one that failed.
		if err := s.forget(s.unit); err != nil {
			return "", err
		}
		job, err = s.request()
	}
	if isTaken(err) {
		return "", fmt.Errorf("there is a unit of that name; choose another cgroupsPath, or stop it (systemctl stop '%s'): %w", s.unit, err)
	}
	if err == nil {
		err = s.finished(job)
	}
	return s.group(err)
}

func (s *start) request() (job string, err error) {
	reply, err := s.bus.call(managerPath, managerIface, "StartTransientUnit",
		s.unit.Name, "replace", pairs(s.all()), array{item: "(sa(sv))"})
	if err != nil {
		return "", err
	}
	s.queued = true
	return reply.text("o")
}

// all are the properties that make it a unit for a container, and those asked for.
func (s *start) all() []Property {
	all := []Property{
		{Name: "Description", Value: "husk container " + s.unit.Name},
		// Without it the scope would be stopped early at shutdown, before what its engine depends on.
		{Name: "DefaultDependencies", Value: false},
		{Name: "CollectMode", Value: "inactive-or-failed", since: 236},
		{Name: "MemoryAccounting", Value: true},
		{Name: "CPUAccounting", Value: true},
		{Name: "IOAccounting", Value: true},
		{Name: "TasksAccounting", Value: true},
	}
	if !s.unit.IsSlice() {
		all = append(all,
			Property{Name: "Slice", Value: s.unit.Slice},
			// systemd keeps its hands off the groups below, and lets all controllers in.
			Property{Name: "Delegate", Value: true},
			Property{Name: "PIDs", Value: array{item: "u", items: []any{uint32(s.pid)}}},
		)
	}
	return s.known(append(all, s.props...))
}

// resume looks what has become of a request after which the connection was lost.
func (s *start) resume() (ours bool, err error) {
	if err := s.bus.subscribe(); err != nil {
		return false, err
	}
	job, err := s.pending()
	if err == nil && job != "" {
		_, err = s.bus.wait(job)
	}
	if err != nil {
		return false, err
	}
	// Without an answer, only our process tells our unit from another of that name.
	if !s.queued && !s.unit.IsSlice() {
		reply, err := s.bus.call(managerPath, managerIface, "GetUnitByPID", uint32(s.pid))
		if _, answered := errors.AsType[*BusError](err); answered {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if object, err := reply.text("o"); err != nil || object != s.unit.object() {
			return false, err
		}
	}
	state, err := s.get(s.unit.object(), unitIface, "ActiveState")
	s.queued = s.queued || state == "active"
	return state == "active", err
}

// pending is the unit's job, "" if there is none.
func (s *start) pending() (string, error) {
	reply, err := s.bus.call(s.unit.object(), properties, "Get", unitIface, "Job")
	if err != nil {
		return "", err
	}
	d := reply.expect("v")
	if d.sig() != "(uo)" {
		d.fail()
	}
	d.take(0, 8)
	id, path := d.u32(), d.str()
	if id == 0 {
		path = ""
	}
	return path, d.err
}

// group asks where the unit is.
func (s *start) group(err error) (string, error) {
	if err != nil {
		return "", err
	}
	path, err := s.get(s.unit.object(), s.unit.iface(), "ControlGroup")
	if err != nil {
		return "", err
	}
	return path, checkGroup(path)
}

// finished waits for the job.
func (m *Manager) finished(job string) error {
	result, err := m.bus.wait(job)
	if err == nil && result != "done" {
		err = &JobError{Result: result}
	}
	return err
}

// checkGroup distrusts the path of a cgroup that systemd gave.
func checkGroup(path string) error {
	if path == "" || path[0] != '/' || path == "/" || strings.Contains(path+"/", "/../") {
		return fmt.Errorf("systemd says that its cgroup is %q", path)
	}
	return nil
}

// abandon stops a unit whose start failed, without waiting for the end: who called
// kills the process, and with it the scope goes.
func (m *Manager) abandon(u Unit) {
	m.deadline = time.Now().Add(m.undo)
	if m.ready(u) == nil {
		_, _ = m.bus.call(managerPath, managerIface, "StopUnit", u.Name, "replace")
		_ = m.forget(u)
	}
}

// Set changes properties of the unit until it is stopped, but for those that cannot be.
func (m *Manager) Set(u Unit, props []Property) error {
	if len(props) == 0 {
		return nil
	}
	return m.do("set properties of", u, func() error {
		if err := m.know(); err != nil {
			return err
		}
		known := slices.DeleteFunc(m.known(props), func(p Property) bool { return p.fixed })
		if len(known) == 0 {
			return nil
		}
		_, err := m.bus.call(managerPath, managerIface, "SetUnitProperties", u.Name, true, pairs(known))
		return err
	})
}

// Attach moves a process of the caller's into the unit, or into the group sub below
// it ("/x"). systemd may do so where the caller may not: an ordinary user's shell is
// outside of what was delegated to that user's systemd.
func (m *Manager) Attach(u Unit, sub string, pid int) error {
	return m.do("move a process into", u, func() error {
		_, err := m.bus.call(managerPath, managerIface, "AttachProcessesToUnit", u.Name, sub, array{"u", []any{uint32(pid)}})
		return err
	})
}

// Stop stops the unit, waits until it has stopped and makes systemd forget a failure of
// it. That it is gone already is no error. Who has killed all in it waits only shortly;
// otherwise systemd asks the processes to terminate, and gives them its own time for it.
func (m *Manager) Stop(u Unit) error {
	return m.do("stop", u, func() error {
		if err := m.bus.subscribe(); err != nil {
			return err
		}
		reply, err := m.bus.call(managerPath, managerIface, "StopUnit", u.Name, "replace")
		if isGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		job, err := reply.text("o")
		if err != nil {
			return err
		}
		if err := m.finished(job); err != nil {
			return err
		}
		return m.forget(u)
	})
}

// forget makes systemd drop the memory of a unit's failure, and with it the unit.
func (m *Manager) forget(u Unit) error {
	_, err := m.bus.call(managerPath, managerIface, "ResetFailedUnit", u.Name)
	if isGone(err) {
		return nil
	}
	return err
}

// Path predicts where the unit's cgroup is, or will be, below the cgroup2 mount. The
// user's manager has its own root, deeper in the hierarchy.
func (m *Manager) Path(u Unit) (path string, err error) {
	err = m.do("find the place of", u, func() error {
		root, err := m.get(managerPath, managerIface, "ControlGroup")
		if err != nil {
			return err
		}
		path = strings.TrimSuffix(root, "/") + u.cgroup()
		return checkGroup(path)
	})
	return path, err
}

// know asks once which systemd this is: "252.38-1~deb12u1", "v255".
func (m *Manager) know() error {
	if m.version > 0 {
		return nil
	}
	text, err := m.get(managerPath, managerIface, "Version")
	if err != nil {
		return err
	}
	digits := strings.TrimLeft(text, "v")
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	if m.version, err = strconv.Atoi(digits); err != nil || m.version == 0 {
		return fmt.Errorf("systemd's version %q is not a number: %w", text, unix.EPROTO)
	}
	return nil
}

// known leaves out what this systemd does not know: it would refuse all of them.
func (m *Manager) known(props []Property) (known []Property) {
	for _, p := range props {
		if p.since <= m.version {
			known = append(known, p)
		}
	}
	return known
}

// get reads a property that is a string.
func (m *Manager) get(object, iface, name string) (string, error) {
	reply, err := m.bus.call(object, properties, "Get", iface, name)
	if err != nil {
		return "", err
	}
	d := reply.expect("v")
	sig, text, _ := d.variant()
	if d.err == nil && sig != "s" {
		d.fail()
	}
	return text, d.err
}

// text is the one string or path that the message carries.
func (m *message) text(sig string) (string, error) {
	d := m.expect(sig)
	return d.str(), d.err
}
