package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/huskrun/husk/runtime"
)

// specCommand: husk spec [--bundle DIR] [--rootless] [--terminal] [--cap LIST] [COMMAND [ARG...]]
func specCommand(flags *flag.FlagSet) action {
	bundle := bundleFlag(flags)
	rootless := flags.Bool("rootless", false, "write a config that an ordinary user can run")
	terminal := flags.Bool("terminal", false, "give the process a terminal")
	short(flags, "t", "terminal")
	var caps []string
	flags.Func("cap", "add `capabilities`, separated by commas, and the system calls that they are for; can be repeated", listTo(&caps))
	return func(_ *app, args []string) (int, error) {
		spec := runtime.DefaultSpec(*rootless)
		spec.Process.Terminal = *terminal
		if len(args) > 0 {
			spec.Process.Args = args
		}
		if err := runtime.Grant(spec, caps...); err != nil {
			return 0, err
		}
		data, err := marshal(spec, "\t")
		if err != nil {
			return 0, err
		}
		return 0, writeNew(filepath.Join(*bundle, "config.json"), data)
	}
}

// writeNew writes a file that must not exist: a config that someone wrote by hand
// is not ours to overwrite.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usage("remove it first, or choose another directory with --bundle", "%s exists", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
