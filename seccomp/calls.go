package seccomp

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Call is a system call of an architecture.
type Call struct {
	Number uint32
	Name   string
}

// A Namer knows the system calls of architectures by name. The compilers do.
type Namer interface {
	Calls(arch specs.Arch) ([]Call, error)
}

// names asks the compiler for the calls of an architecture.
func names(c Compiler, arch specs.Arch) ([]Call, error) {
	if c == nil {
		return nil, ErrNoCompiler
	}
	n, ok := c.(Namer)
	if !ok {
		return nil, fmt.Errorf("the seccomp compiler %s knows no names", c.ID())
	}
	return n.Calls(arch)
}

// WriteCalls writes what Calls of External reads: a number and a name a line.
func WriteCalls(w io.Writer, calls []Call) error {
	var b bytes.Buffer
	for _, c := range calls {
		fmt.Fprintln(&b, c.Number, c.Name)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func readCalls(text string) (calls []Call, err error) {
	for line := range strings.Lines(text) {
		number, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.ParseUint(number, 10, 32)
		if !ok || name == "" || err != nil {
			return nil, fmt.Errorf("the seccomp compiler answered %q", line)
		}
		calls = append(calls, Call{uint32(n), name})
	}
	return calls, nil
}

// Calls asks the program by its arguments.
func (e *external) Calls(arch specs.Arch) ([]Call, error) {
	out, err := e.ask(nil, "calls", string(arch))
	if err != nil {
		return nil, err
	}
	return readCalls(string(out))
}

// archOf tells the architecture of a call from what the kernel says of it: x86_64 and x32
// share a value, and differ in a bit of the number.
func archOf(audit, number uint32) (Arch, bool) {
	for _, a := range arches {
		if a.Audit == audit && (audit != unix.AUDIT_ARCH_X86_64 || number >= x32Bit == (a.Base == x32Bit)) {
			return a, true
		}
	}
	return Arch{}, false
}

// nativeArch is the machine's own architecture.
func nativeArch() (Arch, bool) { return archOf(auditArch(), 0) }

// NameCall names a call that the kernel tells of by numbers, and its architecture. Where
// there is no name, the number is one.
func NameCall(c Compiler, audit, number uint32) (name, arch string) {
	a, ok := archOf(audit, number)
	if !ok {
		return strconv.Itoa(int(number)), fmt.Sprintf("architecture %#x", audit)
	}
	calls, _ := names(c, a.Name)
	for _, call := range calls {
		if call.Number == number {
			return call.Name, string(a.Name)
		}
	}
	return strconv.Itoa(int(number)), string(a.Name)
}

// RuleOf finds what in a profile decides about a call that it kills: the first rule that
// kills and names it, or the default.
func RuleOf(profile []byte, name string) (field string) {
	p, err := Decode(profile)
	if err != nil {
		return ""
	}
	kills := func(a specs.LinuxSeccompAction) bool {
		return a == specs.ActKill || a == specs.ActKillThread || a == specs.ActKillProcess || a == specs.ActTrap
	}
	for i := range p.Syscalls {
		if r := &p.Syscalls[i]; kills(r.Action) && contains(r.Names, name) {
			return Pointer + "/syscalls/" + strconv.Itoa(i) + "/action"
		}
	}
	if kills(p.DefaultAction) {
		return Pointer + "/defaultAction"
	}
	return Pointer
}
