package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"golang.org/x/sys/unix"
)

// A container for which network interfaces are made may get files of /etc that go with
// them. They lie beside its record and are bound, read-only, over those of its root, in
// which nothing is written: what is missing there is made, empty, as the mount point of
// any mount is.
const (
	resolvFile   = "resolv.conf"
	hostsFile    = "hosts"
	hostnameFile = "hostname"
)

// etcFile is one of them.
type etcFile struct {
	name string
	link *Link // that asks for it; nil: the container does without it rather than fail
	text string
}

// etc plans the files. The host's resolver is asked only if it is wanted.
func (p *Plan) etc(resolver func() (string, error)) error {
	for _, f := range p.wanted() {
		err := p.keepsOut(&f)
		if err != nil && f.link == nil {
			continue // nobody has asked for it
		}
		if err == nil {
			f.text, err = p.etcText(f.name, resolver)
		}
		switch {
		case err == nil:
			p.Etc = append(p.Etc, f)
		case f.link != nil:
			return f.link.error(err)
		default:
			text := err.Error() + ", so the container gets no /etc/" + f.name
			if advice := hint(asError(err)); advice != "" {
				text += ": " + advice
			}
			p.Warnings = append(p.Warnings, text)
		}
	}
	return nil
}

// wanted lists the files that the interfaces ask for, and resolv.conf if none of them
// says anything of it: a default route is of little use without.
func (p *Plan) wanted() (list []etcFile) {
	add := func(name string, l *Link) {
		if !slices.ContainsFunc(list, func(f etcFile) bool { return f.name == name }) {
			list = append(list, etcFile{name: name, link: l})
		}
	}
	looksUp, says := false, false
	for i := range p.Links {
		l := &p.Links[i]
		if l.made == nil {
			continue
		}
		looksUp, says = looksUp || l.made.LooksUp(), says || len(l.made.DNS) > 0
		if len(l.made.DNS) > 0 && l.made.DNS[0] != namespaces.DNSNone {
			add(resolvFile, l)
		}
		if l.made.Hosts || l.made.Named() {
			add(hostsFile, l)
		}
		if l.made.Hostname {
			add(hostnameFile, l)
		}
	}
	if looksUp && !says {
		add(resolvFile, nil)
	}
	return list
}

// keepsOut says why the container cannot have a file.
func (p *Plan) keepsOut(f *etcFile) error {
	if !p.isNew(unix.CLONE_NEWNS) {
		return &Error{Err: fmt.Errorf("/etc/%s needs a new mount namespace", f.name), Hint: "add {\"type\": \"mount\"} to /linux/namespaces"}
	}
	for i, m := range p.config.Spec.Mounts {
		if path.Clean("/"+m.Destination) == "/etc/"+f.name {
			return &Error{Err: fmt.Errorf("/mounts/%d is on /etc/%s already", i, f.name), Hint: "leave out the mount, or the word of the interface"}
		}
	}
	return nil
}

func (p *Plan) etcText(name string, resolver func() (string, error)) (string, error) {
	switch name {
	case resolvFile:
		return p.resolvText(resolver)
	case hostsFile:
		return p.hostsText(nil, nil), nil
	}
	name = p.config.Spec.Hostname
	if name == "" {
		return "", &Error{Err: errors.New("hostname: the container has no name of its own"), Hint: "set /hostname"}
	}
	return name + "\n", nil
}

// resolvText names the servers of all interfaces or, if there are none, those of the host.
func (p *Plan) resolvText(host func() (string, error)) (string, error) {
	var servers []string
	for _, l := range p.Links {
		if l.made == nil || slices.Contains(l.made.DNS, namespaces.DNSHost) || slices.Contains(l.made.DNS, namespaces.DNSNone) {
			continue
		}
		for _, s := range l.made.DNS {
			if !slices.Contains(servers, s) {
				servers = append(servers, s)
			}
		}
	}
	switch n := len(servers); {
	case n == 0:
		return p.pastaResolver(host)
	case n > namespaces.MaxDNS:
		return "", &Error{Err: fmt.Errorf("dns: %d servers for one container, of which resolvers heed %d", n, namespaces.MaxDNS), Hint: "leave out some"}
	}
	return "nameserver " + strings.Join(servers, "\nnameserver ") + "\n", nil
}

