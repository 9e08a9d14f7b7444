package main

import (
	"flag"

	"github.com/huskrun/husk/runtime"
)

const netDetails = `--net NAME:WORDS makes a network interface for a container in a new network
namespace, and removes it with the container. WORDS are separated by commas:

  bridge=NAME       the host's end becomes a port of this bridge; if it is missing
                    and its name begins with husk, it is made, has the gateways'
                    addresses, and goes with its last port. Without a bridge the
                    host's end has them, and the host a route to the container
  address=A/LENGTH  of IPv4 or IPv6; may be repeated
  address=auto      instead: the lowest free address of each family in the bridge's
                    networks, with the bridge's own address as the gateway, unless
                    another one is given
  gateway=A         the default route; one of each family
  route=NETWORK/LENGTH, route=NETWORK/LENGTH@GATEWAY
                    more routes; may be repeated
  mtu=N             of both ends
  mac=ADDRESS       of the container's end
  host-name=NAME    of the host's end, which the kernel numbers otherwise
  dns=A             a name server for /etc/resolv.conf; may be repeated
  dns=host          the host's, but for those that only the host reaches: what a
                    container with a default route gets if nothing is said
  dns=none          nothing: the container has its own /etc/resolv.conf
  masquerade        what leaves the host has an address of the host
  publish=HOST:PORT/tcp, publish=HOST:PORT/udp
                    a port of every address of the host leads to the container's
                    PORT; may be repeated. ADDRESS:HOST:PORT is of one address
  allow=HOST:PORT   reach this port, as db.example:5432, 10.0.0.0/8:443 or [fd00::1]:53/udp,
                    and nothing that is not listed; may be repeated
  forwarding        have the host forward packets (sysctl net.ipv4.ip_forward and
                    net.ipv6.conf.all.forwarding), also when the container is gone
  hosts             an /etc/hosts with localhost and the container's host name
  hostname          an /etc/hostname with that

The interface of an ordinary user's container is made by pasta, of the package
passt, which has no way for bridge, host-name, route, allow and forwarding; there
address=auto means those of the host.

An annotation run.husk.net.NAME with WORDS as its value does the same; the flag
wins where both name the same interface.
`

// createCommand: husk create [--bundle DIR] ID
func createCommand(fs *flag.FlagSet) action {
	var o runtime.CreateOptions
	bundle := createFlags(fs, &o)
	return func(a *app, args []string) (int, error) {
		return 0, a.runtime().Create(args[0], *bundle, o)
	}
}

// createFlags defines the flags that create and run share; it returns the bundle's.
func createFlags(fs *flag.FlagSet, o *runtime.CreateOptions) (bundle *string) {
	bundle = bundleFlag(fs)
	fs.StringVar(&o.ConsoleSocket, "console-socket", "", "send the terminal's master to the unix `socket` at this path")
	fs.StringVar(&o.PidfdSocket, "pidfd-socket", "", "send a pidfd of the init process to the unix `socket` at this path")
	fs.StringVar(&o.PidFile, "pid-file", "", "write the init process's pid to this `file`")
	fs.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass this `number` of descriptors, from 3 on, to the container")
	planFlags(fs, &o.NoPivot, &o.NoNewKeyring, &o.Net)
	return bundle
}

// planFlags defines those that change the plan.
func planFlags(fs *flag.FlagSet, noPivot, noNewKeyring *bool, net *[]string) {
	fs.BoolVar(noPivot, "no-pivot", false, "do not use pivot_root, for a rootfs on a ramdisk")
	fs.BoolVar(noNewKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	fs.Func("net", "make a network `interface`, NAME:WORDS, as explained by husk help create; may be repeated", appendTo(net))
}

func bundleFlag(fs *flag.FlagSet) *string {
	bundle := fs.String("bundle", ".", "`directory` that holds config.json")
	short(fs, "b", "bundle")
	return bundle
}
