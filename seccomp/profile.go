package seccomp

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Pointer is where a profile is found in config.json: the prefix of every
// FieldError's Field.
const Pointer = "/linux/seccomp"

// FieldError is a mistake in the profile.
type FieldError struct {
	Field string // JSON pointer into config.json
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// Arch describes one architecture a profile may name.
type Arch struct {
	Name specs.Arch
	// Audit is what struct seccomp_data calls it (AUDIT_ARCH_*).
	Audit uint32
	// Base is added to the numbers shared by all architectures, those from 424
	// (Linux 5.1) on.
	Base uint32
	// Ceiling is where numbers start that do not grow with new system calls: the
	// private calls of ARM, the other half of x86_64/x32. 0: none.
	Ceiling uint32
}

const (
	x32Bit    = 0x40000000 // __X32_SYSCALL_BIT
	x32Compat = 512        // first of the x32-only numbers, syscall_64.tbl
	armCalls  = 0x0f0000   // __ARM_NR_BASE
)

// arches is sorted by name.
var arches = []Arch{
	{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, 0, 0},
	{specs.ArchARM, unix.AUDIT_ARCH_ARM, 0, armCalls},
	{specs.ArchLOONGARCH64, unix.AUDIT_ARCH_LOONGARCH64, 0, 0},
	{specs.ArchM68K, unix.AUDIT_ARCH_M68K, 0, 0},
	{specs.ArchMIPS, unix.AUDIT_ARCH_MIPS, 4000, 0},
	{specs.ArchMIPS64, unix.AUDIT_ARCH_MIPS64, 5000, 0},
	{specs.ArchMIPS64N32, unix.AUDIT_ARCH_MIPS64N32, 6000, 0},
	{specs.ArchMIPSEL, unix.AUDIT_ARCH_MIPSEL, 4000, 0},
	{specs.ArchMIPSEL64, unix.AUDIT_ARCH_MIPSEL64, 5000, 0},
	{specs.ArchMIPSEL64N32, unix.AUDIT_ARCH_MIPSEL64N32, 6000, 0},
	{specs.ArchPARISC, unix.AUDIT_ARCH_PARISC, 0, 0},
	{specs.ArchPARISC64, unix.AUDIT_ARCH_PARISC64, 0, 0},
	{specs.ArchPPC, unix.AUDIT_ARCH_PPC, 0, 0},
	{specs.ArchPPC64, unix.AUDIT_ARCH_PPC64, 0, 0},
	{specs.ArchPPC64LE, unix.AUDIT_ARCH_PPC64LE, 0, 0},
	{specs.ArchRISCV64, unix.AUDIT_ARCH_RISCV64, 0, 0},
	{specs.ArchS390, unix.AUDIT_ARCH_S390, 0, 0},
	{specs.ArchS390X, unix.AUDIT_ARCH_S390X, 0, 0},
	{specs.ArchSH, unix.AUDIT_ARCH_SHEL, 0, 0},
	{specs.ArchSHEB, unix.AUDIT_ARCH_SH, 0, 0},
	{specs.ArchX32, unix.AUDIT_ARCH_X86_64, x32Bit, x32Bit + x32Compat},
	{specs.ArchX86, unix.AUDIT_ARCH_I386, 0, 0},
	{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, 0, x32Bit},
}

// LookupArch finds an architecture by its name in profiles.
func LookupArch(name specs.Arch) (Arch, bool) {
	for _, a := range arches {
		if a.Name == name {
			return a, true
		}
	}
	return Arch{}, false
}

var (
	actions = []specs.LinuxSeccompAction{
		specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread,
		specs.ActLog, specs.ActNotify, specs.ActTrace, specs.ActTrap,
	}
	operators = []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual,
		specs.OpLessThan, specs.OpMaskedEqual, specs.OpNotEqual,
	}
)

// Arches, Actions and Operators are the values a profile may use, for the
// features command.
func Arches() []string {
	names := make([]string, len(arches))
	for i := range arches {
		names[i] = string(arches[i].Name)
	}
	return names
}

// Actions are the names of all actions.
func Actions() []string { return texts(actions) }

// Operators are the names of all argument comparisons.
func Operators() []string { return texts(operators) }

func texts[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i := range in {
		out[i] = string(in[i])
	}
	return out
}

