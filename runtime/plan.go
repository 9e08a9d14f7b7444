package runtime

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/systemd"
	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Op says what a Step does. The steps up to opReady run at create, the later ones at start.
type Op uint8

const (
	opRootfs     Op = iota + 1 // Mount: a step of package rootfs
	opLoopback                 // bring lo up
	opHostname                 // Args: name
	opDomainname               // Args: name
	opKeyring                  // Args: name of the session keyring
	opSession                  // Nums: height and width of the terminal, 0: leave them
	opOutside                  // let the parent finish with network devices, and run prestart and createRuntime hooks
	opHook                     // Args: state, bundle ("" inside), path, args…, env…; Nums: timeout in seconds, len(args)
	opSysctl                   // Args: key, value
	opCwd                      // Args: directory, created if missing
	opHome                     // Nums: uid whose home directory becomes HOME
	opLookup                   // Args: program, value of PATH, working directory
	opTurn                     // let the parent open what is mounted next
	opVisit                    // enter the mount namespace that the container shares with others
	opReady                    // tell the parent; wait for start; Nums: the parent wants the scratch
	opNoProcess                // the config has no process: start fails
	opAffinity                 // Args: list; Nums: mask of CPUs; without: run on every CPU
	opScheduler                // Args: policy, flags…; Nums: policy, flags, nice, priority, runtime, deadline, period
	opIOPriority               // Args: class; Nums: class and priority
	opMempolicy                // Args: mode, nodes, flags…; Nums: mode with flags, mask of nodes
	opPersona                  // Args: domain; Nums: domain
	opLabel                    // Args: file below /proc/thread-self/attr, what is written there
	opRlimit                   // Args: name; Nums: resource, soft, hard
	opStdio                    // Nums: uid that shall own pipes on stdin, stdout, stderr
	opChdir                    // Args: directory, which only the user may be able to enter
	opChdirAgain               // Args: directory, unless opChdir got there
	opSeccomp                  // Args: filter, its listener's path and metadata; Nums: flags, key
	opBounding                 // Nums: capability mask to keep
	opUser                     // Nums: uid, gid, supplementary gids…
	opCaps                     // Nums: effective, permitted, inheritable masks
	opAmbient                  // Nums: mask
	opUmask                    // Nums: mask
	opNoNewPrivs               //
	opLandlock                 // Args: directories and files to which it may write
	opExec                     // Args: args…, env…; Nums: len(args)

	opInit // stay as the first process, and have a child that will execute; Nums: capabilities that this needs beyond the payload's

	// The steps of a process that joins a container with a PID namespace (exec.go).
	opProc     // take what comes along: a procfs, a pidfd of the container's init
	opTerminal // as opSession, but the session is the payload's to begin
	opLast     // enter the PID namespace with the process that will execute; Nums: it takes the terminal; a filter is there before it; the capabilities it needs beyond the payload's
)

// Step is one thing the container's init does, and the config field it comes from.
type Step struct {
	Op    Op
	Field string // JSON pointer
	Args  []string
	Nums  []int64
	Mount *rootfs.Step // of opRootfs
}

// Plan is everything that create does for a bundle, compiled from its config without
// touching anything: what the parent prepares, and the steps the init runs in order.
type Plan struct {
	Spawn   namespaces.Config // what to create; Joined holds the paths to join
	Joined  []Joined
	Visited *Joined       // mount namespace that the container shares although it has mounts of its own
	Cgroup  string        // path below the cgroup2 mount
	Unit    *systemd.Unit // that will have the cgroup, whose path systemd knows
	Groups  []string
	Limits  []cgroups.Limit
	Devices cgroups.Program
	Rdt     *specs.LinuxIntelRdt
	// Links are the network devices that are moved into the container, or made for it.
	Links    []Link
	Pasta    []string  // options of pasta(1), if that makes the interface
	Etc      []etcFile // of husk's that the container gets
	Notify   bool      // the process may tell that it is ready
	Steps    []Step
	Warnings []string

	config  *Config
	outside int   // hooks that the parent runs during create
	joining *Step // opSeccomp as it is for processes that join
	last    *Step // opLast or opInit, if the payload is not the process that prepares it
}

