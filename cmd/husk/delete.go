package main

import "flag"

// deleteCommand: husk delete [--force] ID
func deleteCommand(fs *flag.FlagSet) action {
	force := fs.Bool("force", false, "kill the container first; a missing one is no error")
	short(fs, "f", "force")
	return func(a *app, args []string) (int, error) {
		return 0, a.runtime().Delete(args[0], *force)
	}
}
