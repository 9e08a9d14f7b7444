package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/huskrun/husk/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// updateCommand: husk update [--resources FILE|-] [--memory SIZE] … ID
func updateCommand(fs *flag.FlagSet) action {
	file := fs.String("resources", "", "read the `file`, or standard input for -, which holds the JSON of linux.resources; other flags win over it")
	short(fs, "r", "resources")
	limits := &limitFlags{}
	limits.define(fs)
	return func(a *app, args []string) (int, error) {
		if fs.NFlag() == 0 {
			return 0, usage("husk help update lists the limits; --resources reads them from a file", "update: nothing to change")
		}
		resources := &specs.LinuxResources{}
		if *file != "" {
			data, err := readResources(*file)
			if err == nil {
				resources, err = runtime.ParseResources(data)
			}
			if err != nil {
				return 0, &runtime.Error{Op: "update", ID: args[0], Err: err}
			}
		}
		limits.apply(resources)
		return 0, a.runtime().Update(args[0], resources, limits.rdt)
	}
}

// readResources bounds what it reads, since it may be the output of something endless.
func readResources(path string) ([]byte, error) {
	const limit = 16 << 20
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("%s is too long: more than %d MiB", path, limit>>20)
	}
	return data, err
}