// Joined is a namespace to join by its path, and the field that says so.
type Joined struct {
	specs.LinuxNamespace
	Field string
}

// PlanOptions are the parts of a plan that the command line decides.
type PlanOptions struct {
	NoPivot      bool
	NoNewKeyring bool
	Cgroups      CgroupManager
	Unit         func(systemd.Unit) (cgroup string, err error) // asks systemd for the unit's cgroup; nil: unknown
	Inherit      int                                           // descriptors from 3 on that the process keeps
	Env          []string                                      // added to the process's environment (LISTEN_FDS)
	Filter       func(profile []byte) (*seccomp.Filter, error)
	Recording    *seccomp.Recording     // whose filter takes the place of the profile's
	Denials      *seccomp.Denials       // counts what the profile's filter denies; nil: nobody does
	Net          []string               // interfaces to make, see CreateOptions
	State        string                 // directory of what the container is given of husk's
	Resolver     func() (string, error) // resolv.conf of the host, for other network namespaces
	Notify       bool                   // somebody wants to know when the process is ready
	Scratch      bool                   // somebody wants what overlays write to
}

// AnnotationUmask, set to "inherit", leaves the caller's umask to a process whose
// config gives none, as the spec has it; otherwise such a process gets 0022.
const AnnotationUmask = "run.husk.umask"

// AnnotationInit, set to "true", keeps a small init as the first process of the container,
// as docker run --init does: it executes the process as its child, passes signals on to
// it, reaps what others orphan, and ends as it ends. Signals then do what they do
// elsewhere, where the kernel keeps those without a handler from a first process. A process
// with CAP_SYS_PTRACE, which could take over the init, gets none.
const AnnotationInit = "run.husk.init"

// namespaceFlags is ordered as /proc/PID/ns lists are read: user last, for it changes the rights over the others.
var namespaceFlags = []struct {
	name specs.LinuxNamespaceType
	flag uintptr
}{
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP},
	{specs.IPCNamespace, unix.CLONE_NEWIPC},
	{specs.MountNamespace, unix.CLONE_NEWNS},
	{specs.NetworkNamespace, unix.CLONE_NEWNET},
	{specs.PIDNamespace, unix.CLONE_NEWPID},
	{specs.TimeNamespace, unix.CLONE_NEWTIME},
	{specs.UTSNamespace, unix.CLONE_NEWUTS},
	{specs.UserNamespace, unix.CLONE_NEWUSER},
}

func namespaceFlag(t specs.LinuxNamespaceType) uintptr {
	for _, n := range namespaceFlags {
		if n.name == t {
			return n.flag
		}
	}
	return 0
}

// Compile turns a validated config into a plan for the container id. It reads and
// changes nothing on the host.
func Compile(c *Config, id string, o PlanOptions) (*Plan, error) {
	if c.Spec.Linux == nil {
		c.Spec.Linux = &specs.Linux{}
	}
	p, linux := &Plan{config: c}, c.Spec.Linux
	p.Rdt = linux.IntelRdt
	p.namespaces(linux)
	p.netDevices()
	if err := p.interfaces(o.Net); err != nil {
		return nil, err
	}
	if err := p.cgroup(linux, id, o); err != nil {
		return nil, err
	}
	if err := p.etc(o.Resolver); err != nil {
		return nil, err
	}
	options := p.rootfsOptions(o)
	options.Files = append(options.Files, p.notify(&o)...)
	before, after, err := rootfs.Compile(c.Spec, options)
	if err != nil {
		return nil, fieldError(err)
	}
	p.boot(linux, id, o, before)
	p.settle(linux, after)
	if p.Visited != nil {
		p.add(opVisit, p.Visited.Field)
	}
	ready := p.add(opReady, "")
	if o.Scratch {
		ready.Nums = []int64{1}
	}
	return p, p.process(linux, id, o)
}

// inits says whether the init stays while the process runs.
func (p *Plan) inits() bool { return p.last != nil && p.last.Op == opInit }

