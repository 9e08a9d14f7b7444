package cgroups

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// anyNumber is the wildcard for major and minor.
const anyNumber = -1

// rule is one device rule, checked and free of pointers.
type rule struct {
	allow        bool
	kind         byte // a, b, c
	major, minor int64
	access       uint32 // of accMknod, accRead, accWrite
}

const accAll = accMknod | accRead | accWrite

// defaults come after the rules of the configuration: a container without them
// is broken, and each of them is harmless. Making a node is not access to the
// device. /dev/console (5:1) is not among them: the container's console is a
// pty, and 5:1 is the host's.
var defaults = [...]rule{
	{true, 'a', anyNumber, anyNumber, accMknod},
	{true, 'c', 1, 3, accAll},           // null
	{true, 'c', 1, 5, accAll},           // zero
	{true, 'c', 1, 7, accAll},           // full
	{true, 'c', 1, 8, accAll},           // random
	{true, 'c', 1, 9, accAll},           // urandom
	{true, 'c', 5, 0, accAll},           // tty
	{true, 'c', 5, 2, accAll},           // ptmx
	{true, 'c', 136, anyNumber, accAll}, // pts
	{true, 'c', 10, 200, accAll},        // net/tun
}

// Program is a compiled list of device rules.
type Program struct {
	rules []rule
	code  []instruction
}

// CompileDevices translates device rules, with husk's defaults after them.
//
// Rules are read per kind of access (read, write, mknod): for each, the last
// rule that names the device and the access decides, and a request is granted
// if every access it asks for is. So a rule allows what it covers wholly and
// denies whatever it touches: after "allow all, deny w" an open for reading and
// writing is refused, although "rw" is not within "w" (runc and crun let it
// pass); and "allow r, allow w" grants it. What no rule names is denied.
func CompileDevices(rules []specs.LinuxDeviceCgroup) (Program, error) {
	var p Program
	var errs []error
	for i := range rules {
		r, err := parseRule(&rules[i], pointer+"devices/"+strconv.Itoa(i))
		errs = append(errs, err)
		p.rules = append(p.rules, r)
	}
	if err := errors.Join(errs...); err != nil {
		return Program{}, err
	}
	p.rules = append(p.rules, defaults[:]...)
	p.code = assemble(p.rules)
	return p, nil
}

func parseRule(d *specs.LinuxDeviceCgroup, field string) (rule, error) {
	r := rule{allow: d.Allow, kind: 'a'}
	var errs []error
	fail := func(name, format string, args ...any) {
		errs = append(errs, &FieldError{Field: field + "/" + name, Err: fmt.Errorf(format, args...)})
	}
	switch d.Type {
	case "", "a":
	case "b", "c":
		r.kind = d.Type[0]
	default:
		fail("type", `%q is not a type of device; write "a" for all, "b" for block or "c" for character devices`, d.Type)
	}
	var ok bool
	if r.major, ok = number(d.Major, 32-minorBits); !ok {
		fail("major", "%d is not a major number; write 0 to 4095, or leave it out for all", *d.Major)
	}
	if r.minor, ok = number(d.Minor, minorBits); !ok {
		fail("minor", "%d is not a minor number; write 0 to 1048575, or leave it out for all", *d.Minor)
	}
	if r.access, ok = access(d); !ok {
		fail("access", `%q is not an access; write some of "rwm" (read, write, mknod)`, d.Access)
	}
	return r, errors.Join(errs...)
}

func number(n *int64, bits int) (int64, bool) {
	if n == nil || *n == -1 {
		return anyNumber, true
	}
	return *n, *n >= 0 && *n < 1<<bits
}

// access of a rule that denies may be left out: it then denies everything.
func access(d *specs.LinuxDeviceCgroup) (bits uint32, ok bool) {
	if d.Access == "" {
		return accAll, !d.Allow
	}
	for _, c := range d.Access {
		switch c {
		case 'r':
			bits |= accRead
		case 'w':
			bits |= accWrite
		case 'm':
			bits |= accMknod
		default:
			return 0, false
		}
	}
	return bits, true
}

// total says that the rule decides every request.
func (r rule) total() bool {
	return r.kind == 'a' && r.major == anyNumber && r.minor == anyNumber && r.access == accAll
}

