package runtime

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/huskrun/husk/rootfs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Problem is one mistake in config.json.
type Problem struct {
	Field   string // JSON pointer, "" for the file as a whole
	Text    string // what is wrong
	Instead string // what to write instead
}

// String says it in one line.
func (p Problem) String() string {
	field := p.Field
	if field == "" {
		field = "config.json"
	}
	return field + ": " + p.Text + "; " + p.Instead
}

// Problems is the error that lists every mistake in config.json.
type Problems struct{ List []Problem }

// Error has one line per problem.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i := range p.List {
		lines[i] = p.List[i].String()
	}
	return strings.Join(lines, "\n")
}

// add keeps the report to a line per problem, whatever the pointer is made of.
func (p *Problems) add(field, text, instead string) {
	field = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '\ufffd'
		}
		return r
	}, shorten(field))
	p.List = append(p.List, Problem{field, text, instead})
}

func (p *Problems) orNil() error {
	if len(p.List) == 0 {
		return nil
	}
	return p
}

// Validate reports everything that is wrong with the values of c as one *Problems,
// before anything is touched. Warnings are what the specification wants said without
// failing. What only a leaf package understands (mount options, the conversion of
// resources, system call filters) is reported by the compilation that follows.
func Validate(c *Config) (warnings []Problem, err error) {
	v := &validator{Spec: c.Spec, linux: c.Spec.Linux}
	if v.linux == nil {
		v.linux = &specs.Linux{}
	}
	v.top()
	v.root(c.Bundle)
	if c.Spec.Process != nil {
		v.process(c.Spec.Process)
	}
	v.mounts()
	v.hooks()
	v.namespaces()
	v.mappings()
	v.sysctls()
	v.devices()
	v.paths()
	v.mountLabel()
	v.resources()
	v.timeOffsets()
	v.netDevices()
	v.interfaces(c.noNet)
	v.rest()
	return v.warnings.List, v.problems.orNil()
}

type validator struct {
	*specs.Spec
	linux              *specs.Linux
	problems, warnings Problems
}

func (v *validator) bad(field, text, instead string)  { v.problems.add(field, text, instead) }
func (v *validator) warn(field, text, instead string) { v.warnings.add(field, text, instead) }

// item is the JSON pointer of an array's element, or of something in it.
func item(base string, i int, rest ...string) string {
	return pointer(base, append([]string{strconv.Itoa(i)}, rest...)...)
}

func quote(s string) string { return strconv.Quote(shorten(s)) }

// oneOf reports value, which may be any string type, unless it is in the list.
func oneOf[T ~string](v *validator, field string, value T, what string, list ...T) {
	if slices.Contains(list, value) {
		return
	}
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = string(w)
	}
	v.bad(field, quote(string(value))+" is not "+what, "use one of "+strings.Join(words, ", "))
}

func (v *validator) absolute(field, path string) {
	if path == "" {
		v.bad(field, "is missing", "write an absolute path")
	} else if path[0] != '/' {
		v.bad(field, quote(path)+" is relative", "write an absolute path")
	}
}

// top checks the members outside of process and linux.
func (v *validator) top() {
	if v.Version == "" {
		v.bad("/ociVersion", "is missing", "write the version of the specification, as in "+quote(specs.Version))
	} else if !isVersion1(v.Version) {
		v.bad("/ociVersion", quote(v.Version)+" is not a version 1 of the specification", "write 1.MINOR.PATCH, as in "+quote(specs.Version))
	}
	v.name("/hostname", v.Hostname)
	v.name("/domainname", v.Domainname)
	if _, ok := v.Annotations[""]; ok {
		v.bad("/annotations", "has an entry without a name", "name it in reverse domain notation, as in \"com.example.key\"")
	}
	if value, ok := v.Annotations[AnnotationUmask]; ok && value != "inherit" {
		v.bad(pointer("/annotations", AnnotationUmask), quote(value)+" is not a way to get the umask", "write \"inherit\", or set /process/user/umask")
	}
	v.init()
	v.landlock()
}

