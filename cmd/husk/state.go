package main

import "flag"

// stateCommand: husk state [--stats] ID
func stateCommand(fs *flag.FlagSet) action {
	stats := fs.Bool("stats", false, "add resources, the limits in force, and stats, what the container uses")
	return func(a *app, args []string) (int, error) {
		if *stats {
			s, err := a.runtime().StateStats(args[0])
			if err != nil {
				return 0, err
			}
			return 0, a.printJSON(s, "  ")
		}
		s, err := a.runtime().State(args[0])
		if err != nil {
			return 0, err
		}
		return 0, a.printJSON(s, "  ")
	}
}
