package runtime

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// process adds the steps of start.
func (p *Plan) process(linux *specs.Linux, id string, o PlanOptions) error {
	proc := p.config.Spec.Process
	if proc == nil {
		p.add(opNoProcess, "/process")
		return nil
	}
	if hooks := hooksOf(p.config.Spec).StartContainer; len(hooks) > 0 {
		p.add(opChdir, "/process/cwd", proc.Cwd) // they begin where the process will
		p.hooks("startContainer", hooks, "", specs.StateCreated, id)
	}
	filter, err := p.filter(linux, o)
	if err != nil {
		return err
	}
	p.affinity(nil)
	if p.config.Spec.Annotations[AnnotationInit] != "" {
		p.last = &Step{Op: opInit, Field: pointer("/annotations", AnnotationInit), Nums: []int64{beyond(proc, filter != nil)}}
	}
	p.payload(proc, box(linux), filter, o.Env)
	return nil
}

// box is what every process of the container does, be it the first one or an exec.
func box(linux *specs.Linux) []Step {
	b := &Plan{}
	b.memoryPolicy(linux.MemoryPolicy)
	if linux.Personality != nil {
		domain := linux.Personality.Domain
		b.add(opPersona, "/linux/personality", string(domain)).Nums = []int64{int64(valueOf(domains, domain))}
	}
	return b.Steps
}

// payload adds the last steps of a process, which are the same for the container's own
// and for one that joins it, in the order of privilege: what needs rights comes before
// they go, and the filter is last unless only a privileged process may load it.
func (p *Plan) payload(proc *specs.Process, box []Step, filter *Step, env []string) {
	p.Steps = append(p.Steps, box...)
	p.addNums(opStdio, "/process/user/uid", int64(proc.User.UID))
	p.add(opChdir, "/process/cwd", proc.Cwd)
	if p.last != nil {
		p.Steps = append(p.Steps, *p.last)
	}
	p.schedule(proc)
	if filter != nil && !proc.NoNewPrivileges {
		p.Steps = append(p.Steps, *filter)
	}
	p.identity(proc)
	p.umask(proc)
	for i, r := range proc.Rlimits {
		s := p.add(opRlimit, pointer("/process/rlimits", strconv.Itoa(i)), r.Type)
		s.Nums = []int64{int64(rlimitResource(r.Type)), int64(r.Soft), int64(r.Hard)}
	}
	p.addNums(opChdirAgain, "/process/cwd").Args = []string{proc.Cwd}
	if proc.NoNewPrivileges {
		p.add(opNoNewPrivs, "/process/noNewPrivileges")
		p.landlock()
		if filter != nil {
			p.Steps = append(p.Steps, *filter)
		}
	}
	env = append(slices.Clip(proc.Env), env...)
	s := p.add(opExec, "/process/args/0", append(slices.Clip(proc.Args), env...)...)
	s.Nums = []int64{int64(len(proc.Args))}
}

func (p *Plan) filter(linux *specs.Linux, o PlanOptions) (*Step, error) {
	if o.Recording != nil {
		s := filterStep(o.Recording.Filter())
		s.Nums[1] = int64(o.Recording.Key)
		return s, nil
	}
	if len(p.config.Seccomp) == 0 || o.Filter == nil {
		return nil, nil
	}
	f, err := o.Filter(p.config.Seccomp)
	if err == nil && f != nil {
		err = passListener(f)
	}
	if err != nil {
		return nil, fieldError(err)
	}
	if f == nil {
		return nil, nil
	}
	p.Warnings = append(p.Warnings, f.Warnings...)
	p.joining = filterStep(f)
	if o.Denials == nil {
		return p.joining, nil
	}
	watched := o.Denials.Watch(f)
	if err := passListener(watched); err != nil {
		return nil, fieldError(err)
	}
	return filterStep(watched), nil
}

// umask: unset means unchanged in the spec, but every image was made where runc and
// crun set 0022, and daemons run under masks of their own: so inheriting it must be
// asked for.
func (p *Plan) umask(proc *specs.Process) {
	switch {
	case proc.User.Umask != nil:
		p.addNums(opUmask, "/process/user/umask", int64(*proc.User.Umask))
	case p.config.Spec.Annotations[AnnotationUmask] == "inherit":
		p.addNums(opUmask, pointer("/annotations", AnnotationUmask), -1)
	default:
		p.addNums(opUmask, "/process/user/umask", 0o022)
	}
}

// identity adds bounding set, ids and capability sets.
func (p *Plan) identity(proc *specs.Process) {
	caps := proc.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	const field = "/process/capabilities"
	p.addNums(opBounding, field+"/bounding", capMask(caps.Bounding))
	if !p.isNew(unix.CLONE_NEWUSER) || len(p.Spawn.UIDMaps) > 0 {
		ids := []int64{int64(proc.User.UID), int64(proc.User.GID)}
		for _, g := range proc.User.AdditionalGids {
			ids = append(ids, int64(g))
		}
		p.addNums(opUser, "/process/user", ids...)
	}
	p.addNums(opCaps, field, capMask(caps.Effective), capMask(caps.Permitted), capMask(caps.Inheritable))
	if ambient := capMask(caps.Ambient); ambient != 0 {
		p.addNums(opAmbient, field+"/ambient", ambient)
	}
}

// searchPath returns the value of PATH that the process will have (the last one wins,
// as in execvp's getenv after duplicates are gone) and whether HOME is set.
func searchPath(env []string) (path string, home bool) {
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
		home = home || strings.HasPrefix(kv, "HOME=")
	}
	return path, home
}
