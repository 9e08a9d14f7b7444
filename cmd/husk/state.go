package main

import "flag"

// stateCommand: husk state ID
func stateCommand(*flag.FlagSet) action {
	return func(a *app, args []string) (int, error) {
		s, err := a.runtime().State(args[0])
		if err != nil {
			return 0, err
		}
		return 0, a.printJSON(s, "  ")
	}
}
