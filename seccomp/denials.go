package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Denials counts the calls that a filter answers with an error. The kernel would not tell
// of them, so that the filter asks a listener about these calls instead, which gives the
// answer that the filter would have given. Not counted is ENOSYS, by which programs learn
// what they have to do without.
//
// A process under such a filter cannot have a listener for one of its own, and none gets
// one where husk itself is under such a filter.
type Denials struct {
	mu     sync.Mutex
	filter *Filter // that decides; nil: nothing is counted
	counts map[numbered]uint64
	ended  chan struct{}
}

// Denial is how often a call was denied.
type Denial struct {
	Call  string // its name, and if it is not the machine's, its architecture
	Count uint64
}

// Watch returns the filter to be installed, of which the listener is for Serve. It is f
// itself where its denials cannot be counted.
func (d *Denials) Watch(f *Filter) *Filter {
	if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || mode != 0 || f.Listener() {
		return f
	}
	w := &Filter{BPF: slices.Clone(f.BPF), Flags: f.Flags | flagNewListener, Warnings: f.Warnings, Notes: f.Notes}
	if kernelKnows(flagWaitKillableRecv) {
		w.Flags |= flagWaitKillableRecv
	}
	for in := range slices.Chunk(w.BPF, instructionSize) {
		code, k := binary.NativeEndian.Uint16(in), binary.NativeEndian.Uint32(in[4:])
		if errno := k &^ retActionMask; code == opReturn && k&retActionMask == retErrno && errno != 0 && errno != uint32(unix.ENOSYS) {
			binary.NativeEndian.PutUint32(in[4:], retNotify)
		}
	}
	d.filter, d.counts, d.ended = f, map[numbered]uint64{}, make(chan struct{})
	return w
}

// Serve answers the calls of the listener fd, which it closes, until nobody is left under
// its filter.
func (d *Denials) Serve(fd int) {
	defer close(d.ended)
	if listen(fd, d.deny) != nil {
		d.mu.Lock()
		d.counts = nil
		d.mu.Unlock()
	}
}

// deny answers what the filter says: an error, whatever happens.
func (d *Denials) deny(n *notification) answer {
	errno := unix.EPERM
	if v := d.filter.verdict(n.arch, uint32(n.nr), n.args[:]); v&retActionMask == retErrno {
		errno = unix.Errno(v &^ retActionMask)
	}
	call := numbered{n.arch, uint32(n.nr)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, old := d.counts[call]; old || len(d.counts) < maxSeen {
		d.counts[call]++
	}
	return answer{error: -int32(errno)}
}

// Ended is closed when Serve returns; nil if nothing is counted.
func (d *Denials) Ended() <-chan struct{} { return d.ended }

// List is what was counted, by name; ok is false if nothing was.
func (d *Denials) List(c Compiler) (list []Denial, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	native, _ := nativeArch()
	tables := map[Arch]map[uint32]string{}
	for call, n := range d.counts {
		a, known := archOf(call.audit, call.number)
		if known && tables[a] == nil {
			tables[a] = map[uint32]string{}
			calls, _ := names(c, a.Name)
			for _, call := range calls {
				tables[a][call.Number] = call.Name
			}
		}
		name := tables[a][call.number]
		if name == "" {
			name = fmt.Sprint(call.number)
		}
		switch {
		case !known:
			name += fmt.Sprintf(" of architecture %#x", call.audit)
		case a != native:
			name += " of " + string(a.Name)
		}
		list = append(list, Denial{name, n})
	}
	slices.SortFunc(list, func(a, b Denial) int { return strings.Compare(a.Call, b.Call) })
	return list, d.counts != nil
}
