package main

import (
	"flag"
	"fmt"
	goruntime "runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Set by the Makefile with -ldflags -X.
var (
	release    = "0.1.0-dev"
	commit     = "unknown"
	libseccomp = "none"
)

// versionCommand: husk version
func versionCommand(*flag.FlagSet) action {
	return func(a *app, _ []string) (int, error) { return 0, a.version() }
}

// version prints what engines parse. Docker takes the word after "version" in the
// last line that has it, and the one after "commit:"; so no other line may contain
// "version". go-runc wants a first line that begins with "runc version " and reads
// anything else as a runtime of unknown version, without an error: husk says its
// own name.
func (a *app) version() error {
	_, err := fmt.Fprintf(a.stdout, "husk version %s\ncommit: %s\nspec: %s\ngo: %s\nlibseccomp: %s\n",
		release, commit, specs.Version, goruntime.Version(), libseccomp)
	return err
}