// init: the init that stays has more rights than the process, and no filter. Nobody may
// trace it but who has the capability for that.
func (v *validator) init() {
	value, ok := v.Annotations[AnnotationInit]
	field := pointer("/annotations", AnnotationInit)
	if ok && value != "true" {
		v.bad(field, quote(value)+" is not a way to get an init", "write \"true\", or leave it out")
	}
	if !ok || v.Process == nil || v.Process.Capabilities == nil {
		return
	}
	c := v.Process.Capabilities
	if capMask(slices.Concat(c.Bounding, c.Permitted, c.Inheritable))&(1<<unix.CAP_SYS_PTRACE) != 0 {
		v.bad(field, "keeps an init that a process with CAP_SYS_PTRACE could take over", "leave out one of the two; tracing one's own processes needs no capability")
	}
}

// root looks at the directory early, for the sake of the message.
func (v *validator) root(bundle string) {
	if v.Root == nil || v.Root.Path == "" {
		v.bad("/root/path", "is missing", "write the path of the directory that becomes /")
		return
	}
	path := v.Root.Path
	if path[0] != '/' {
		path = filepath.Join(bundle, path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == unix.ENOENT {
		v.bad("/root/path", quote(path)+" does not exist", "write the path of a directory, relative to the bundle or absolute")
	} else if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		v.bad("/root/path", quote(path)+" is not a directory", "write the path of a directory, relative to the bundle or absolute")
	}
}

// isVersion1 tells whether s is a semantic version (semver.org) with major number 1.
func isVersion1(s string) bool {
	s, build, hasBuild := strings.Cut(s, "+")
	s, pre, hasPre := strings.Cut(s, "-")
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != "1" {
		return false
	}
	for _, part := range parts[1:] {
		if part == "" || strings.Trim(part, "0123456789") != "" || len(part) > 1 && part[0] == '0' {
			return false
		}
	}
	return (!hasBuild || isDotted(build)) && (!hasPre || isDotted(pre))
}

func isDotted(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" || strings.Trim(word, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return false
		}
	}
	return true
}

// name checks hostname and domainname, both of __NEW_UTS_LEN bytes at most.
func (v *validator) name(field, name string) {
	if name == "" {
		return
	}
	if !v.separate(specs.UTSNamespace) {
		v.bad(field, "would rename the host", "add {\"type\": \"uts\"} to /linux/namespaces")
	}
	if len(name) > 64 {
		v.bad(field, fmt.Sprintf("has %d bytes", len(name)), "write at most 64")
	}
}

func (v *validator) process(p *specs.Process) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		v.bad("/process/args/0", "is missing", "write the program to run, as in \"sh\"")
	}
	v.absolute("/process/cwd", p.Cwd)
	v.env("/process/env", p.Env)
	v.user(&p.User)
	if p.Capabilities != nil {
		v.capabilities(p.Capabilities)
	}
	v.rlimits(p.Rlimits)
	if p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000) {
		v.bad("/process/oomScoreAdj", fmt.Sprintf("is %d", *p.OOMScoreAdj), "write a number from -1000 to 1000")
	}
	if b := p.ConsoleSize; p.Terminal && b != nil && max(b.Height, b.Width) > math.MaxUint16 {
		v.bad("/process/consoleSize", fmt.Sprintf("is %d lines of %d columns", b.Height, b.Width), "write at most 65535 each")
	}
	v.labels(p)
	if p.Scheduler != nil {
		v.scheduler(p.Scheduler)
	}
	if p.IOPriority != nil {
		v.ioPriority(p.IOPriority)
	}
	if p.ExecCPUAffinity != nil {
		v.numberList("/process/execCPUAffinity/initial", p.ExecCPUAffinity.Initial)
		v.numberList("/process/execCPUAffinity/final", p.ExecCPUAffinity.Final)
	}
}

// env is strict because engines have been tricked by entries without "=", which some
// of them fill in from their own environment.
func (v *validator) env(field string, env []string) {
	for i, kv := range env {
		if strings.IndexByte(kv, '=') <= 0 {
			v.bad(item(field, i), quote(kv)+" is not a variable", "write NAME=value")
		}
	}
}

// maxGroups is NGROUPS_MAX, what setgroups(2) takes.
const maxGroups = 65536

