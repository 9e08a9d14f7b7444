package sandbox

import (
	"cmp"
	jsonv1 "encoding/json"
	"encoding/json/v2"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs/image"
	"github.com/huskrun/husk/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Job is a sandbox that is ready to be run.
type Job struct {
	Spec    *specs.Spec
	LeftOut []string // limits that the job does without
	Loose   []string // what it may do that it may not by default
	Image   *image.Image

	o         *Options
	workspace string
	outer     int      // uid of the job outside
	net       []string // interfaces
	secrets   []secret
	caches    []string // directories to be made
	progress  *progress
	report    string                // file, "": none
	keeps     string                // directory for what is changed, "": none
	exports   string                // file for it, "": none
	overlays  []string              // where they are mounted
	cgroups   runtime.CgroupManager // unless the Runtime says
}

// nobody is the first of the 65536 ids that those of a job are outside, where the caller
// is root. It belongs to no user and no range that distributions hand out.
const nobody, nobodies = 1879048192, 65536

// annotation marks the containers of this package.
const annotation = "run.husk.sandbox"

// builder makes a Job.
type builder struct {
	Job
	spec     *specs.Spec
	uid, gid int    // the caller's
	inner    uint32 // ids of the job inside
	innerGID uint32
	home     string
	writable []string // directories of the host, without links, that jobs may write to
}

// New compiles a job. It looks at the host, and changes nothing.
func New(o *Options) (*Job, error) {
	options := *o
	options.Size = cmp.Or(o.Size, DefaultSize)
	b := &builder{Job: Job{o: &options}, uid: os.Geteuid(), gid: os.Getegid(), spec: runtime.DefaultSpec(false)}
	b.Spec = b.spec
	b.spec.Annotations = map[string]string{annotation: "true", runtime.AnnotationInit: "true"}
	for _, step := range []func() error{
		b.ids, b.findWorkspace, b.findWritable, b.findReport, b.root, b.mounts, b.namespaces, b.rights, b.limits, b.environment, b.landlock, b.outputs,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	b.progress = newProgress(options.Progress)
	p := b.spec.Process
	var err error
	if p.Args, err = b.command(); err != nil {
		return nil, err
	}
	p.Cwd = b.workspace
	b.spec.Hostname = "sandbox"
	return &b.Job, nil
}

// ids maps one id of an ordinary user, the caller's own, and to a job with capabilities,
// which alone can make use of others, those that are granted to the user. What root starts
// gets ids that are nobody's: 65536 of them, so that images with several users work.
func (b *builder) ids() error {
	b.inner, b.innerGID = uint32(b.uid), uint32(b.gid)
	if text := b.o.UID; text != "" {
		uid, gid, pair := strings.Cut(text, ":")
		u, err := strconv.ParseUint(uid, 10, 16)
		g := u
		if err == nil && pair {
			g, err = strconv.ParseUint(gid, 10, 16)
		}
		if err != nil {
			return bad("uid", "give numbers below 65536, as in 1000 or 1000:100", "%q is not UID or UID:GID", text)
		}
		b.inner, b.innerGID = uint32(u), uint32(g)
		b.loose("--uid " + text)
	}
	b.spec.Process.User = specs.User{UID: b.inner, GID: b.innerGID}
	b.outer = b.uid
	if b.uid == 0 {
		b.outer = nobody + int(b.inner)
	}
	l := b.spec.Linux
	l.UIDMappings, l.GIDMappings = b.one(b.inner, b.uid), b.one(b.innerGID, b.gid)
	if b.uid == 0 || len(b.o.Caps) == 0 {
		return nil
	}
	if uids, gids := runtime.SubordinateMaps(b.inner, b.innerGID); uids != nil {
		l.UIDMappings, l.GIDMappings = uids, gids
	}
	return nil
}

// one maps an ordinary user's id.
func (b *builder) one(inside uint32, outside int) []specs.LinuxIDMapping {
	if b.uid == 0 {
		return []specs.LinuxIDMapping{{HostID: nobody, Size: nobodies}}
	}
	return []specs.LinuxIDMapping{{ContainerID: inside, HostID: uint32(outside), Size: 1}}
}

func (b *builder) loose(what string) { b.Loose = append(b.Loose, what) }

func (b *builder) findWorkspace() (err error) {
	if b.workspace, err = b.directory("workspace", b.o.Workspace); err != nil {
		return err
	}
	if b.workspace == "/" {
		return bad("workspace", "change to the directory of the project, or name it", "it cannot be /")
	}
	return nil
}

// directory returns the absolute path, without links, of one that exists.
func (b *builder) directory(flag, name string) (string, error) {
	dir, err := b.real(flag, name)
	if err != nil {
		return "", err
	}
	switch st, err := os.Stat(dir); {
	case err != nil:
		return "", bad(flag, "name a directory that exists", "%w", err)
	case !st.IsDir():
		return "", bad(flag, "name a directory", "%s is not one", dir)
	}
	return dir, nil
}

// namespaces: a new one of each kind that the machine's own has no part in.
func (b *builder) namespaces() error {
	l := b.spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	if err := b.checkAllow(); err != nil {
		return err
	}
	kind, words, _ := strings.Cut(b.o.Net, ":")
	switch {
	case kind == "none" && words == "" || kind == "":
		return nil
	case kind == "veth" || kind == "pasta":
		return b.network(kind, words)
	case b.o.Net != "host":
		return bad("net", "give none, host, veth or pasta", "unknown network %q", b.o.Net)
	}
	b.loose("--net host")
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	// Of the host's network namespace no sysfs can be mounted, and its resolver may be
	// configured by a file that is hidden.
	for i := range b.spec.Mounts {
		if m := &b.spec.Mounts[i]; m.Destination == "/sys" {
			*m = specs.Mount{Destination: "/sys", Source: "/sys", Options: []string{"rbind", "rnosuid", "rnoexec", "rnodev", "rro"}}
		}
	}
	b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/sys/fs/cgroup" })
	if real, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && !b.foreign() && b.hidden(real) {
		b.mount(specs.Mount{Destination: real, Source: real, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}})
	}
	return nil
}

// checkAllow looks whether there are the means to keep the job from everything else.
func (b *builder) checkAllow() error {
	if len(b.o.Allow) == 0 {
		return nil
	}
	for _, target := range b.o.Allow {
		if _, err := namespaces.ParseTarget(target); err != nil {
			return bad("allow", "", "%q %w", target, err)
		}
	}
	b.o.Net = cmp.Or(b.o.Net, "veth")
	switch kind, _, _ := strings.Cut(b.o.Net, ":"); {
	case kind != "veth":
		return bad("allow", "give --net veth, as root, or leave out --allow", "--net %s has no means to refuse the rest", kind)
	case b.uid != 0:
		return bad("allow", "run husk as root, or leave it out", "it takes --net veth, which needs root")
	}
	return nil
}

// network is one behind the host's address. What makes it depends on who the caller is.
func (b *builder) network(kind, words string) error {
	description := "eth0:bridge=husk0,address=auto,masquerade"
	switch {
	case kind == "veth" && b.uid != 0:
		return bad("net", "give pasta", "veth needs root")
	case kind == "pasta" && b.uid == 0:
		return bad("net", "give veth", "pasta is for ordinary users")
	case kind == "pasta":
		description = "eth0:address=auto"
	}
	if words != "" {
		description += "," + words
	}
	b.loose("--net " + b.o.Net)
	for _, target := range b.o.Allow {
		description += ",allow=" + target
		b.loose("--allow " + target)
	}
	b.net = []string{description}
	return nil
}

// rights: no capability, no way to gain one, and the default filter.
func (b *builder) rights() error {
	caps := make([]string, len(b.o.Caps))
	for i, name := range b.o.Caps {
		caps[i] = "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if !slices.Contains(runtime.SupportedFeatures().Linux.Capabilities, caps[i]) {
			return bad("cap-add", "see capabilities(7)", "unknown capability %q", name)
		}
		if caps[i] == "CAP_SYS_PTRACE" {
			return bad("cap-add", "leave it out: tracing the job's own processes needs no capability", "with %s a job could take over its init", caps[i])
		}
		b.loose("--cap-add " + caps[i])
	}
	set := &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if b.inner != 0 { // who is not root keeps them through execve only like that
		set.Inheritable, set.Ambient = caps, caps
	}
	b.spec.Process.Capabilities = set
	switch b.o.Seccomp {
	case "":
		bits := uint64(unix.S_ISUID)
		if b.uid == 0 { // for others it is common that directories have their group's bit
			bits |= unix.S_ISGID
		}
		if !slices.Contains(caps, "CAP_FSETID") {
			forbidSetID(b.spec.Linux.Seccomp, bits)
		}
		return nil
	case "unconfined":
		b.spec.Linux.Seccomp = nil
	default:
		profile, err := runtime.ReadProfile(b.o.Seccomp)
		if err == nil {
			b.spec.Linux.Seccomp = new(specs.LinuxSeccomp)
			err = json.Unmarshal(profile, b.spec.Linux.Seccomp, jsonv1.DefaultOptionsV1())
		}
		if err != nil {
			return bad("seccomp", "name a file with a profile, or unconfined", "%w", err)
		}
	}
	b.loose("--seccomp " + b.o.Seccomp)
	return nil
}

// mount appends one.
func (b *builder) mount(m specs.Mount) { b.spec.Mounts = append(b.spec.Mounts, m) }

func sizeOption(n Bytes) string { return fmt.Sprintf("size=%d", int64(n)) }
