package systemd

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Unit is where a container lives: a scope, which takes processes, or a slice, which
// does not.
type Unit struct {
	Slice string // the slice that it is in: "system.slice"
	Name  string // "husk-c1.scope"
	User  bool   // of the user's manager
}

// String is the unit's name.
func (u Unit) String() string { return u.Name }

// IsSlice says that the unit takes no processes: whoever asks for it moves them there,
// or below, through cgroup.procs.
func (u Unit) IsSlice() bool { return strings.HasSuffix(u.Name, slice) }

const slice, scope, rootSlice = ".slice", ".scope", "-.slice"

// maxName is systemd's limit, which is that of file names too.
const maxName = unix.NAME_MAX

// Parse takes the unit from cgroupsPath, "slice:prefix:name". That is prefix-name.scope;
// a name that ends in ".slice" is taken as it is. An empty slice is system.slice, or
// user.slice for the user's manager; an empty cgroupsPath is ":husk:ID".
func Parse(cgroupsPath, id string, user bool) (Unit, error) {
	if cgroupsPath == "" {
		cgroupsPath = ":husk:" + id
	}
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 || strings.Contains(cgroupsPath, "/") {
		return Unit{}, fmt.Errorf(`expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got %q instead; `+
			`write for example "system.slice:husk:%s", or do without systemd's cgroups`, cgroupsPath, id)
	}
	u := Unit{Slice: parts[0], User: user}
	err := u.parse(parts[1], parts[2])
	if err != nil {
		return Unit{}, fmt.Errorf("cgroupsPath %q: %w", cgroupsPath, err)
	}
	return u, nil
}

func (u *Unit) parse(prefix, name string) error {
	if name == "" {
		return errors.New(`the name is empty; write "slice:prefix:name"`)
	}
	if strings.HasSuffix(name, slice) {
		return u.parseSlice(name)
	}
	switch {
	case u.Slice != "":
	case u.User:
		u.Slice = "user.slice"
	default:
		u.Slice = "system.slice"
	}
	if err := checkSlice(u.Slice); err != nil {
		return err
	}
	u.Name = escapeName(prefix+"-"+name) + scope
	if len(u.Name) > maxName {
		return fmt.Errorf("the unit's name would have %d bytes, at most %d are allowed; choose a shorter name: %w",
			len(u.Name), maxName, unix.ENAMETOOLONG)
	}
	return nil
}

// parseSlice: where a slice is follows from its name.
func (u *Unit) parseSlice(name string) error {
	if err := checkSlice(name); err != nil {
		return err
	}
	if name == rootSlice {
		return fmt.Errorf("%q is the root of all cgroups, which can be neither limited nor removed; name a slice below it", name)
	}
	parent := rootSlice
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		parent = name[:i] + slice
	}
	if u.Slice != "" && u.Slice != parent {
		return fmt.Errorf("%s is not in %s, its name puts it in %s; leave the slice before the first colon empty", name, u.Slice, parent)
	}
	u.Slice, u.Name = parent, name
	return nil
}

// checkSlice knows a valid slice: names of its ancestors joined by dashes, and no
// instance ("@"), which slices do not have.
func checkSlice(s string) error {
	const good = `; write for example "system.slice", or "a-b.slice" for a slice b in the slice a`
	stem, ok := strings.CutSuffix(s, slice)
	switch {
	case !ok:
		return fmt.Errorf(`%q is not a slice, it does not end in ".slice"%s`, s, good)
	case s == rootSlice:
		return nil
	case len(s) > maxName:
		return fmt.Errorf("the name of a slice has %d bytes, at most %d are allowed: %w", len(s), maxName, unix.ENAMETOOLONG)
	case strings.ContainsFunc(stem, func(r rune) bool { return !inName(r) }):
		return fmt.Errorf(`%q is not a slice, of signs only _ . \ and - are allowed%s`, s, good)
	}
	for part := range strings.SplitSeq(stem, "-") {
		if part == "" {
			return fmt.Errorf("%q is not a slice, there is nothing before, after or between dashes%s", s, good)
		}
	}
	return nil
}

// inName knows the characters of a unit's name (systemd.unit(5)); a colon is one too but
// cannot come from cgroupsPath.
func inName(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(`_.\-`, r)
}

// escapeName writes what a unit's name cannot have as \xhh, as systemd-escape does:
// the id of a container may have a "+".
func escapeName(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if inName(rune(s[i])) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		}
	}
	return b.String()
}

// object is the unit's path on the bus: all but letters and digits as _hh, a digit too
// if it is the first.
func (u Unit) object() string {
	var b strings.Builder
	b.WriteString(managerPath + "/unit/")
	for i := range len(u.Name) {
		c := u.Name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// iface is that of the properties of the unit's kind.
func (u Unit) iface() string {
	if u.IsSlice() {
		return managerName + ".Slice"
	}
	return managerName + ".Scope"
}

// cgroup is the unit's path below the manager's own root.
func (u Unit) cgroup() string {
	if u.IsSlice() {
		return expand(u.Name)
	}
	return expand(u.Slice) + "/" + escapeGroup(u.Name)
}

// expand is the path of a slice: a-b.slice is /a.slice/a-b.slice.
func expand(s string) string {
	if s == rootSlice {
		return ""
	}
	var path strings.Builder
	for i := range len(s) {
		if s[i] == '-' {
			path.WriteString("/" + escapeGroup(s[:i]+slice))
		}
	}
	return path.String() + "/" + escapeGroup(s)
}

// escapeGroup puts "_" before the name of a unit that could be taken for that of an
// interface file, as systemd does: cpu.slice. (Up to 252 it does so for cpu.x-1.scope
// only if all before the last dot is a controller; Start tells where the unit is.)
func escapeGroup(name string) string {
	stem, _, _ := strings.Cut(name, ".")
	if stem == "" || stem[0] == '_' || isController(stem) {
		return "_" + name
	}
	return name
}

// isController knows what systemd takes for a controller, and "cgroup".
func isController(word string) bool {
	switch word {
	case "cgroup", "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids",
		"bpf-firewall", "bpf-devices", "bpf-foreign", "bpf-socket-bind", "bpf-restrict-network-interfaces":
		return true
	}
	return false
}