// hostsText has localhost, names that were looked up, ADDRESS NAME, and the container's own
// name for its addresses.
func (p *Plan) hostsText(leased, names []string) string {
	b := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for _, line := range names {
		address, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		b += address + "\t" + strings.TrimSuffix(name, ".") + "\n"
	}
	name := p.config.Spec.Hostname
	if name == "" {
		return b
	}
	for _, l := range p.Links {
		if l.made != nil {
			for _, a := range l.made.Addresses {
				leased = append(leased, a.Alone())
			}
		}
	}
	for _, a := range leased {
		b += a + "\t" + name + "\n"
	}
	return b
}

// binds is how package rootfs mounts the files.
func (p *Plan) binds(dir string) []rootfs.File {
	list := make([]rootfs.File, len(p.Etc))
	for i, f := range p.Etc {
		list[i] = rootfs.File{Source: path.Join(dir, f.name), Target: "/etc/" + f.name, Optional: f.link == nil}
		if f.link != nil {
			list[i].Field = f.link.Field
		}
	}
	return list
}

// stateDir is where the files of a container lie.
func (r *Runtime) stateDir(id string) string {
	dir, err := filepath.Abs(r.Root)
	if err != nil {
		dir = r.Root
	}
	return path.Join(dir, id)
}

// writeEtc makes the files.
func (c *creation) writeEtc() error {
	for _, f := range c.plan.Etc {
		if err := c.entry.writeText(f.name, f.text); err != nil {
			return err
		}
	}
	return nil
}

// writeHosts completes the hosts with the addresses that were chosen for the container, and
// those of names.
func (c *creation) writeHosts(leased, names []string) error {
	if len(leased)+len(names) == 0 || !slices.ContainsFunc(c.plan.Etc, func(f etcFile) bool { return f.name == hostsFile }) {
		return nil
	}
	return c.entry.writeText(hostsFile, c.plan.hostsText(leased, names))
}

// writeText writes a file that the container may read: in place, for it may be mounted.
func (e *entry) writeText(name, text string) error {
	fd, err := openat(e.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
	if err == nil {
		// Whatever the caller's umask is.
		err = cmp.Or(unix.Fchmod(fd, 0o644), writeAll(fd, []byte(text)), unix.Close(fd))
	}
	if err != nil {
		return e.pathError("write", name, err)
	}
	return nil
}

// resolvers are the files that may know the host's servers. With systemd-resolved the
// first knows only that it is on this host, the second whom it asks.
var resolvers = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

var errNoServers = errors.New("dns: the host has no name server that others can reach")

const maxResolv = 64 << 10

// hostResolver returns the first of the files that has servers, without those that listen
// on the host itself, in whose network namespace the container is not.
func hostResolver() (string, error) {
	for _, name := range resolvers {
		text, err := readSmall(name)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return "", &fs.PathError{Op: "read", Path: name, Err: err}
		}
		if text, found := withoutLocal(text); found {
			return text, nil
		}
	}
	return "", errNoServers
}

func readSmall(name string) (string, error) {
	fd, err := openPath(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b, err := readAll(fd, maxResolv)
	return string(b), err
}

// withoutLocal leaves out comments, and servers with an address that means something else
// elsewhere.
func withoutLocal(text string) (out string, found bool) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.IndexByte("#;", words[0][0]) >= 0 {
			continue
		}
		if words[0] == "nameserver" {
			if len(words) < 2 || !namespaces.Reachable(words[1]) {
				continue
			}
			found = true
		}
		out += strings.Join(words, " ") + "\n"
	}
	return out, found
}
