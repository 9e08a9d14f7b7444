package runtime

import (
	"encoding/binary"
	"errors"

	"github.com/huskrun/husk/rootfs"
)

// The kinds of packets in the conversation between a parent (create, run, start)
// and the container's init. A plain create is one round trip:
//
//	parent → init   PLAN…  batches of steps, with the descriptors they use
//	init → parent   HOOKS  only if there are hooks to run outside; answered by RESUME
//	init → parent   TURN   mounted so far: open what comes next
//	init → parent   READY  with the pty master, if there is one
//	parent → init   GO     committed: park until start, or start at once
//	start → init    START  on a connection of its own
//	init → start    STARTED nobody else can start it any more
//	init → start    EXEC   only the filter and execve are left: EOF means that they succeeded
//	init → start    LISTENER the filter holds and has a listener; answered by RESUME
//
// An init that stays (AnnotationInit) says RUNS instead of EOF, and ENDED with the signal
// that has killed the process, if one has: its own exit status is as a shell's.
//
// EXEC comes before LISTENER, since the filter may forbid what announces it. A process
// that joins a container (exec.go) and has another one execute sends them the other way
// round: there EXEC says that the other one has executed or failed, and its pid.
//
// namespaces.KindError may come instead of any answer.
const (
	msgPlan byte = iota + 1
	msgHooks
	msgResume
	msgReady
	msgGo
	msgStart
	msgStarted
	msgExec
	msgListener
	msgTurn
	msgRuns
	msgEnded
)

// What GO tells the init to do.
const (
	goPark  = 0 // wait for START on the listening socket
	goStart = 1 // the parent stays: go on at once, on the same connection
	goTied  = 2 // the same, and live no longer than the parent
)

var errWire = errors.New("malformed packet")

// packer builds the plan's wire form: unsigned varints and length-prefixed strings.
// There is no reflection in it because the child pays for every init-time table.
type packer struct{ b []byte }

func (e *packer) num(v uint64) { e.b = binary.AppendUvarint(e.b, v) }

func (e *packer) str(s string) {
	e.num(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *packer) strs(list []string) {
	e.num(uint64(len(list)))
	for _, s := range list {
		e.str(s)
	}
}

func (e *packer) nums(list []int64) {
	e.num(uint64(len(list)))
	for _, n := range list {
		e.b = binary.AppendVarint(e.b, n)
	}
}

func (e *packer) flag(v bool) {
	if v {
		e.num(1)
	} else {
		e.num(0)
	}
}

// unpacker reads what packer wrote. The first mistake sticks in err and every later
// read gives zero values, so callers check once, at the end.
type unpacker struct {
	b   []byte
	err error
}

func (d *unpacker) fail() { d.b, d.err = nil, errWire }

func (d *unpacker) num() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *unpacker) str() string {
	n := d.num()
	if n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// count reads the length of a list, each of whose elements takes at least one byte:
// a length that the packet cannot hold is an error before anything is allocated.
func (d *unpacker) count() int {
	n := d.num()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *unpacker) strs() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.str()
	}
	return list
}

func (d *unpacker) nums() []int64 {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]int64, n)
	for i := range list {
		v, n := binary.Varint(d.b)
		if n <= 0 {
			d.fail()
			return nil
		}
		d.b = d.b[n:]
		list[i] = v
	}
	return list
}

func (d *unpacker) flag() bool { return d.num() == 1 }

func encodeSteps(steps []Step) []byte {
	e := packer{b: make([]byte, 0, 4096)}
	e.num(uint64(len(steps)))
	for i := range steps {
		e.step(&steps[i])
	}
	return e.b
}

func decodeSteps(b []byte) ([]Step, error) {
	d := unpacker{b: b}
	steps := make([]Step, d.count())
	for i := range steps {
		d.step(&steps[i])
	}
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	return steps, d.err
}

func (e *packer) step(s *Step) {
	e.num(uint64(s.Op))
	e.str(s.Field)
	e.strs(s.Args)
	e.nums(s.Nums)
	e.flag(s.Mount != nil)
	if s.Mount != nil {
		e.mount(s.Mount)
	}
}

func (d *unpacker) step(s *Step) {
	s.Op = Op(d.num())
	s.Field = d.str()
	s.Args = d.strs()
	s.Nums = d.nums()
	if d.flag() {
		s.Mount = new(rootfs.Step)
		d.mount(s.Mount)
	}
}

func (e *packer) mount(m *rootfs.Step) {
	e.num(uint64(m.Op))
	for _, s := range []string{m.Field, m.Source, m.Target, m.Type} {
		e.str(s)
	}
	e.strs(m.Data)
	for _, n := range []uint64{
		m.Set, m.Clr, m.RSet, m.RClr, m.Propagation, m.Flags,
		uint64(m.Mode), uint64(m.UID), uint64(m.GID), m.Dev,
	} {
		e.num(n)
	}
	e.flag(m.FD)
}

func (d *unpacker) mount(m *rootfs.Step) {
	m.Op = rootfs.Op(d.num())
	for _, s := range []*string{&m.Field, &m.Source, &m.Target, &m.Type} {
		*s = d.str()
	}
	m.Data = d.strs()
	for _, n := range []*uint64{&m.Set, &m.Clr, &m.RSet, &m.RClr, &m.Propagation, &m.Flags} {
		*n = d.num()
	}
	for _, n := range []*uint32{&m.Mode, &m.UID, &m.GID} {
		*n = uint32(d.num())
	}
	m.Dev = d.num()
	m.FD = d.flag()
}