func (v *validator) user(u *specs.User) {
	const field = "/process/user"
	v.id(field+"/uid", u.UID, "/linux/uidMappings", v.linux.UIDMappings)
	v.id(field+"/gid", u.GID, "/linux/gidMappings", v.linux.GIDMappings)
	if len(u.AdditionalGids) > maxGroups {
		v.bad(field+"/additionalGids", fmt.Sprintf("has %d groups", len(u.AdditionalGids)), fmt.Sprintf("write at most %d", maxGroups))
	}
	for i, gid := range u.AdditionalGids {
		if gid == noID || !v.mapped(gid, v.linux.GIDMappings) {
			v.id(item(field+"/additionalGids", i), gid, "/linux/gidMappings", v.linux.GIDMappings)
		}
	}
	if u.Umask != nil && *u.Umask > 0o777 {
		v.bad(field+"/umask", fmt.Sprintf("is %d", *u.Umask), "write the decimal of an octal mask up to 0777, as in 18 for 022")
	}
}

// noID means "leave it" to setuid's relatives, so a process cannot be given it.
const noID = math.MaxUint32

func (v *validator) id(field string, id uint32, where string, maps []specs.LinuxIDMapping) {
	if id == noID {
		v.bad(field, "4294967295 is not an id", "write a number up to 4294967294")
	} else if !v.mapped(id, maps) {
		v.bad(field, fmt.Sprintf("%d is not mapped into the user namespace", id), "add it to "+where)
	}
}

// mapped is about new user namespaces. Those that are joined have maps of their own,
// and without any map the process stays the overflow id.
func (v *validator) mapped(id uint32, maps []specs.LinuxIDMapping) bool {
	if len(maps) == 0 || !v.isNew(specs.UserNamespace) {
		return true
	}
	return slices.ContainsFunc(maps, func(m specs.LinuxIDMapping) bool {
		return id >= m.ContainerID && id-m.ContainerID < m.Size
	})
}

// capabilities only warns: the specification wants a process that gets less than it
// asked for rather than none.
func (v *validator) capabilities(c *specs.LinuxCapabilities) {
	const field = "/process/capabilities"
	v.capabilitySet(field+"/bounding", c.Bounding)
	v.capabilitySet(field+"/effective", c.Effective)
	v.capabilitySet(field+"/inheritable", c.Inheritable)
	v.capabilitySet(field+"/permitted", c.Permitted)
	v.capabilitySet(field+"/ambient", c.Ambient)
	permitted := capMask(c.Permitted)
	v.ungranted(field+"/effective", c.Effective, permitted, "permitted")
	v.ungranted(field+"/ambient", c.Ambient, permitted, "permitted")
	v.ungranted(field+"/ambient", c.Ambient, capMask(c.Inheritable), "inheritable")
}

func (v *validator) capabilitySet(field string, names []string) {
	for i, name := range names {
		if _, ok := capNumber(name); !ok {
			v.warn(item(field, i), quote(name)+" is not a capability and is left out", "write it as in \"CAP_NET_RAW\"")
		}
	}
}

func (v *validator) ungranted(field string, names []string, mask int64, set string) {
	for i, name := range names {
		if n, ok := capNumber(name); ok && mask&(1<<n) == 0 {
			v.warn(item(field, i), name+" is not in "+set+" and is left out", "add it to /process/capabilities/"+set)
		}
	}
}

func (v *validator) rlimits(list []specs.POSIXRlimit) {
	const field = "/process/rlimits"
	for i, r := range list {
		if rlimitResource(r.Type) < 0 {
			v.bad(item(field, i, "type"), quote(r.Type)+" is not a resource limit", "use one of "+rlimitNames())
		}
		for j := range i {
			if list[j].Type == r.Type {
				v.bad(item(field, i, "type"), r.Type+" is already given by "+item(field, j), "keep one of them")
				break
			}
		}
		if r.Soft > r.Hard {
			v.bad(item(field, i, "soft"), fmt.Sprintf("%d is above the hard limit %d", r.Soft, r.Hard), "lower soft or raise hard")
		}
	}
}

func rlimitNames() string {
	names := make([]string, len(rlimits))
	for i := range rlimits {
		names[i] = rlimits[i].name
	}
	return strings.Join(names, ", ")
}

