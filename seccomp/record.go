package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Recording notes every system call that happens under its filter, which reports them
// all to its listener, and lets each of them happen.
type Recording struct {
	// Key is for the arguments that read(2) and write(2) do not have: calls with it
	// there are those by which the listener is handed over. They are not reported, since
	// nobody could answer yet, and no other program will happen to make one.
	Key uint64

	compiler Compiler
	base     *specs.LinuxSeccomp // nil: none
	filter   *Filter             // of the base: what it allows need not be added
	mu       sync.Mutex
	seen     map[numbered]bool // and whether the base allowed it each time
	ended    chan struct{}
	problem  error
}

// numbered is a system call as the kernel names it.
type numbered struct{ audit, number uint32 }

// NewRecording makes a recording of what goes beyond base, the JSON text of a profile, or
// of everything if that is empty.
func NewRecording(base []byte, c Compiler) (*Recording, error) {
	r := &Recording{Key: rand.Uint64() | 1, compiler: c, seen: map[numbered]bool{}, ended: make(chan struct{})}
	if c == nil {
		return nil, ErrNoCompiler
	}
	if len(base) == 0 {
		return r, nil
	}
	var err error
	if r.filter, err = c.Compile(base); err == nil {
		r.base, err = Decode(base)
	}
	return r, err
}

// Filter is the filter to install. The listener is for Serve.
func (r *Recording) Filter() *Filter {
	f := &Filter{BPF: recordProgram(auditArch(), r.Key), Flags: flagSpecAllow | flagNewListener}
	if kernelKnows(flagWaitKillableRecv) {
		// A program that is signalled often, as Go's are, would else make its calls anew.
		f.Flags |= flagWaitKillableRecv
	}
	return f
}

// recordProgram reports every call but read(2) and write(2) with the key as their fourth
// argument.
func recordProgram(audit uint32, key uint64) (b []byte) {
	low, high := uint32(16+8*3), uint32(16+8*3+4)
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		low, high = high, low
	}
	for _, in := range []struct {
		code    uint16
		yes, no byte
		k       uint32
	}{
		{opLoad, 0, 0, 4},
		{opEqual, 0, 8, audit},
		{opLoad, 0, 0, 0},
		{opEqual, 1, 0, unix.SYS_READ},
		{opEqual, 0, 5, unix.SYS_WRITE},
		{opLoad, 0, 0, low},
		{opEqual, 0, 3, uint32(key)},
		{opLoad, 0, 0, high},
		{opEqual, 0, 1, uint32(key >> 32)},
		{opReturn, 0, 0, retAllow},
		{opReturn, 0, 0, retNotify},
	} {
		b = binary.NativeEndian.AppendUint16(b, in.code)
		b = append(b, in.yes, in.no)
		b = binary.NativeEndian.AppendUint32(b, in.k)
	}
	return b
}

// Serve answers the calls of the listener fd, which it closes, until nobody is left under
// its filter.
func (r *Recording) Serve(fd int) {
	defer close(r.ended)
	err := listen(fd, func(n *notification) answer {
		r.note(n)
		return answer{flags: flagContinue}
	})
	if err != nil {
		r.problem = err
	}
}

// maxSeen is more than all architectures together have of system calls: who makes more
// invents their numbers, to fill our memory.
const maxSeen = 16 << 10

// note remembers a call.
func (r *Recording) note(n *notification) {
	call := numbered{n.arch, uint32(n.nr)}
	r.mu.Lock()
	defer r.mu.Unlock()
	allowed, old := r.seen[call]
	switch {
	case old && !allowed:
		return
	case !old && len(r.seen) == maxSeen:
		if r.problem == nil {
			r.problem = errors.New("the container makes calls of too many numbers")
		}
		return
	}
	r.seen[call] = r.filter != nil && r.filter.allows(n)
}

func (f *Filter) allows(n *notification) bool {
	action := f.judge(n.arch, uint32(n.nr), n.args[:])
	return action == retAllow || action == retLog
}