// String gives the rules in the words of cgroup v1's devices.list, in order:
// "deny a *:* rwm; allow c 1:3 rwm".
func (p Program) String() string {
	var b strings.Builder
	for i, r := range p.rules {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(r.String())
	}
	return b.String()
}

func (r rule) String() string {
	verb := "deny"
	if r.allow {
		verb = "allow"
	}
	acc := ""
	for _, a := range [...]struct {
		bit  uint32
		name string
	}{{accRead, "r"}, {accWrite, "w"}, {accMknod, "m"}} {
		if r.access&a.bit != 0 {
			acc += a.name
		}
	}
	return fmt.Sprintf("%s %c %s:%s %s", verb, r.kind, star(r.major), star(r.minor), acc)
}

func star(n int64) string {
	if n == anyNumber {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// AllowsAll says that the program denies nothing.
func (p Program) AllowsAll() bool {
	for i := len(p.rules) - 1; i >= 0; i-- {
		if !p.rules[i].allow {
			return false
		}
		if p.rules[i].total() {
			return true
		}
	}
	return false
}

// AttachDevices puts p in force, in place of the program that is attached: the
// exchange is atomic and programs never stack up (64 are the kernel's limit,
// and stacked programs only ever deny more). A program that denies nothing may
// fail to load where none is attached; the caller decides what another failure
// means in a user namespace, where loading is not permitted.
func (g *Group) AttachDevices(p Program) error {
	err := g.attachDevices(p)
	if err != nil && p.AllowsAll() && !errors.Is(err, unix.EBADF) && !g.hasPrograms() {
		return nil
	}
	return err
}

func (g *Group) hasPrograms() bool {
	ids, err := queryPrograms(g.fd)
	return err == nil && len(ids) > 0
}

// load has the kernel verify the program.
func (p Program) load() (fd int, err error) {
	prog, err := loadProgram(p.code)
	if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.E2BIG) {
		// What the verifier says of more than 8192 branches in a row, or too many steps.
		return -1, &FieldError{Field: pointer + "devices", Err: fmt.Errorf(
			"%d rules are too many for the kernel, which takes a few thousand; merge some by a wildcard: %w", len(p.rules)-len(defaults), err)}
	}
	if err != nil {
		return -1, &FieldError{Field: pointer + "devices", Err: fmt.Errorf("load device program of %d instructions: %w", len(p.code), err)}
	}
	return prog, nil
}

// Check has the kernel verify the program without putting it in force, so that its refusal
// is known before anything is changed.
func (p Program) Check() error {
	fd, err := p.load()
	if err == nil {
		kernfs.Close(fd)
	}
	return err
}

func (g *Group) attachDevices(p Program) error {
	prog, err := p.load()
	if err != nil {
		return err
	}
	defer kernfs.Close(prog)
	old, err := queryPrograms(g.fd)
	if err == nil {
		err = replacePrograms(g.fd, prog, old)
	}
	if err != nil {
		return &FieldError{Field: pointer + "devices", Err: fmt.Errorf("attach device program to cgroup %s: %w", g.path, err)}
	}
	return nil
}

// replacePrograms attaches prog in place of the first of old and takes the
// others away after that, so that there is no moment without a program.
func replacePrograms(group, prog int, old []uint32) error {
	replace := -1
	if len(old) > 0 {
		fd, err := programByID(old[0])
		if err != nil && !kernfs.Gone(err) {
			return err
		}
		if err == nil {
			replace = fd
			defer kernfs.Close(fd)
		}
	}
	if err := attachProgram(group, prog, replace); err != nil {
		return err
	}
	if len(old) > 1 {
		return detachPrograms(group, old[1:])
	}
	return nil
}

// detachDevices takes all device programs off a group that is not ours to remove.
func (g *Group) detachDevices() error {
	old, err := queryPrograms(g.fd)
	if err != nil || len(old) == 0 {
		return nil // without the permission to look there was none to attach
	}
	return detachPrograms(g.fd, old)
}

func detachPrograms(group int, ids []uint32) error {
	for _, id := range ids {
		fd, err := programByID(id)
		if kernfs.Gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = detachProgram(group, fd)
		kernfs.Close(fd)
		if err != nil && !kernfs.Gone(err) {
			return err
		}
	}
	return nil
}
