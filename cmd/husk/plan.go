package main

import (
	"flag"
	"fmt"

	"github.com/huskrun/husk/runtime"
)

// planCommand: husk plan [--json] [BUNDLE]
func planCommand(fs *flag.FlagSet) action {
	asJSON := fs.Bool("json", false, "print the steps as a JSON array")
	return func(a *app, args []string) (int, error) {
		bundle := "."
		if len(args) == 1 {
			bundle = args[0]
		}
		c, err := runtime.LoadSpec(bundle)
		if err != nil {
			return 0, err
		}
		p, err := runtime.Compile(c)
		if err != nil {
			return 0, err
		}
		if *asJSON {
			return 0, a.printJSON(p, "  ")
		}
		_, err = fmt.Fprint(a.stdout, p)
		return 0, err
	}
}
