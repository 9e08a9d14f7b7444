package main

import (
	"flag"

	"github.com/huskrun/husk/runtime"
)

// runCommand: husk run [--detach] [--bundle DIR] ID
func runCommand(fs *flag.FlagSet) action {
	var o runtime.RunOptions
	bundle := createFlags(fs, &o.CreateOptions)
	fs.BoolVar(&o.Detach, "detach", false, "return once the process runs, instead of waiting for it")
	short(fs, "d", "detach")
	fs.BoolVar(&o.Keep, "keep", false, "do not delete the container when its process has ended")
	fs.StringVar(&o.Report, "report", "", "when the process has ended, write to this `file` how, and what it used, as JSON")
	fs.BoolVar(&o.NoSubreaper, "no-subreaper", false, "do not adopt orphans of the container while waiting")
	return func(a *app, args []string) (int, error) {
		a.netAnnotations = true // no engine below which somebody else wrote them
		if o.Detach && o.Report != "" {
			return 0, usage("leave out --detach; husk state --stats tells what a container uses", "run: --report is written at the end of the process, for which --detach does not wait")
		}
		if o.Detach {
			return a.runtime().Run(args[0], *bundle, o)
		}
		return a.onTerminal(&o.Terminal, func() (int, error) { return a.runtime().Run(args[0], *bundle, o) })
	}
}
