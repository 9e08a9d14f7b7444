package main

import (
	"flag"
	"os"

	"github.com/huskrun/husk/runtime"
)

// runCommand: husk run [--detach] [--bundle DIR] ID
func runCommand(fs *flag.FlagSet) action {
	var o runtime.RunOptions
	bundle := createFlags(fs, &o.CreateOptions)
	fs.BoolVar(&o.Detach, "detach", false, "return once the process runs, instead of waiting for it")
	short(fs, "d", "detach")
	fs.BoolVar(&o.Keep, "keep", false, "do not delete the container when its process has ended")
	fs.BoolVar(&o.NoSubreaper, "no-subreaper", false, "do not adopt orphans of the container while waiting")
	return func(a *app, args []string) (int, error) {
		if err := a.cgroupDriver(); err != nil {
			return 0, err
		}
		if o.Detach {
			return a.runtime().Run(args[0], *bundle, o)
		}
		return a.foreground(args[0], *bundle, o)
	}
}

// foreground lends the container our terminal while it runs.
func (a *app) foreground(id, bundle string, o runtime.RunOptions) (int, error) {
	var t *terminal
	o.Terminal = func(master *os.File) (err error) {
		t, err = attach(master, os.Stdin, os.Stdout)
		return err
	}
	status, err := a.runtime().Run(id, bundle, o)
	if t != nil {
		t.close()
	}
	return status, err
}
