package runtime

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/huskrun/husk/namespaces"
	"golang.org/x/sys/unix"
)

// The network devices of a container are moved by a program of their own (see
// namespaces.Links), which starts before the init does and works while the init boots
// and mounts. Before anything can tell whether they are there, a hook or a sysctl of
// theirs, the init waits for them (opOutside). Should create fail, or husk be killed, the
// program puts them back on the host; once the container is created it never does.

const netDevicesField = "/linux/netDevices"

// netDevices plans the moves, in an order that does not change between two calls.
func (p *Plan) netDevices() {
	devices := p.config.Spec.Linux.NetDevices
	for _, host := range sorted(devices) {
		name := devices[host].Name
		if name == "" {
			name = host
		}
		p.NetDevices = append(p.NetDevices, namespaces.Device{Host: host, Name: name})
	}
}

// checkLinks refuses what could not be done before anything is made.
func (c *creation) checkLinks() error {
	switch {
	case len(c.plan.NetDevices) == 0:
	case c.Links == nil:
		return &Error{
			Field: netDevicesField, Err: errors.New("this program was built without its network helper"),
			Hint: "build husk with make",
		}
	case !mayChangeNetwork():
		return &Error{
			Field: netDevicesField, Err: fmt.Errorf("moving network devices needs CAP_NET_ADMIN: %w", unix.EPERM),
			Hint: "run husk as root; a rootless container cannot have devices of the host",
		}
	}
	return nil
}

// mayChangeNetwork says whether this process has CAP_NET_ADMIN. Whether over the network
// namespace that it is in, the kernel knows.
func mayChangeNetwork() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

func (c *creation) startLinks() (err error) {
	if len(c.plan.NetDevices) > 0 {
		c.links, err = namespaces.StartLinks(c.Links)
	}
	return at(netDevicesField, "", err)
}

// moveLinks begins to move the devices. A new namespace is that of the child since its
// birth; one that is joined need not be yet.
func (c *creation) moveLinks() error {
	if c.links == nil {
		return nil
	}
	ns := c.netns
	if ns == nil {
		var err error
		ns, err = namespaces.Open("/proc/"+strconv.Itoa(c.proc.PID)+"/ns/net", unix.CLONE_NEWNET)
		if err != nil {
			return at(netDevicesField, "", err)
		}
		defer ns.Close()
	}
	return at(netDevicesField, "", c.links.Move(int(ns.Fd()), c.plan.NetDevices))
}

// awaitLinks waits until the devices are in place.
func (c *creation) awaitLinks() error {
	if c.links == nil {
		return nil
	}
	err := c.links.Wait()
	if e, ok := errors.AsType[*namespaces.DeviceError](err); ok && e.Index >= 0 && e.Index < len(c.plan.NetDevices) {
		return at(pointer(netDevicesField, c.plan.NetDevices[e.Index].Host), "", e.Err)
	}
	return at(netDevicesField, "", err)
}

// keepLinks: the devices are the container's from now on.
func (c *creation) keepLinks() {
	if c.links != nil {
		if err := c.links.Keep(); err != nil {
			c.warn(at(netDevicesField, "", err).Error())
		}
		c.links = nil
	}
}

// returnLinks puts the devices back, if there are any, after create has failed.
func (c *creation) returnLinks() {
	if c.links != nil {
		if err := errors.Join(c.links.Back(), c.links.Close()); err != nil {
			c.warn(at(netDevicesField, "", err).Error())
		}
		c.links = nil
	}
}