func (v *validator) hooks() {
	h := hooksOf(v.Spec)
	v.hookList("/hooks/prestart", h.Prestart)
	v.hookList("/hooks/createRuntime", h.CreateRuntime)
	v.hookList("/hooks/createContainer", h.CreateContainer)
	v.hookList("/hooks/startContainer", h.StartContainer)
	v.hookList("/hooks/poststart", h.Poststart)
	v.hookList("/hooks/poststop", h.Poststop)
}

func (v *validator) hookList(field string, hooks []specs.Hook) {
	for i := range hooks {
		h := &hooks[i]
		v.absolute(item(field, i, "path"), h.Path)
		v.env(item(field, i, "env"), h.Env)
		if h.Timeout != nil && *h.Timeout <= 0 {
			v.bad(item(field, i, "timeout"), fmt.Sprintf("is %d", *h.Timeout), "write seconds above 0, or leave it out for no limit")
		}
	}
}

func (v *validator) mounts() {
	for i := range v.Mounts {
		m := &v.Mounts[i]
		switch {
		case m.Destination == "":
			v.bad(item("/mounts", i, "destination"), "is missing", "write an absolute path in the container")
		case m.Destination[0] != '/':
			v.warn(item("/mounts", i, "destination"), quote(m.Destination)+" is relative, which is deprecated", "write "+quote("/"+m.Destination))
		}
		bind := slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		switch {
		case bind && m.Source == "":
			v.bad(item("/mounts", i, "source"), "is missing", "write the path to bind")
		case !bind && m.Type == "" && !slices.Contains(m.Options, "remount"):
			v.bad(item("/mounts", i, "type"), "is missing", "write a filesystem type, or add \"bind\" to the options")
		}
		for j, o := range m.Options {
			if bind && rootfs.IgnoredByBind(o) {
				v.warn(item("/mounts", i, "options", strconv.Itoa(j)), quote(o)+" means nothing for a bind mount and is left out", "remove it")
			}
		}
		v.mountMappings(i, m)
	}
}

func isIDMapped(m specs.Mount) bool {
	return slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")
}

func (v *validator) mountMappings(i int, m *specs.Mount) {
	if len(m.UIDMappings) == 0 && len(m.GIDMappings) == 0 {
		if isIDMapped(*m) && !v.has(specs.UserNamespace) {
			v.bad(item("/mounts", i, "options"), "asks for an id-mapped mount, but there is no user namespace whose mapping to take", "add uidMappings and gidMappings to the mount")
		}
		return
	}
	v.pair(item("/mounts", i, "uidMappings"), m.UIDMappings, item("/mounts", i, "gidMappings"), m.GIDMappings)
}

// rest checks what applies to no other group.
func (v *validator) rest() {
	l := v.linux
	if p := l.Personality; p != nil {
		oneOf(v, "/linux/personality/domain", p.Domain, "a personality", namesOf(domains)...)
		if len(p.Flags) > 0 {
			v.bad("/linux/personality/flags", "has flags, of which none are defined", "remove them")
		}
	}
	if l.IntelRdt != nil {
		v.rdt(l.IntelRdt)
	}
	if l.MemoryPolicy != nil {
		v.memoryPolicy(l.MemoryPolicy)
	}
}

// rdt keeps closID a single directory below /sys/fs/resctrl, and each schema a line. Only
// l3CacheSchema is merely advised to be one: with L3CODE and L3DATA it cannot.
func (v *validator) rdt(r *specs.LinuxIntelRdt) {
	const field = resctrl.Pointer
	if id := r.ClosID; id == "." || id == ".." || id != "/" && strings.ContainsAny(id, "/\n") || len(id) > unix.NAME_MAX {
		v.bad(field+"/closID", quote(id)+" is not the name of a directory", "write a name without /, or \"/\" for the root class")
	}
	if m := r.MemBwSchema; m != "" && (!strings.HasPrefix(m, "MB:") || strings.Contains(m, "\n")) {
		v.bad(field+"/memBwSchema", quote(m)+" is not one line that begins with MB:", "write it as in \"MB:0=20;1=70\"")
	}
	for i, s := range r.Schemata {
		if s == "" || strings.Contains(s, "\n") {
			v.bad(item(field+"/schemata", i), quote(s)+" is not one line", "put each line into an element of its own")
		}
	}
}
