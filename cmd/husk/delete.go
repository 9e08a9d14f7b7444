package main

import (
	"errors"
	"flag"

	"github.com/huskrun/husk/runtime"
)

// deleteCommand: husk delete [--force] ID
func deleteCommand(fs *flag.FlagSet) action {
	force := fs.Bool("force", false, "kill the container first; a missing one is no error")
	short(fs, "f", "force")
	return func(a *app, args []string) (int, error) {
		err := a.runtime().Delete(args[0], *force)
		if *force && errors.Is(err, runtime.ErrNotExist) {
			return 0, nil
		}
		return 0, err
	}
}