func contains[T comparable](list []T, v T) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// errnoLimit is the largest value errnoRet may have with an action, -1 where it
// has no meaning: libseccomp takes errno values below MAX_ERRNO, and the message for
// a tracer to 16 bits.
func errnoLimit(a specs.LinuxSeccompAction) int {
	switch a {
	case specs.ActErrno:
		return 4094
	case specs.ActTrace:
		return 0xffff
	}
	return -1
}

// checker collects mistakes with their places.
type checker struct{ errs []error }

func (c *checker) add(field, format string, args ...any) {
	c.errs = append(c.errs, &FieldError{Pointer + field, fmt.Errorf(format, args...)})
}

// Check reports every mistake in the profile, as joined *FieldErrors.
func Check(p *specs.LinuxSeccomp) error {
	var c checker
	c.action("/defaultAction", p.DefaultAction)
	c.errnoRet("/defaultErrnoRet", p.DefaultAction, p.DefaultErrnoRet)
	if p.DefaultAction == specs.ActNotify {
		// The very next call of the container's init would wait for an answer
		// that needs the descriptor it is about to hand over.
		c.add("/defaultAction", "SCMP_ACT_NOTIFY cannot be the default: use it for single system calls")
	}
	for i, name := range p.Architectures {
		if _, ok := LookupArch(name); !ok {
			c.add(fmt.Sprintf("/architectures/%d", i), "unknown architecture %q", name)
		}
	}
	for i, name := range p.Flags {
		if flagBit(name) == 0 {
			c.add(fmt.Sprintf("/flags/%d", i), "unknown flag %q", name)
		}
	}
	notify := false
	for i := range p.Syscalls {
		c.rule("/syscalls/"+strconv.Itoa(i), &p.Syscalls[i])
		notify = notify || p.Syscalls[i].Action == specs.ActNotify
	}
	c.listener(p, notify)
	return errors.Join(c.errs...)
}

func (c *checker) listener(p *specs.LinuxSeccomp, notify bool) {
	switch {
	case p.ListenerPath != "" && p.ListenerPath[0] != '/':
		c.add("/listenerPath", "%q is not absolute: what it means would depend on where husk is called", p.ListenerPath)
	case p.ListenerPath != "":
	case p.ListenerMetadata != "":
		c.add("/listenerMetadata", "has no meaning without listenerPath")
	case notify:
		c.add("/listenerPath", "SCMP_ACT_NOTIFY needs somebody to answer: set the path of its socket")
	}
}

func (c *checker) action(field string, a specs.LinuxSeccompAction) {
	if a == "" {
		c.add(field, "is missing")
	} else if !contains(actions, a) {
		c.add(field, "unknown action %q", a)
	}
}

func (c *checker) errnoRet(field string, a specs.LinuxSeccompAction, ret *uint) {
	if ret == nil || !contains(actions, a) {
		return
	}
	if limit := errnoLimit(a); limit < 0 {
		c.add(field, "%s returns no errno: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take a value", a)
	} else if *ret > uint(limit) {
		c.add(field, "%d is above %d, the largest value %s can return", *ret, limit, a)
	}
}

func (c *checker) rule(field string, r *specs.LinuxSyscall) {
	c.action(field+"/action", r.Action)
	c.errnoRet(field+"/errnoRet", r.Action, r.ErrnoRet)
	if len(r.Names) == 0 {
		c.add(field+"/names", "needs at least one system call")
	}
	for i, name := range r.Names {
		c.name(fmt.Sprintf("%s/names/%d", field, i), name, r.Action)
	}
	for i, arg := range r.Args {
		if arg.Index > 5 {
			c.add(fmt.Sprintf("%s/args/%d/index", field, i), "is %d: a system call has arguments 0 to 5", arg.Index)
		}
		if !contains(operators, arg.Op) {
			c.add(fmt.Sprintf("%s/args/%d/op", field, i), "unknown comparison %q", arg.Op)
		}
	}
}

func (c *checker) name(field, name string, a specs.LinuxSeccompAction) {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			c.add(field, "%q is not the name of a system call", name)
			return
		}
	}
	switch {
	case name == "":
		c.add(field, "is empty")
	case name == "write" && a == specs.ActNotify:
		// The init writes to its parent that the listener exists.
		c.add(field, "write cannot be SCMP_ACT_NOTIFY: the listener could never be handed over")
	}
}