func (p *Plan) add(op Op, field string, args ...string) *Step {
	p.Steps = append(p.Steps, Step{Op: op, Field: field, Args: args})
	return &p.Steps[len(p.Steps)-1]
}

func (p *Plan) addNums(op Op, field string, nums ...int64) *Step {
	s := p.add(op, field)
	s.Nums = nums
	return s
}

func (p *Plan) namespaces(linux *specs.Linux) {
	for i, n := range linux.Namespaces {
		if n.Path != "" {
			p.Joined = append(p.Joined, Joined{n, pointer("/linux/namespaces", strconv.Itoa(i))})
		} else {
			p.Spawn.New |= namespaceFlag(n.Type)
		}
	}
	p.visit()
	if p.Spawn.New&unix.CLONE_NEWUSER != 0 {
		p.Spawn.UIDMaps, p.Spawn.GIDMaps = linux.UIDMappings, linux.GIDMappings
	}
	if p.Spawn.New&unix.CLONE_NEWTIME != 0 {
		p.Spawn.TimeOffsets = linux.TimeOffsets
	}
}

// visit is for containers with mounts but without a mount namespace of their own. What
// others see is not to change, or it would have to be undone for ever after: so the
// root is made in a namespace that is new, and taken along into the shared one.
func (p *Plan) visit() {
	if p.isNew(unix.CLONE_NEWNS) || !changesMounts(p.config.Spec) {
		return
	}
	p.Visited = &Joined{specs.LinuxNamespace{Type: specs.MountNamespace, Path: namespaceFile(specs.MountNamespace)}, "/linux/namespaces"}
	p.Joined = slices.DeleteFunc(p.Joined, func(j Joined) bool {
		if j.Type == specs.MountNamespace {
			p.Visited = &j
		}
		return j.Type == specs.MountNamespace
	})
	p.Spawn.New |= unix.CLONE_NEWNS
}

// changesMounts says whether the container's view of files is more than a directory.
func changesMounts(spec *specs.Spec) bool {
	l := spec.Linux
	return spec.Root != nil && spec.Root.Readonly || len(spec.Mounts) > 0 || len(l.Devices) > 0 ||
		len(l.MaskedPaths) > 0 || len(l.ReadonlyPaths) > 0 || l.RootfsPropagation != ""
}

func (p *Plan) isNew(flag uintptr) bool { return p.Spawn.New&flag != 0 }

// owned says whether the container has a namespace of this kind for itself: a new or a joined one.
func (p *Plan) owned(t specs.LinuxNamespaceType) bool {
	return p.isNew(namespaceFlag(t)) || p.joinedPath(t) != ""
}

func (p *Plan) cgroup(linux *specs.Linux, id string, o PlanOptions) (err error) {
	if err = p.cgroupPath(linux.CgroupsPath, id, o); err != nil {
		return at("/linux/cgroupsPath", linux.CgroupsPath, err)
	}
	p.Limits, p.Groups, p.Warnings, err = cgroups.Compile(linux.Resources)
	if err != nil {
		return fieldError(err)
	}
	var rules []specs.LinuxDeviceCgroup
	if linux.Resources != nil {
		rules = linux.Resources.Devices
	}
	if p.Devices, err = cgroups.CompileDevices(rules); err != nil {
		return fieldError(err)
	}
	if o.Cgroups == Disabled {
		p.goWithout(len(rules) > 0)
	}
	return nil
}

func (p *Plan) cgroupPath(path, id string, o PlanOptions) (err error) {
	switch o.Cgroups {
	case "", Cgroupfs:
		if path == "" && unprivileged() {
			// Beside the caller's own, if that is the user's, else where root has it.
			if parent, err := cgroups.Delegated(); err == nil {
				path = parent + "/husk-" + id
			}
		}
		p.Cgroup, err = cgroups.Path(path, id)
	case Systemd:
		p.Unit = new(systemd.Unit)
		if *p.Unit, err = systemd.Parse(path, id, unprivileged()); err == nil && o.Unit != nil {
			p.Cgroup, err = o.Unit(*p.Unit)
		}
	case Disabled:
	default:
		err = fmt.Errorf("unknown cgroup manager %q", o.Cgroups)
	}
	return err
}

