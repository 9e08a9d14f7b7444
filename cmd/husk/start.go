package main

import "flag"

// startCommand: husk start ID
func startCommand(*flag.FlagSet) action {
	return func(a *app, args []string) (int, error) {
		return 0, a.runtime().Start(args[0])
	}
}