// Ended is closed when Serve returns.
func (r *Recording) Ended() <-chan struct{} { return r.ended }

// Unasked are calls that a program needs though it may not be seen making them: to end; to
// come back from a signal; those that the kernel makes in its place after a stop; and
// those that the vDSO makes only on some machines.
var unasked = []string{
	"clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "exit", "exit_group", "getcpu",
	"gettimeofday", "restart_syscall", "rt_sigreturn", "sigreturn", "time",
}

// Profile is the profile that allows what was recorded and what the base does. The order
// of what is added depends on the names alone. Warnings tell what it cannot express.
func (r *Recording) Profile() (p *specs.LinuxSeccomp, warnings []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem != nil {
		return nil, nil, fmt.Errorf("the recording is not complete: %w", r.problem)
	}
	tables, err := r.tables()
	if err != nil {
		return nil, nil, err
	}
	denied := uint(unix.EPERM)
	p = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &denied}
	if r.base != nil {
		*p = *r.base
	}
	named, warnings := r.named(tables, p)
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if r := plainRule(p, name); r != nil && r.Action != specs.ActAllow {
			delete(named, name)
			warnings = append(warnings, fmt.Sprintf("the program called %s, to which the base profile answers %s: that stays", name, r.Action))
		}
	}
	if len(named) > 0 {
		p.Syscalls = append(slices.Clip(p.Syscalls), specs.LinuxSyscall{Names: slices.Sorted(maps.Keys(named)), Action: specs.ActAllow})
	}
	for _, arch := range slices.Sorted(maps.Keys(tables)) {
		if !contains(p.Architectures, arch) {
			p.Architectures = append(slices.Clip(p.Architectures), arch)
		}
	}
	return p, warnings, nil
}

// tables are the names of the calls of each architecture that was seen, and of the
// machine's own.
func (r *Recording) tables() (map[specs.Arch]map[uint32]string, error) {
	tables := map[specs.Arch]map[uint32]string{}
	add := func(a Arch, known bool) error {
		if !known || tables[a.Name] != nil {
			return nil
		}
		calls, err := names(r.compiler, a.Name)
		table := make(map[uint32]string, len(calls))
		for _, call := range calls {
			table[call.Number] = call.Name
		}
		tables[a.Name] = table
		return err
	}
	err := add(nativeArch())
	for call := range r.seen {
		err = errors.Join(err, add(archOf(call.audit, call.number)))
	}
	return tables, err
}

// named are the names of the calls that the base p does not allow.
func (r *Recording) named(tables map[specs.Arch]map[uint32]string, p *specs.LinuxSeccomp) (named map[string]bool, warnings []string) {
	named = map[string]bool{}
	for call, allowed := range r.seen {
		a, _ := archOf(call.audit, call.number)
		switch name := tables[a.Name][call.number]; {
		case name == "":
			warnings = append(warnings, fmt.Sprintf("system call %d of %s has no name, so the profile cannot allow it", call.number, a.Name))
		case !allowed:
			named[name] = true
		}
	}
	for _, table := range tables {
		for _, name := range table {
			if contains(unasked, name) && plainly(p, name) != specs.ActAllow {
				named[name] = true
			}
		}
	}
	slices.Sort(warnings)
	return named, warnings
}

// plainly is what the profile does with a call whatever its arguments; the default where
// they matter.
func plainly(p *specs.LinuxSeccomp, name string) specs.LinuxSeccompAction {
	if r := plainRule(p, name); r != nil {
		return r.Action
	}
	return p.DefaultAction
}

// plainRule is the rule about a call that looks at no arguments, and so decides, or nil.
func plainRule(p *specs.LinuxSeccomp, name string) *specs.LinuxSyscall {
	for i := range p.Syscalls {
		if r := &p.Syscalls[i]; len(r.Args) == 0 && contains(r.Names, name) {
			return r
		}
	}
	return nil
}
