package namespaces

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PastaDNS is an address that pasta can have stand for the host's name server, also one
// that listens on the host itself.
const PastaDNS = "169.254.1.1"

// An ordinary user may neither make devices in the host's network namespace nor move
// them out of it. pasta(1) makes a device in the container's, which its user namespace
// allows, and does with sockets of the user's what packets there ask for.

// FindPasta finds the program.
func FindPasta() (path string, err error) {
	return findHelper("pasta", "passt", "give an interface to the container of an ordinary user")
}

// Pasta returns once pasta serves the network namespace of a process, in the background.
// It writes its pid to a file. Recent ones end about a second after the process has ended;
// all of them have to be killed by whoever cannot wait for that.
func Pasta(path string, pid int, pidFile string, options []string) error {
	args := append([]string{"pasta", "--quiet", "--pid", pidFile}, options...)
	return callHelper(path, append(args, strconv.Itoa(pid)))
}

// PastaOptions are what it makes the interface by, or say which word it has no option for.
func (i *Interface) PastaOptions() ([]string, error) {
	for _, w := range []struct {
		word  string
		given bool
	}{{"bridge", i.Bridge != ""}, {"host-name", i.Host != ""}, {"route", len(i.Routes) > 0}, {"forwarding", i.Forwarding}, {"allow", len(i.Allow) > 0}} {
		if w.given {
			return nil, fmt.Errorf("%s: needs CAP_NET_ADMIN over the host's network: %w", w.word, unix.EPERM)
		}
	}
	// What is not said here it would do by itself: lead all ports of either side to the
	// other one, and the gateway's address to the host's loopback.
	list := []string{
		"--config-net", "--no-map-gw", "--ns-ifname", i.Name, "--tcp-ns", "none", "--udp-ns", "none",
	}
	list = append(list, i.published("--tcp-ports", unix.IPPROTO_TCP)...)
	list = append(list, i.published("--udp-ports", unix.IPPROTO_UDP)...)
	if i.MTU != 0 {
		list = append(list, "--mtu", strconv.Itoa(i.MTU))
	}
	if i.MAC != nil {
		list = append(list, "--ns-mac-addr", strings.ReplaceAll(fmt.Sprintf("% x", i.MAC), " ", ":"))
	}
	if i.Auto {
		for _, g := range i.Gateways {
			list = append(list, "--gateway", g.Alone())
		}
		return list, nil
	}
	return i.pastaAddresses(list)
}

// published lists ports as pasta wants them: an address is for a whole option.
func (i *Interface) published(option string, protocol byte) (list []string) {
	for _, p := range i.Publish {
		if p.Protocol != protocol {
			continue
		}
		at := ""
		if p.At.IP != nil {
			at = p.At.Alone() + "/"
		}
		list = append(list, option, fmt.Sprintf("%s%d:%d", at, p.Host, p.Into))
	}
	if list == nil {
		return []string{option, "none"}
	}
	return list
}

// pastaAddresses: one of a family, with its gateway, or none.
func (i *Interface) pastaAddresses(list []string) ([]string, error) {
	only := ""
	for k, a := range i.Addresses {
		g := i.Gateway(a.Is4())
		switch {
		case g == nil:
			return nil, fmt.Errorf("address: %s needs a gateway: behind it is all that the container can reach", a)
		case !a.Contains(*g):
			return nil, fmt.Errorf("gateway: %s is not in the network of %s", g.Alone(), a)
		case !a.Is4() && a.Bits != 64:
			return nil, fmt.Errorf("address: %s has not the prefix that IPv6 has on a link, /64", a)
		case k > 1 || k > 0 && a.Is4() == i.Addresses[0].Is4():
			return nil, fmt.Errorf("address: %s is a second one of its family", a)
		}
		list = append(list, "--address", a.Alone(), "--gateway", g.Alone())
		only = "--ipv6-only"
		if a.Is4() {
			list = append(list, "--netmask", strconv.Itoa(a.Bits))
			only = "--ipv4-only"
		}
	}
	if len(i.Addresses) == 1 {
		list = append(list, only)
	}
	return list, nil
}
