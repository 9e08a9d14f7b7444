// Package libseccomp compiles seccomp profiles with libseccomp. It needs cgo, so
// husk itself does not import it: see package seccomp.
package libseccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	scmp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/huskrun/husk/seccomp"
)

// Version is that of the libseccomp linked in.
func Version() string {
	major, minor, micro := scmp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// Compile compiles p. Mistakes in it are joined *seccomp.FieldErrors.
//
// The meaning of a profile where the specification leaves it open:
//   - the machine's own architecture is always filtered, listed or not;
//   - a rule that does what the default does is skipped;
//   - a rule naming one argument twice stands for one rule per condition, any of
//     which may match, since libseccomp tests an argument once;
//   - of the rules for a call the first one without args decides, and the others
//     have no effect, of which a warning or note tells; of several with args, any that
//     matches may decide, in their order if one of them tests several arguments;
//   - calls unknown to libseccomp are looked up in a table of our own (newer),
//     and skipped, which is told, if they are not there either;
//   - calls newer than all those the profile names return ENOSYS (see archStub).
func Compile(p *specs.LinuxSeccomp) (*seccomp.Filter, error) {
	if err := seccomp.Check(p); err != nil {
		return nil, err
	}
	c := compiler{profile: p, def: action(p.DefaultAction, p.DefaultErrnoRet)}
	if err := c.start(); err != nil {
		return nil, err
	}
	defer c.filter.Release()
	calls := c.collect()
	if err := tooMany(calls); err != nil {
		return nil, errors.Join(append(c.errs, err)...)
	}
	for _, k := range calls {
		c.add(k)
	}
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	return c.finish()
}

// compiler is one compilation.
type compiler struct {
	profile  *specs.LinuxSeccomp
	def      scmp.ScmpAction
	filter   *scmp.ScmpFilter
	arches   []archStub // native first
	warnings []string   // of what would have been stricter
	notes    []string   // of the rest
	errs     []error
}

func (c *compiler) fail(field string, err error) {
	c.errs = append(c.errs, &seccomp.FieldError{Field: seccomp.Pointer + field, Err: err})
}

// idle tells of a rule with an action that has no effect, since another one decides.
func (c *compiler) idle(a, decides scmp.ScmpAction, field, format string, args ...any) {
	text := seccomp.Pointer + field + ": " + fmt.Sprintf(format, args...)
	if strictness(a) > strictness(decides) {
		c.warnings = append(c.warnings, text)
	} else {
		c.notes = append(c.notes, text)
	}
}

// strictness orders actions as the kernel does where several filters answer.
func strictness(a scmp.ScmpAction) int {
	return -int(int32(ret(a) & 0xffff0000))
}

// start makes the empty filter with its architectures.
func (c *compiler) start() (err error) {
	if c.filter, err = scmp.NewFilter(c.def); err != nil {
		return fmt.Errorf("libseccomp %s: %w", Version(), err)
	}
	// A tree over the call numbers. What libseccomp (2.5.4 at least) makes otherwise answers
	// wrongly for some arguments, which fuzzing found.
	if err := c.filter.SetOptimize(2); err != nil {
		return fmt.Errorf("libseccomp %s: %w", Version(), err)
	}
	native, err := scmp.GetNativeArch()
	if err != nil {
		return fmt.Errorf("libseccomp %s: %w", Version(), err)
	}
	c.addArch(native)
	for i, name := range c.profile.Architectures {
		arch, err := token(name)
		if err == nil {
			err = c.filter.AddArch(arch)
		}
		if errors.Is(err, syscall.EDOM) {
			err = fmt.Errorf("%s has another byte order than this machine", name)
		}
		if err != nil {
			c.fail("/architectures/"+strconv.Itoa(i), err)
			continue
		}
		c.addArch(arch)
	}
	return errors.Join(c.errs...)
}

func (c *compiler) addArch(arch scmp.ScmpArch) {
	for i := range c.arches {
		if c.arches[i].token == arch {
			return
		}
	}
	a, _ := seccomp.LookupArch(archName(arch))
	_, direct := number("socketcall", arch)
	c.arches = append(c.arches, archStub{token: arch, Arch: a, multiplexes: direct})
}

// call is a system call with its rules, in their order.
type call struct {
	name  string
	known bool // to libseccomp
	rules []rule
}

// rule is one way to match: all of args.
type rule struct {
	field string // of the name
	act   scmp.ScmpAction
	args  []specs.LinuxSeccompArg
}

// collect sorts the rules by calls, and drops those without effect.
func (c *compiler) collect() []*call {
	var calls []*call
	byName := make(map[string]*call)
	for i := range c.profile.Syscalls {
		r := &c.profile.Syscalls[i]
		for j, name := range r.Names {
			field := fmt.Sprintf("/syscalls/%d/names/%d", i, j)
			k := byName[name]
			if k == nil {
				k = &call{name: name}
				if !c.resolve(field, k, action(r.Action, r.ErrnoRet)) {
					continue
				}
				byName[name] = k
				calls = append(calls, k)
			}
			for _, args := range seccomp.Alternatives(r.Args) {
				k.rules = append(k.rules, rule{field, action(r.Action, r.ErrnoRet), args})
			}
		}
	}
	for _, k := range calls {
		c.simplify(k)
	}
	return calls
}

// resolve finds out whose call it is, and notes the newest call of every
// architecture.
func (c *compiler) resolve(field string, k *call, act scmp.ScmpAction) bool {
	_, err := scmp.GetSyscallFromName(k.name)
	k.known = err == nil
	nr, newer := newerCall(k.name)
	if lower := strings.ToLower(k.name); !k.known && !newer && lower != k.name {
		if _, err := scmp.GetSyscallFromName(lower); err == nil {
			c.fail(field, fmt.Errorf("there is no system call %q: did you mean %s?", k.name, lower))
			return false
		}
	}
	if !k.known && !newer {
		c.idle(act, c.def, field, "unknown system call %q is ignored", k.name)
		return false
	}
	for i := range c.arches {
		a := &c.arches[i]
		if k.known {
			n, _ := number(k.name, a.token)
			a.name(n)
		} else {
			a.mention(a.Base + nr)
		}
	}
	return true
}

// simplify leaves the rules that decide: the first one without args, which
// libseccomp lets win over all others, in silence; or else those that do not
// just repeat the default.
func (c *compiler) simplify(k *call) {
	kept := k.rules[:0:0]
	seen := map[string]bool{}
	for _, r := range k.rules {
		if len(r.args) == 0 && r.act != c.def {
			c.warnOverridden(k, r.act)
			k.rules = []rule{r}
			return
		}
		// A rule that is there twice takes libseccomp as long as any other.
		same := fmt.Sprint(r.act, r.args)
		if r.act != c.def && !seen[same] {
			kept = append(kept, r)
		}
		seen[same] = true
	}
	k.rules = kept
}

// tooMany refuses in time what libseccomp would work on for minutes: each rule that looks
// at arguments takes at least one instruction of its own.
func tooMany(calls []*call) error {
	n := 0
	for _, k := range calls {
		if n += len(k.rules); n > maxInstructions {
			return tooLarge("more than %d", maxInstructions)
		}
	}
	return nil
}

const maxInstructions = 4096 // BPF_MAXINSNS

func tooLarge(format string, n int) error {
	return &seccomp.FieldError{
		Field: seccomp.Pointer + "/syscalls",
		Err:   fmt.Errorf("the profile compiles to "+format+" instructions, the kernel accepts %d", n, maxInstructions),
	}
}

func (c *compiler) warnOverridden(k *call, by scmp.ScmpAction) {
	for _, r := range k.rules {
		if r.act != by {
			c.idle(r.act, by, r.field, "%s: this has no effect, another rule without args decides", k.name)
		}
	}
}

// intricate calls are those that libseccomp gets wrong (see archStub).
func (k *call) intricate() bool {
	for _, r := range k.rules {
		if len(r.args) > 1 && len(k.rules) > 1 {
			return true
		}
	}
	return false
}

// add puts the call's rules into the prologue or libseccomp's filter, or, if it
// is intricate and some architecture hides it behind another call, into both.
func (c *compiler) add(k *call) {
	if len(k.rules) == 0 {
		return
	}
	if k.known && !k.intricate() {
		c.addToFilter(k)
		return
	}
	hidden := false
	for i := range c.arches {
		a := &c.arches[i]
		nr, ok := newerCall(k.name)
		nr += a.Base
		if k.known {
			var n int
			n, ok = number(k.name, a.token)
			hidden = hidden || a.hides(n)
			nr = uint32(n)
		}
		if ok {
			a.own = append(a.own, ownCall{nr, ownRules(k.rules), ret(c.def)})
		}
	}
	if hidden {
		c.addToFilter(k)
	}
}

func ownRules(rules []rule) (out []ownRule) {
	for _, r := range rules {
		out = append(out, ownRule{r.args, ret(r.act)})
	}
	return out
}

func (c *compiler) addToFilter(k *call) {
	n, _ := scmp.GetSyscallFromName(k.name)
	for _, r := range k.rules {
		err := c.filter.AddRuleConditional(n, r.act, conditions(r.args))
		if errors.Is(err, syscall.EEXIST) {
			err = errors.New("an earlier rule does something else for the same arguments")
		}
		if err != nil {
			c.fail(r.field, fmt.Errorf("%s: %w", k.name, err))
		}
	}
}

func conditions(args []specs.LinuxSeccompArg) (out []scmp.ScmpCondition) {
	for _, a := range args {
		out = append(out, scmp.ScmpCondition{Argument: a.Index, Op: operator(a.Op), Operand1: a.Value, Operand2: a.ValueTwo})
	}
	return out
}

// number is libseccomp's for a call, and whether the architecture has it under
// that number.
func number(name string, arch scmp.ScmpArch) (int, bool) {
	n, err := scmp.GetSyscallFromNameByArch(name, arch)
	if err != nil {
		return -1 << 31, false
	}
	return int(n), n >= 0
}

// finish generates the program.
func (c *compiler) finish() (*seccomp.Filter, error) {
	bpf, err := c.export()
	if err != nil {
		return nil, fmt.Errorf("libseccomp %s: %w", Version(), err)
	}
	prog := inRanges(append(prologue(c.arches, c.enosys()), bpf...))
	if len(prog) > maxInstructions {
		return nil, tooLarge("%d", len(prog))
	}
	return &seccomp.Filter{
		BPF:              unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), len(prog)*unix.SizeofSockFilter),
		Flags:            seccomp.InstallFlags(c.profile),
		ListenerPath:     c.profile.ListenerPath,
		ListenerMetadata: c.profile.ListenerMetadata,
		Warnings:         c.warnings,
		Notes:            c.notes,
	}, nil
}

