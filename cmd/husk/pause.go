package main

import "flag"

// pauseCommand: husk pause ID
func pauseCommand(*flag.FlagSet) action {
	return func(a *app, args []string) (int, error) {
		return 0, a.runtime().Pause(args[0])
	}
}
