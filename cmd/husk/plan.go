package main

import (
	"flag"
	"path/filepath"

	"github.com/huskrun/husk/runtime"
	"github.com/huskrun/husk/seccomp"
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
		p, err := compile(c)
		if err != nil {
			return 0, err
		}
		return 0, p.Write(a.stdout, *asJSON)
	}
}

// compile does what create does before it touches anything. The container would be
// called after its bundle, and a filter is compiled but not kept.
func compile(c *runtime.Config) (*runtime.Plan, error) {
	if _, err := runtime.Validate(c); err != nil {
		return nil, err
	}
	return runtime.Compile(c, filepath.Base(c.Bundle), runtime.PlanOptions{
		Filter: func(profile []byte) (*seccomp.Filter, error) {
			return seccomp.Load("", profile, seccompCompiler())
		},
	})
}