// export goes through a file: in memory needs libseccomp 2.6.
func (c *compiler) export() ([]unix.SockFilter, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "filter")
	defer f.Close()
	if err := c.filter.ExportBPF(f); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err = b.ReadFrom(io.NewSectionReader(f, 0, math.MaxInt64)); err != nil {
		return nil, err
	}
	prog := make([]unix.SockFilter, b.Len()/unix.SizeofSockFilter)
	return prog, binary.Read(&b, binary.NativeEndian, prog)
}

// action translates an action that Check has accepted.
func action(a specs.LinuxSeccompAction, errnoRet *uint) scmp.ScmpAction {
	code := int16(syscall.EPERM)
	if errnoRet != nil {
		code = int16(*errnoRet)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return scmp.ActKillThread
	case specs.ActKillProcess:
		return scmp.ActKillProcess
	case specs.ActTrap:
		return scmp.ActTrap
	case specs.ActErrno:
		return scmp.ActErrno.SetReturnCode(code)
	case specs.ActTrace:
		return scmp.ActTrace.SetReturnCode(code)
	case specs.ActAllow:
		return scmp.ActAllow
	case specs.ActLog:
		return scmp.ActLog
	case specs.ActNotify:
		return scmp.ActNotify
	}
	return scmp.ActInvalid
}

