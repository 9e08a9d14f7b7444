package main

import (
	"flag"

	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/huskrun/husk/runtime"
)

// featuresCommand: husk features
func featuresCommand(*flag.FlagSet) action {
	return func(a *app, _ []string) (int, error) {
		f := runtime.SupportedFeatures()
		if s := f.Linux.Seccomp; s != nil && seccompCompiler() == nil {
			f.Linux.Seccomp = &features.Seccomp{Enabled: new(bool)}
		}
		return 0, a.printJSON(f, "    ")
	}
}
