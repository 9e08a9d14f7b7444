package runtime

import (
	"encoding/json/jsontext"
	"fmt"

	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// kept is what create keeps for exec alone, beside the record: config.json may change
// or vanish afterwards (the specification wants that to have no effect), and an exec
// that read it again would pay for the decoding of all of it.
//
// The process is kept as the bytes that stand in config.json, since it takes no time to
// write them and they are read by the code that reads the file of exec --process. The
// filter is kept compiled: its profile is the largest part of most configs, and the cache
// of filters may have dropped it by then. The file is written while the init boots, which
// hides what it costs, and is not synced: it ends with the container.
type kept struct {
	Namespaces uintptr     // CLONE_NEW* of those that the container has for itself
	Chroot     bool        // its root is a directory in a mount namespace of others
	Visits     bool        // and it has mounts all the same, which only lead from its init's root
	Unmapped   bool        // its user namespace maps no id, so that none can be set
	Keyring    bool        // it has a session keyring
	Box        specs.Linux // Personality and MemoryPolicy, those of every process
	Filter     *Step       // opSeccomp, nil without a filter; its bytes and flags are kept, and its listener's address
	Process    jsontext.Value

	told int64 // not kept: capabilities of its process, of which create has warned
}

const (
	keptFile    = "exec"
	keptVersion = 5 // to be raised with every change of the layout: a container may outlive its husk
	maxKept     = 2 * maxConfig
)

// keep writes what exec will need.
func (c *creation) keep() error {
	k := kept{
		Namespaces: c.plan.Spawn.New, Chroot: !c.plan.isNew(unix.CLONE_NEWNS), Process: c.config.process,
		Unmapped: c.plan.isNew(unix.CLONE_NEWUSER) && len(c.plan.Spawn.UIDMaps) == 0,
	}
	if v := c.plan.Visited; v != nil {
		k.Chroot, k.Visits = true, true
		if v.Path == namespaceFile(specs.MountNamespace) {
			k.Namespaces &^= unix.CLONE_NEWNS // it is ours
		}
	}
	linux := c.config.Spec.Linux
	k.Box.Personality, k.Box.MemoryPolicy = linux.Personality, linux.MemoryPolicy
	for _, j := range c.plan.Joined {
		k.Namespaces |= namespaceFlag(j.Type)
	}
	for i := range c.plan.Steps {
		switch s := &c.plan.Steps[i]; s.Op {
		case opKeyring:
			k.Keyring = true
		case opSeccomp:
			if k.Filter = s; c.plan.joining != nil {
				k.Filter = c.plan.joining
			}
		}
	}
	err := replaceFile(c.entry.fd, keptFile, k.encode(), 0o600, false)
	if err != nil {
		return c.entry.pathError("write", keptFile, err)
	}
	return nil
}

func (k *kept) encode() []byte {
	e := packer{b: make([]byte, 0, 1024+len(k.Process))}
	e.num(keptVersion)
	e.num(uint64(k.Namespaces))
	for _, v := range []bool{k.Chroot, k.Visits, k.Unmapped, k.Keyring} {
		e.flag(v)
	}
	domain, policy := "", &specs.LinuxMemoryPolicy{}
	if k.Box.Personality != nil {
		domain = string(k.Box.Personality.Domain)
	}
	if k.Box.MemoryPolicy != nil {
		policy = k.Box.MemoryPolicy
	}
	e.str(domain)
	e.str(string(policy.Mode))
	e.str(policy.Nodes)
	e.strs(words(policy.Flags))
	var filter seccomp.Filter
	if s := k.Filter; s != nil {
		filter = *s.filter()
		if s.listens() {
			filter.ListenerPath, filter.ListenerMetadata = s.Args[1], s.Args[2]
		}
	}
	e.str(string(filter.BPF))
	e.num(uint64(filter.Flags))
	e.str(filter.ListenerPath)
	e.str(filter.ListenerMetadata)
	e.str(string(k.Process))
	return e.b
}

func decodeKept(b []byte) (*kept, error) {
	d, k := unpacker{b: b}, &kept{}
	if v := d.num(); v != keptVersion {
		return nil, fmt.Errorf("written by another version of husk (layout %d)", v)
	}
	k.Namespaces = uintptr(d.num())
	for _, p := range []*bool{&k.Chroot, &k.Visits, &k.Unmapped, &k.Keyring} {
		*p = d.flag()
	}
	if domain := d.str(); domain != "" {
		k.Box.Personality = &specs.LinuxPersonality{Domain: specs.LinuxPersonalityDomain(domain)}
	}
	policy := &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(d.str()), Nodes: d.str()}
	for _, flag := range d.strs() {
		policy.Flags = append(policy.Flags, specs.MemoryPolicyFlagType(flag))
	}
	if policy.Mode != "" {
		k.Box.MemoryPolicy = policy
	}
	f := seccomp.Filter{BPF: []byte(d.str()), Flags: uint32(d.num())}
	f.ListenerPath, f.ListenerMetadata = d.str(), d.str()
	if len(f.BPF) > 0 {
		k.Filter = filterStep(&f)
	}
	k.Process = jsontext.Value(d.str())
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	return k, d.err
}

// kept reads what create kept for exec.
func (e *entry) kept() (*kept, error) {
	fd, err := openat(e.fd, keptFile, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, e.pathError("open", keptFile, err)
	}
	defer unix.Close(fd)
	b, err := readAll(fd, maxKept)
	if err != nil {
		return nil, e.pathError("read", keptFile, err)
	}
	k, err := decodeKept(b)
	if err != nil {
		return nil, &Error{
			Err:  e.pathError("parse", keptFile, err),
			Hint: "delete the container and create it again, or use the husk that created it",
		}
	}
	return k, nil
}
