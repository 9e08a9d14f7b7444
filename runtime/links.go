package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The network devices of a container are moved and made by a program of their own (see
// namespaces.Links), which starts before the init does and works while the init boots
// and mounts. Before anything can tell whether they are there, a hook or a sysctl of
// theirs, the init waits for them (opOutside). Should create fail, or husk be killed, the
// program puts back what it moved and removes what it made; once the container is
// created it never does. What was made is removed with the container.

const netDevicesField = "/linux/netDevices"

// AnnotationNet begins the names of annotations that make network interfaces for a
// container in a new network namespace: behind it stands the interface's name, and the
// value is what [namespaces.ParseInterface] reads. CreateOptions.Net has the same for
// NAME:WORDS, and wins where both name the same interface.
const AnnotationNet = "run.husk.net."

// Link is a network device that the container gets, and the field that says so.
type Link struct {
	namespaces.Device
	Field string // "": the command line
	made  *namespaces.Interface
}

// netDevices plans the moves, in an order that does not change between two calls.
func (p *Plan) netDevices() {
	devices := p.config.Spec.Linux.NetDevices
	for _, host := range sorted(devices) {
		name := cmp.Or(devices[host].Name, host)
		p.Links = append(p.Links, Link{Device: namespaces.Device{Host: host, Name: name}, Field: pointer(netDevicesField, host)})
	}
}

// interfaces plans those to be made.
func (p *Plan) interfaces(flags []string) error {
	var given []string
	for _, flag := range flags {
		name, words, _ := strings.Cut(flag, ":")
		err := p.place(name)
		if err == nil {
			err = p.makes(name, words, "")
		}
		if err != nil {
			e := asError(err)
			e.Err = fmt.Errorf("--net %s: %w", shorten(flag), e.Err)
			return e
		}
		given = append(given, name)
	}
	annotations := p.config.Spec.Annotations
	if p.config.noNet {
		annotations = nil
	}
	for _, key := range sorted(annotations) {
		name, ok := strings.CutPrefix(key, AnnotationNet)
		if !ok || slices.Contains(given, name) {
			continue
		}
		if err := p.makes(name, annotations[key], pointer("/annotations", key)); err != nil {
			e := asError(err)
			e.Field = pointer("/annotations", key)
			return e
		}
	}
	return nil
}

// place says what keeps an interface of the command line, which the validator never saw,
// from having this name.
func (p *Plan) place(name string) error {
	if !p.isNew(unix.CLONE_NEWNET) {
		return &Error{Err: errors.New(needsNewNetwork), Hint: addNewNetwork}
	}
	if slices.ContainsFunc(p.Links, func(l Link) bool { return l.Name == name }) {
		return &Error{Err: fmt.Errorf("the container gets a network device %s already", name), Hint: "give each network device its own name"}
	}
	return nil
}

func (p *Plan) makes(name, words, field string) error {
	i, err := namespaces.ParseInterface(name, words)
	if err != nil {
		return &Error{Err: err, Hint: "write --net NAME:WORDS, as in --net eth0:bridge=husk0,address=10.88.0.2/24,gateway=10.88.0.1"}
	}
	if mayChangeNetwork() {
		err = i.CheckPair()
	} else {
		err = p.throughPasta(i)
	}
	p.Links = append(p.Links, Link{Device: namespaces.Device{Name: name, Make: words}, Field: field, made: i})
	return err
}

const (
	needsNewNetwork = "needs a new network namespace"
	addNewNetwork   = "add {\"type\": \"network\"} to /linux/namespaces, without a path"
)

// interfaces reports mistakes in annotations.
func (v *validator) interfaces(ignored bool) {
	moved := map[string]string{}
	for host, d := range v.linux.NetDevices {
		moved[cmp.Or(d.Name, host)] = pointer(netDevicesField, host)
	}
	for _, key := range sorted(v.Annotations) {
		name, ok := strings.CutPrefix(key, AnnotationNet)
		if !ok {
			continue
		}
		field := pointer("/annotations", key)
		if ignored {
			v.warn(field, "is ignored", "--allow-net-annotations permits it, or give --net "+name+":…")
			continue
		}
		if _, err := namespaces.ParseInterface(name, v.Annotations[key]); err != nil {
			v.bad(field, err.Error(), "write it as in \"bridge=husk0,address=10.88.0.2/24,gateway=10.88.0.1\"")
		}
		if !v.isNew(specs.NetworkNamespace) {
			v.bad(field, needsNewNetwork, addNewNetwork)
		}
		if other, taken := moved[name]; taken {
			v.bad(field, quote(name)+" is already given by "+other, "give each network device its own name")
		}
	}
}

// bridges has one for each pair that is made, "" where it is on none.
func (p *Plan) bridges() (list []string) {
	for _, l := range p.Links {
		if l.made != nil && p.Pasta == nil {
			list = append(list, l.made.Bridge)
		}
	}
	return list
}

var errNoLinks = errors.New("this program was built without its network helper")

// checkLinks refuses what could not be done before anything is made.
func (c *creation) checkLinks() (err error) {
	moved := slices.IndexFunc(c.plan.Links, func(l Link) bool { return l.made == nil })
	switch {
	case len(c.plan.Links) == 0:
	case c.plan.Pasta != nil && moved < 0:
		c.pasta.path, err = namespaces.FindPasta()
		return c.linkError(err)
	case c.Links == nil:
		return at(c.plan.Links[0].Field, "", errNoLinks)
	case !mayChangeNetwork():
		return &Error{
			Field: c.plan.Links[max(moved, 0)].Field, Err: fmt.Errorf("moving and making network devices needs CAP_NET_ADMIN: %w", unix.EPERM),
			Hint: "run husk as root; a rootless container cannot have devices of the host",
		}
	}
	return nil
}

// mayChangeNetwork says whether this process has CAP_NET_ADMIN over the network namespace
// that it is in.
func mayChangeNetwork() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 &&
		namespaces.Owned(namespaceFile(specs.NetworkNamespace), unix.CLONE_NEWNET, namespaceFile(specs.UserNamespace))
}

