package main

import (
	"flag"

	"github.com/huskrun/husk/runtime"
)

// featuresCommand: husk features
func featuresCommand(*flag.FlagSet) action {
	return func(a *app, _ []string) (int, error) {
		return 0, a.printJSON(runtime.SupportedFeatures(), "    ")
	}
}
