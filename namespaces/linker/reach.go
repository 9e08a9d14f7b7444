package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/huskrun/husk/namespaces"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// feasible looks for what would keep an interface from being masqueraded and published.
func (p *pair) feasible() error {
	if !p.Filtered() {
		return nil
	}
	if !p.Forwarding && !slices.ContainsFunc(p.forwarding(), isOn) {
		return fmt.Errorf("masquerade and publish: the host forwards no packets: %w", unix.EHOSTUNREACH)
	}
	for _, port := range p.Publish {
		switch err := vacant(port); {
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return fmt.Errorf("publish: %s: the host has no such address: %w", port, err)
		case err != nil:
			return fmt.Errorf("publish: %s: a program of the host uses the port: %w", port, err)
		}
	}
	return nil
}

// forwarding lists the files of the sysctls by which the host forwards packets of the
// interface's families.
func (p *pair) forwarding() (files []string) {
	if p.Auto || p.has(true) {
		files = append(files, sysctl+"ipv4/ip_forward")
	}
	if p.Auto || p.has(false) {
		files = append(files, sysctl+"ipv6/conf/all/forwarding")
	}
	return files
}

const sysctl = "/proc/sys/net/"

func isOn(file string) bool {
	b, err := os.ReadFile(file)
	return err == nil && !bytes.HasPrefix(b, []byte{'0'})
}

// turn switches a sysctl, if it is otherwise: some have effects also if it is the same.
func turn(file string, on bool) error {
	if isOn(file) == on {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0) // to be found, not made
	if err != nil {
		return err
	}
	_, err = f.WriteString(map[bool]string{false: "0", true: "1"}[on])
	return errors.Join(err, f.Close())
}

// deaf has the host not heed router advertisements that come by a device, before it is up:
// a container could make itself the host's gateway.
func deaf(device string) error {
	if err := turn(sysctl+"ipv6/conf/"+device+"/accept_ra", false); err != nil {
		return fmt.Errorf("refuse router advertisements: %w", err)
	}
	return nil
}

// vacant makes sure that no program of the host waits at a port: nobody would reach it
// any more.
func vacant(p namespaces.Port) error {
	kind := unix.SOCK_STREAM
	if p.Protocol == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	to4, to6 := &unix.SockaddrInet4{Port: int(p.Host)}, &unix.SockaddrInet6{Port: int(p.Host)}
	copy(to4.Addr[:], p.At.IP)
	copy(to6.Addr[:], p.At.IP)
	for family, to := range map[int]unix.Sockaddr{unix.AF_INET: to4, unix.AF_INET6: to6} {
		if p.At.IP != nil && p.At.Is4() != (family == unix.AF_INET) {
			continue
		}
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			continue // there is no such family
		}
		if kind == unix.SOCK_STREAM {
			// Connections that have ended are in nobody's way.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		err = unix.Bind(fd, to)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep removes from the packet filter what is nobody's, given all links of the host, or
// nil to look for them, and is ready to add something if need be.
func (l *linker) sweep(links []*netlink.LinkAttrs, adds bool) error {
	l.filter.close()
	l.filter = nil
	look := sync.OnceValues(func() ([]*netlink.LinkAttrs, error) {
		if links != nil {
			return links, nil
		}
		return l.host.links()
	})
	if err := l.unguard(look); err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	there, err := l.host.filtered(shared)
	if !there && !adds {
		return nil // also if the kernel has no packet filter
	}
	if err == nil {
		l.filter, err = openFilter(there)
	}
	if err == nil && there {
		links, err = look()
		var left []namespaces.Address
		if err == nil {
			left, err = l.filter.sweep(links)
		}
		if err == nil {
			err = l.host.abandoned(left)
		}
	}
	if err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	return nil
}

// vacate makes sure that the interface inherits nothing from one that had its address,
// and gets the ports that it wants.
func (l *linker) vacate(p *pair) error {
	if err := l.sweep(nil, p.Filtered()); err != nil || !p.Filtered() {
		return err
	}
	owner, port, err := l.filter.publisher(p.Publish)
	if owner != "" {
		return fmt.Errorf("publish: %s: the port leads to container %s already: %w", port, strings.Fields(owner)[0], unix.EADDRINUSE)
	}
	return err
}

// reachable has the interface masqueraded and published, if it wants that. Its packets
// come and go through a device of the host.
func (l *linker) reachable(p *pair, device int) error {
	if !p.Filtered() && !p.Forwarding {
		return nil
	}
	outer, err := l.host.link(device, "")
	if err != nil {
		return err
	}
	if err := p.publishable(outer); err != nil {
		return err
	}
	if p.Forwarding {
		for _, file := range p.forwarding() {
			if err := turn(file, true); err != nil {
				return fmt.Errorf("forwarding: %w", err)
			}
		}
	}
	if !p.Filtered() {
		return nil
	}
	if err = l.filter.add(p, outer); err == nil {
		err = l.host.redirected(p.Publish)
	}
	if err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	if err := l.loopback(p, outer); err != nil {
		return fmt.Errorf("publish to the host's loopback addresses: %w", err)
	}
	return nil
}

// publishable looks at what is known only now: whether there is a way from the addresses
// of the host at which ports are published.
func (p *pair) publishable(device *netlink.LinkAttrs) error {
	for _, port := range p.Publish {
		switch {
		case port.At.IP == nil:
		case !p.has(port.At.Is4()):
			return fmt.Errorf("publish: %s: the container has no address of its family: %w", port, unix.EADDRNOTAVAIL)
		case port.At.Loopback() && device.Group != group:
			return fmt.Errorf("publish: %s: answers do not come to it through %s, which husk has not made: %w", port, device.Name, unix.EADDRNOTAVAIL)
		}
	}
	return nil
}

// loopback lets connections to published ports leave the host from 127.0.0.1, and come
// back: the packet filter hides that address from the container, and drops what uses it
// without being asked. A device that is not husk's stays as it is.
func (l *linker) loopback(p *pair, device *netlink.LinkAttrs) error {
	local := func(port namespaces.Port) bool { return port.At.IP == nil || port.At.Loopback() }
	if device.Group != group || !p.has(true) || !slices.ContainsFunc(p.Publish, local) {
		return nil
	}
	return turn(localnet(device.Name), true)
}

func localnet(device string) string { return sysctl + "ipv4/conf/" + device + "/route_localnet" }

// shut ends what loopback began before the packet filter ends to drop what is sent to such
// addresses from behind the devices, where others may still be.
func (f *filter) shut(devices []nftables.SetElement, links []*netlink.LinkAttrs) error {
	for _, e := range devices {
		ours := func(a *netlink.LinkAttrs) bool { return a.Group == group && bytes.Equal(deviceKey(a.Name), e.Key) }
		i := slices.IndexFunc(links, ours)
		if i < 0 {
			continue
		}
		if err := turn(localnet(links[i].Name), false); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