func (c *creation) startLinks() (err error) {
	if len(c.plan.Links) > 0 && c.plan.Pasta == nil {
		c.links, err = namespaces.StartLinks(c.Links)
	}
	return c.linkError(err)
}

// linkError names the device to blame.
func (c *creation) linkError(err error) error {
	if err == nil {
		return nil
	}
	which := 0
	if e, ok := errors.AsType[*namespaces.DeviceError](err); ok {
		which, err = max(e.Index, 0), e.Err
	}
	return c.plan.Links[min(which, len(c.plan.Links)-1)].error(err)
}

// error says that the link is to blame.
func (l *Link) error(err error) error {
	e := asError(err)
	if e.Field = l.Field; l.Field == "" {
		e.Err = fmt.Errorf("--net %s: %w", l.Name, e.Err)
	}
	return e
}

// wire begins to furnish the network namespace. A new one is that of the child since its
// birth; one that is joined need not be yet.
func (c *creation) wire() error {
	if c.plan.Pasta != nil {
		c.startPasta()
	}
	if c.links == nil {
		return nil
	}
	ns := c.netns
	if ns == nil {
		var err error
		ns, err = namespaces.Open("/proc/"+strconv.Itoa(c.proc.PID)+"/ns/net", unix.CLONE_NEWNET)
		if err != nil {
			return c.linkError(err)
		}
		defer ns.Close()
	}
	devices := make([]namespaces.Device, len(c.plan.Links))
	for i := range devices {
		devices[i] = c.plan.Links[i].Device
	}
	return c.linkError(c.links.Wire(int(ns.Fd()), c.rec.linksOwner(), devices))
}

// awaitLinks waits until the devices are in place.
func (c *creation) awaitLinks() error {
	if c.plan.Pasta != nil {
		return c.linkError(c.awaitPasta())
	}
	if c.links == nil {
		return nil
	}
	err := c.links.Wait()
	if err != nil && c.clearStopped(err) {
		if err := c.wire(); err != nil {
			return err
		}
		err = c.links.Wait()
	}
	if err != nil {
		return c.linkError(err)
	}
	return c.writeHosts(c.links.Leased, c.links.Names)
}

// clearStopped removes the interfaces of stopped containers if something of theirs can be
// in the way: a port, a name, an address. The kernel does so, too, but not before
// everything that is in their network namespaces has ended, connections included, or never
// if somebody else keeps one. It says whether there were any.
func (c *creation) clearStopped(err error) (found bool) {
	if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EEXIST) {
		return false
	}
	ids, _ := readDir(c.entry.rootFD)
	for _, id := range ids {
		e, rec, err := c.find(id)
		if err != nil {
			continue // it is not, or no more
		}
		if len(rec.Bridges) > 0 && rec.status(e) == specs.StateStopped && c.links.Remove(rec.linksOwner(), rec.Bridges) == nil {
			found = c.links.Wait() == nil || found
		}
		e.close()
	}
	return found
}

// keepLinks: the devices are the container's from now on.
func (c *creation) keepLinks() {
	if c.links != nil {
		if err := c.links.Keep(); err != nil {
			c.warn(c.linkError(err).Error())
		}
		c.links = nil
	}
}

// returnLinks puts everything back, if there is something, after create has failed.
func (c *creation) returnLinks() {
	_ = c.awaitPasta() // so that destroy finds it
	if c.links == nil {
		return
	}
	err := errors.Join(c.links.Back(), c.links.Close())
	c.links = nil
	if err != nil {
		c.warn(c.linkError(err).Error())
	} else {
		c.rec.Bridges = nil // nothing is left to remove
	}
}

// linksOwner marks what is made for this container: no other one, of any state root, had
// its name at the same time.
func (rec *record) linksOwner() string {
	return fmt.Sprintf("%.150s %d", rec.ID, rec.Created.UnixNano())
}

// A linksRemoval removes the network interfaces that were made for a container, which the
// kernel does later, when it gets to ending the network namespace, and bridges that have
// become nobody's, which it never does. Its program boots while the container's processes
// end, and works while the cgroup is removed. Nil has nothing to do.
type linksRemoval struct {
	links *namespaces.Links
	err   error
}

func (r *Runtime) startRemoval(rec *record) (l *linksRemoval) {
	switch {
	case len(rec.Bridges) == 0:
		return nil
	case r.Links == nil:
		return &linksRemoval{err: errNoLinks}
	}
	l = new(linksRemoval)
	l.links, l.err = namespaces.StartLinks(r.Links)
	return l
}

// begin is called once nobody uses the interfaces any more.
func (l *linksRemoval) begin(rec *record) {
	if l != nil && l.err == nil {
		l.err = l.links.Remove(rec.linksOwner(), rec.Bridges)
	}
}

// end waits until it is done, if it was begun.
func (l *linksRemoval) end() error {
	if l == nil {
		return nil
	}
	if l.links != nil {
		l.err = errors.Join(l.err, l.links.Keep())
	}
	if l.err != nil {
		return fmt.Errorf("remove network interfaces: %w", l.err)
	}
	return nil
}