// ret is the filter's return value for an action.
func ret(a scmp.ScmpAction) uint32 {
	code := uint32(uint16(a.GetReturnCode()))
	switch a & 0xffff {
	case scmp.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS
	case scmp.ActTrap:
		return unix.SECCOMP_RET_TRAP
	case scmp.ActErrno:
		return unix.SECCOMP_RET_ERRNO | code
	case scmp.ActTrace:
		return unix.SECCOMP_RET_TRACE | code
	case scmp.ActAllow:
		return unix.SECCOMP_RET_ALLOW
	case scmp.ActLog:
		return unix.SECCOMP_RET_LOG
	case scmp.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF
	}
	return unix.SECCOMP_RET_KILL_THREAD
}

func operator(op specs.LinuxSeccompOperator) scmp.ScmpCompareOp {
	switch op {
	case specs.OpNotEqual:
		return scmp.CompareNotEqual
	case specs.OpLessThan:
		return scmp.CompareLess
	case specs.OpLessEqual:
		return scmp.CompareLessOrEqual
	case specs.OpEqualTo:
		return scmp.CompareEqual
	case specs.OpGreaterEqual:
		return scmp.CompareGreaterEqual
	case specs.OpGreaterThan:
		return scmp.CompareGreater
	case specs.OpMaskedEqual:
		return scmp.CompareMaskedEqual
	}
	return scmp.CompareInvalid
}

// token is libseccomp's name for an architecture: the same word in small letters.
func token(name specs.Arch) (scmp.ScmpArch, error) {
	return scmp.GetArchFromString(strings.TrimPrefix(string(name), "SCMP_ARCH_"))
}

func archName(arch scmp.ScmpArch) specs.Arch {
	for _, name := range seccomp.Arches() {
		if t, err := token(specs.Arch(name)); err == nil && t == arch {
			return specs.Arch(name)
		}
	}
	return ""
}
