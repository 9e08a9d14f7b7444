package runtime

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// process is the process to execute: that of the file, or the container's own with what
// the options change.
func (k *kept) process(o *ExecOptions) (*specs.Process, error) {
	own, err := &specs.Process{}, error(nil)
	if len(k.Process) > 0 { // the container may have none
		if own, err = decodeProcess(k.Process); err != nil {
			return nil, err
		}
	}
	if c := own.Capabilities; c != nil {
		k.told = capMask(c.Permitted)
	}
	p := own
	if o.ProcessFile != "" {
		data, err := readConfig(o.ProcessFile)
		if err != nil {
			return nil, err
		}
		if p, err = decodeProcess(data); err != nil {
			return nil, fmt.Errorf("process file %s: %w", o.ProcessFile, err)
		}
		inherit(p, own)
	} else if err := o.change(p); err != nil {
		return nil, err
	}
	return p, checkProcess(p)
}

func decodeProcess(data []byte) (*specs.Process, error) {
	p := &specs.Process{}
	d := newDecoder(data)
	d.object(processFields(p))
	return p, inProcess(d.finish())
}

// inProcess makes pointers into a process pointers into a config.
func inProcess(err error) error {
	if problems, ok := err.(*Problems); ok {
		for i := range problems.List {
			problems.List[i].Field = "/process" + problems.List[i].Field
		}
	}
	return err
}

// inherit takes from the container's own process what a file leaves out and what makes
// up the box rather than the process: nobody means to give a process more rights or
// resources by saying nothing. runc does so too.
func inherit(p, own *specs.Process) {
	if p.Capabilities == nil {
		p.Capabilities = own.Capabilities
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = own.Rlimits
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = own.OOMScoreAdj
	}
	if p.ApparmorProfile == "" {
		p.ApparmorProfile = own.ApparmorProfile
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = own.SelinuxLabel
	}
	if p.Scheduler == nil {
		p.Scheduler = own.Scheduler
	}
	if p.IOPriority == nil {
		p.IOPriority = own.IOPriority
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = own.ExecCPUAffinity
	}
}

// checkProcess validates a process as create does.
func checkProcess(p *specs.Process) error {
	v := &validator{Spec: &specs.Spec{Process: p}, linux: &specs.Linux{}}
	v.process(p)
	return v.problems.orNil()
}

// change applies the options to the container's process.
func (o *ExecOptions) change(p *specs.Process) error {
	p.Args = o.Args
	p.Terminal, p.ConsoleSize = o.TTY, nil
	p.Env = append(slices.Clip(p.Env), o.Env...)
	p.NoNewPrivileges = p.NoNewPrivileges || o.NoNewPrivs
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	if o.AppArmor != "" {
		p.ApparmorProfile = o.AppArmor
	}
	if o.ProcessLabel != "" {
		p.SelinuxLabel = o.ProcessLabel
	}
	if err := o.changeUser(&p.User); err != nil {
		return err
	}
	return o.changeCaps(p)
}

// changeUser reads UID[:GID]. Names are for engines, which know whose /etc/passwd they
// mean and trust it.
func (o *ExecOptions) changeUser(u *specs.User) (err error) {
	if o.User != "" {
		uid, gid, both := strings.Cut(o.User, ":")
		if u.UID, err = parseID(uid); err == nil && both {
			u.GID, err = parseID(gid)
		}
		if err != nil {
			return &Error{
				Field: "/process/user", Err: fmt.Errorf("--user %q: %w", o.User, err),
				Hint: "write numbers, as in --user 1000 or --user 1000:1000: husk looks up no names",
			}
		}
	}
	for _, text := range o.AdditionalGIDs {
		gid, err := parseID(text)
		if err != nil {
			return at("/process/user/additionalGids", "", fmt.Errorf("--additional-gids %q: %w", text, err))
		}
		u.AdditionalGids = append(slices.Clip(u.AdditionalGids), gid)
	}
	return nil
}

var errID = errors.New("is not a number from 0 to 4294967294")

// parseID takes a number that can only be read in one way. Whatever else it might have
// been meant to be must not become 0 (CVE-2016-3697, CVE-2024-40635).
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == noID || strconv.FormatUint(n, 10) != s {
		return 0, errID
	}
	return uint32(n), nil
}

// changeCaps adds capabilities. Those of the inheritable set are for programs that the
// process executes and are not asked for here (CVE-2022-29162); ambient ones need them.
func (o *ExecOptions) changeCaps(p *specs.Process) error {
	if len(o.Caps) == 0 {
		return nil
	}
	caps := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	for _, name := range o.Caps {
		if _, known := capNumber(name); !known {
			return &Error{
				Field: "/process/capabilities", Err: fmt.Errorf("--cap %q is not a capability", name),
				Hint: "write it as in CAP_NET_RAW",
			}
		}
		caps.Bounding = append(slices.Clip(caps.Bounding), name)
		caps.Effective = append(slices.Clip(caps.Effective), name)
		caps.Permitted = append(slices.Clip(caps.Permitted), name)
		if slices.Contains(caps.Inheritable, name) {
			caps.Ambient = append(slices.Clip(caps.Ambient), name)
		}
	}
	p.Capabilities = &caps
	return nil
}
