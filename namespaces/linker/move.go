package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linker furnishes network namespaces, and knows what it takes to have everything back.
type linker struct {
	host, there *space
	moved       []*device // in the order in which they were moved
	made        []*pair
	filter      *filter
}

// device is one that moves. Going to another namespace costs it its addresses and routes,
// its bridge and its being up (and its queueing discipline and sysctls, which stay lost);
// it keeps everything else.
type device struct {
	namespaces.Device
	was       *netlink.LinkAttrs // on the host
	index     int                // where it goes
	addresses []address
	routes    [][]nl.NetlinkRequestData // on the host
}

// Wire looks at everything before it changes anything.
func (l *linker) Wire(fd int, owner string, list []namespaces.Device) (int, error) {
	if err := l.open(fd); err != nil {
		return -1, err
	}
	devices, pairs := make([]*device, len(list)), make([]*pair, len(list))
	for i, d := range list {
		var err error
		if d.Host != "" {
			devices[i], err = l.find(d)
		} else {
			pairs[i], err = l.plan(d, owner)
		}
		if err != nil {
			return i, err
		}
	}
	there, err := l.there.links()
	if err != nil {
		return -1, fmt.Errorf("list the container's network devices: %w", err)
	}
	for i, d := range list {
		if err := checkName(d.Name, there); err != nil {
			return i, err
		}
	}
	for _, step := range []func(i int) error{
		func(i int) error { return l.moveIf(devices[i], false) },
		// Names that the kernel chooses come when the others are taken.
		func(i int) error { return l.makeIf(pairs[i]) },
		func(i int) error { return l.moveIf(devices[i], true) },
	} {
		for i := range list {
			if err := step(i); err != nil {
				return i, errors.Join(err, l.Back())
			}
		}
	}
	return 0, nil
}

func (l *linker) moveIf(d *device, numbered bool) error {
	if d == nil || namespaces.IsTemplate(d.Name) != numbered {
		return nil
	}
	return l.move(d)
}

// open begins anew.
func (l *linker) open(fd int) (err error) {
	l.release()
	if l.host, err = here(); err != nil {
		return err
	}
	l.there, err = enter(fd)
	return err
}

// release forgets what was done.
func (l *linker) release() {
	l.host.close()
	l.there.close()
	l.filter.close()
	*l = linker{}
}

// find looks for a device on the host.
func (l *linker) find(d namespaces.Device) (*device, error) {
	was, err := l.host.link(0, d.Host)
	if err == nil && was.Name != d.Host {
		err = unix.ENODEV // it is another name of one
	}
	if err != nil {
		return nil, fmt.Errorf("find network device %s: %w", d.Host, err)
	}
	all, err := l.host.addresses(was.Index)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", d.Host, err)
	}
	routes, err := l.host.routes(was.Index)
	if err != nil {
		return nil, fmt.Errorf("list the routes of %s: %w", d.Host, err)
	}
	return &device{Device: d, was: was, addresses: all, routes: routes}, nil
}

// checkName makes sure that a name is free.
func checkName(name string, there []*netlink.LinkAttrs) error {
	taken := func(a *netlink.LinkAttrs) bool { return a.Name == name || slices.Contains(a.AltNames, name) }
	if !namespaces.IsTemplate(name) && slices.ContainsFunc(there, taken) {
		return fmt.Errorf("the container has a network device %s already: %w", name, unix.EEXIST)
	}
	return nil
}

// move moves a device by one request, gives it its addresses, and brings it up.
func (l *linker) move(d *device) (err error) {
	if d.index, err = l.host.send(l.there, d.was.Index, d.Name, d.was.Index); err != nil {
		// It is renamed only after it has moved.
		if _, gone := l.host.link(d.was.Index, ""); gone != nil {
			l.moved = append(l.moved, d)
		}
		return fmt.Errorf("move network device %s: %w", d.Host, err)
	}
	l.moved = append(l.moved, d)
	now, err := l.there.link(d.index, "")
	if err != nil {
		return fmt.Errorf("find the moved network device %s: %w", d.Host, err)
	}
	for _, a := range inOrder(d.addresses) {
		if a.flags&unix.IFA_F_PERMANENT == 0 || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		if err := l.there.add(d.index, a.labelled(d.Host, now.Name)); err != nil {
			return fmt.Errorf("give %s its addresses again: %w", d.Host, err)
		}
	}
	if err := l.there.up(d.index); err != nil {
		return fmt.Errorf("bring up %s: %w", d.Host, err)
	}
	return nil
}