// goWithout plans no cgroup, and says what the container does not have therefore.
func (p *Plan) goWithout(devices bool) {
	var fields []string
	for _, l := range p.Limits {
		fields = append(fields, strings.TrimPrefix(l.Field, "/linux/resources/"))
	}
	if devices {
		fields = append(fields, "devices")
	}
	if len(fields) > 0 {
		p.Warnings = append(p.Warnings, "/linux/resources: not enforced, since cgroups are disabled: "+strings.Join(slices.Compact(fields), ", "))
	}
	p.Limits, p.Groups = nil, nil
}

func (p *Plan) rootfsOptions(o PlanOptions) rootfs.Options {
	options := rootfs.Options{
		Bundle:     p.config.Bundle,
		Mounts:     p.isNew(unix.CLONE_NEWNS),
		UserNS:     p.owned(specs.UserNamespace),
		NoPivot:    o.NoPivot,
		Privileged: unix.Geteuid() == 0,
		Entered:    p.entered(o),
		Shared:     p.shared(),
		Files:      p.binds(o.State),
	}
	if !options.UserNS || p.isNew(unix.CLONE_NEWCGROUP) {
		return options
	}
	group := p.Cgroup
	if options.Guest = group == ""; options.Guest {
		group, _ = cgroups.Own()
	}
	if mount, err := cgroups.Mountpoint(); err == nil && group != "" {
		options.Cgroup = mount + group
	}
	return options
}

// shared lists the namespaces that are neither new nor owned by the user namespace that
// is joined, as package rootfs wants to know them.
func (p *Plan) shared() (list []specs.LinuxNamespace) {
	user := p.joinedPath(specs.UserNamespace)
	for _, n := range namespaceFlags {
		path := p.joinedPath(n.name)
		if p.isNew(n.flag) || path != "" && user != "" && namespaces.Owned(path, n.flag, user) {
			continue
		}
		if path != "" && isOurs(n.name, path) {
			path = ""
		}
		list = append(list, specs.LinuxNamespace{Type: n.name, Path: path})
	}
	return list
}

// joinedPath is the path by which a namespace is joined, "" if it is not.
func (p *Plan) joinedPath(t specs.LinuxNamespaceType) string {
	for _, n := range p.Joined {
		if n.Type == t {
			return n.Path
		}
	}
	return ""
}

// entered says whether the init is born inside the container's root. It has to be when
// it joins the PID namespace of others: one of them with CAP_SYS_PTRACE could otherwise
// reach the host through the init's /proc/PID/root until it pivots. createContainer
// hooks, which are looked up on the host, need it the other way round, and a user
// namespace needs to see the host's procfs to mount its own.
func (p *Plan) entered(o PlanOptions) bool {
	joins := slices.ContainsFunc(p.Joined, func(n Joined) bool { return n.Type == specs.PIDNamespace })
	return joins && p.isNew(unix.CLONE_NEWNS) && !p.owned(specs.UserNamespace) &&
		unix.Geteuid() == 0 && !o.NoPivot && len(hooksOf(p.config.Spec).CreateContainer) == 0
}

// boot adds the steps up to and including the hooks that run before the pivot.
func (p *Plan) boot(linux *specs.Linux, id string, o PlanOptions, before []rootfs.Step) {
	spec := p.config.Spec
	if !o.NoNewKeyring {
		p.keyring(id, spec.Process)
	}
	if p.isNew(unix.CLONE_NEWNET) {
		p.add(opLoopback, "/linux/namespaces")
	}
	if spec.Hostname != "" {
		p.add(opHostname, "/hostname", spec.Hostname)
	}
	if spec.Domainname != "" {
		p.add(opDomainname, "/domainname", spec.Domainname)
	}
	p.rootfs(inTurn(before))
	p.session()
	hooks := hooksOf(spec)
	if p.outside = len(hooks.Prestart) + len(hooks.CreateRuntime); p.outside > 0 {
		p.add(opOutside, "/hooks")
	} else if len(p.Links) > 0 {
		p.add(opOutside, p.Links[0].Field)
	}
	p.hooks("createContainer", hooks.CreateContainer, p.config.Bundle, specs.StateCreating, id)
}

