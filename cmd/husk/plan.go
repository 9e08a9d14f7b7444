package main

import (
	"flag"

	"github.com/huskrun/husk/runtime"
)

// planCommand: husk plan [--json] [BUNDLE]
func planCommand(fs *flag.FlagSet) action {
	var o runtime.PlanOptions
	planFlags(fs, &o.NoPivot, &o.NoNewKeyring, &o.Net)
	asJSON := fs.Bool("json", false, "print the steps as a JSON array")
	return func(a *app, args []string) (int, error) {
		a.netAnnotations = true // as for run
		bundle := "."
		if len(args) == 1 {
			bundle = args[0]
		}
		p, err := a.runtime().Plan(bundle, o)
		if err != nil {
			return 0, err
		}
		return 0, p.Write(a.stdout, *asJSON)
	}
}
