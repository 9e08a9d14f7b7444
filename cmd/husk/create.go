package main

import (
	"flag"

	"github.com/huskrun/husk/runtime"
)

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
	fs.BoolVar(&o.NoPivot, "no-pivot", false, "do not use pivot_root, for a rootfs on a ramdisk")
	fs.BoolVar(&o.NoNewKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	fs.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass this `number` of descriptors, from 3 on, to the container")
	fs.Func("net", "make a network `interface`, NAME:WORDS with WORDS of bridge=, address=, gateway=, route=, mtu=, mac=, host-name=; may be repeated", appendTo(&o.Net))
	return bundle
}

func bundleFlag(fs *flag.FlagSet) *string {
	bundle := fs.String("bundle", ".", "`directory` that holds config.json")
	short(fs, "b", "bundle")
	return bundle
}