// session: a new session always, with the terminal's size if the config gives one.
func (p *Plan) session() {
	op := opSession
	if p.last != nil {
		op = opTerminal
	}
	height, width, field := int64(0), int64(0), ""
	if proc := p.config.Spec.Process; proc != nil && proc.Terminal {
		field = "/process/terminal"
		if proc.ConsoleSize != nil {
			height, width = int64(proc.ConsoleSize.Height), int64(proc.ConsoleSize.Width)
		}
	}
	p.addNums(op, field, height, width)
}

// settle adds the pivot and what makes the new root final. What still writes comes
// before the root may become read-only.
func (p *Plan) settle(linux *specs.Linux, after []rootfs.Step) {
	p.sysctls(linux.Sysctl)
	proc := p.config.Spec.Process
	if proc == nil {
		p.rootfs(after)
		return
	}
	// Without mounts of its own the container has no root to look into before chroot.
	if !p.isNew(unix.CLONE_NEWNS) {
		p.rootfs(after)
		after = nil
	}
	p.add(opCwd, "/process/cwd", proc.Cwd)
	p.rootfs(after)
	path, home := searchPath(proc.Env)
	if !home {
		p.addNums(opHome, "/process/user/uid", int64(proc.User.UID))
	}
	// A startContainer hook may yet make the program.
	if len(hooksOf(p.config.Spec).StartContainer) == 0 {
		p.add(opLookup, "/process/args/0", proc.Args[0], path, proc.Cwd)
	}
	p.labels(proc)
}

// rootfs adds steps of package rootfs; one of no operation is a turn.
func (p *Plan) rootfs(steps []rootfs.Step) {
	for i := range steps {
		if steps[i].Op == 0 {
			p.add(opTurn, steps[i].Field)
			continue
		}
		p.Steps = append(p.Steps, Step{Op: opRootfs, Field: steps[i].Field, Mount: &steps[i]})
	}
}

// inTurn puts a turn before each mount that the parent makes after ones that the init
// does. Since Linux 6.8 mountinfo lists mounts in the order in which they were made, not
// attached; whoever reads it, or unmounts from its end, expects that of the config.
func inTurn(steps []rootfs.Step) []rootfs.Step {
	list := make([]rootfs.Step, 0, len(steps)+1)
	made := false
	for _, s := range steps {
		if s.Op == rootfs.OpMount && s.FD && made {
			list, made = append(list, rootfs.Step{Field: s.Field}), false
		}
		made = made || s.Op == rootfs.OpMount && !s.FD && s.Flags&rootfs.FlagRemount == 0
		list = append(list, s)
	}
	return list
}

func (p *Plan) sysctls(settings map[string]string) {
	keys := make([]string, 0, len(settings))
	for k := range settings {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		p.add(opSysctl, pointer("/linux/sysctl", k), k, settings[k])
	}
}

func (p *Plan) hooks(name string, hooks []specs.Hook, bundle string, status specs.ContainerState, id string) {
	for i, h := range hooks {
		state := hookState(p.config.Spec.Version, id, status, p.config.Bundle, p.config.Spec.Annotations)
		args := append([]string{string(state), bundle, h.Path}, h.Args...)
		s := p.add(opHook, pointer("/hooks", name, strconv.Itoa(i)), append(args, h.Env...)...)
		s.Nums = []int64{hookTimeout(h), int64(len(h.Args))}
	}
}

func hooksOf(spec *specs.Spec) *specs.Hooks {
	if spec.Hooks == nil {
		return &specs.Hooks{}
	}
	return spec.Hooks
}

// pointer appends reference tokens to a JSON pointer, escaped as RFC 6901 has it.
func pointer(base string, tokens ...string) string {
	for _, t := range tokens {
		base += "/" + strings.ReplaceAll(strings.ReplaceAll(t, "~", "~0"), "/", "~1")
	}
	return base
}