// inOrder brings addresses into the order in which adding them gives the same list: the
// kernel puts a new one of IPv4 behind, and of IPv6 before, its like.
func inOrder(list []address) []address {
	list = slices.Clone(list)
	first := slices.IndexFunc(list, func(a address) bool { return a.Family == unix.AF_INET6 })
	if first < 0 {
		return list
	}
	rest := list[first:]
	last := slices.IndexFunc(rest, func(a address) bool { return a.Family != unix.AF_INET6 })
	if last < 0 {
		last = len(rest)
	}
	slices.Reverse(rest[:last])
	return list
}

// labelled changes a label that is made from the old name (IPv4 calls it eth0, or
// eth0:1).
func (a address) labelled(old, name string) address {
	a.attrs = slices.Clone(a.attrs)
	for i, attr := range a.attrs {
		r := attr.(*nl.RtAttr)
		if r.Type != unix.IFA_LABEL {
			continue
		}
		if suffix, ok := strings.CutPrefix(unix.ByteSliceToString(r.Data), old); ok && (suffix == "" || suffix[0] == ':') {
			label := name + suffix
			a.attrs[i] = text(unix.IFA_LABEL, label[:min(len(label), unix.IFNAMSIZ-1)])
		}
	}
	return a
}

// Back puts everything back. It does all it can and reports the rest.
func (l *linker) Back() error {
	var errs []error
	for _, d := range slices.Backward(l.moved) {
		if err := l.back(d); err != nil {
			errs = append(errs, fmt.Errorf("put back network device %s: %w", d.Host, err))
		}
	}
	l.moved = nil
	return errors.Join(append(errs, l.unmake())...)
}

func (l *linker) back(d *device) error {
	index, err := l.there.send(l.host, d.index, d.Host, d.was.Index)
	if errors.Is(err, unix.EEXIST) {
		index, err = l.backUnnamed(d, index)
	} else if err != nil {
		index = 0
	}
	if index == 0 {
		return err
	}
	if e := l.recognize(d, index); e != nil {
		return e
	}
	if d.was.MasterIndex != 0 {
		_, e := l.host.ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, byIndex(index), number(unix.IFLA_MASTER, uint32(d.was.MasterIndex)))
		err = errors.Join(err, e)
	}
	if d.was.RawFlags&unix.IFF_UP != 0 {
		err = errors.Join(err, l.host.up(index))
	}
	// The routes of IPv6 addresses with a lifetime need the device to be up.
	for _, a := range inOrder(d.addresses) {
		if a.Family == unix.AF_INET6 && a.flags&unix.IFA_F_TEMPORARY != 0 {
			continue // the kernel makes new ones
		}
		if e := l.host.add(index, a); e != nil && !errors.Is(e, unix.EEXIST) {
			err = errors.Join(err, fmt.Errorf("give it its addresses again: %w", e))
		}
	}
	return errors.Join(err, l.host.addRoutes(index, d.routes))
}

// recognize makes sure that what has come back is what was moved. Others may have rights
// over a namespace that was joined: they could have put a device of theirs in its place,
// for the host to take up with its addresses and routes. What they cannot make alike is a
// peer or a parent in the host's namespace, an address in the hardware, and its bus. It is
// looked at here, where they cannot change it any more; it is down, and goes back.
func (l *linker) recognize(d *device, index int) error {
	now, err := l.host.link(index, "")
	if err != nil {
		return err
	}
	was := d.was
	if now.EncapType == was.EncapType && now.ParentIndex == was.ParentIndex && now.NetNsID == was.NetNsID &&
		now.ParentDev == was.ParentDev && slices.Equal(now.PermHWAddr, was.PermHWAddr) {
		return nil
	}
	_, err = l.host.send(l.there, index, "dev%d", index)
	return errors.Join(fmt.Errorf("another device has taken its place in the container: %w", unix.ENODEV), err)
}

// backUnnamed: somebody has taken the name meanwhile. The device is back under the one
// that it has in the container or, if that is taken as well, shall be called as the
// kernel calls such devices when a namespace ends.
func (l *linker) backUnnamed(d *device, index int) (found int, err error) {
	if _, gone := l.there.link(d.index, ""); gone == nil {
		if index, err = l.there.send(l.host, d.index, "dev%d", d.was.Index); err != nil {
			return 0, err
		}
	}
	now, err := l.host.link(index, "")
	if err != nil {
		return 0, err
	}
	return index, fmt.Errorf("its name is taken, it is called %s: %w", now.Name, unix.EEXIST)
}
