package main

import "flag"

// resumeCommand: husk resume ID
func resumeCommand(*flag.FlagSet) action {
	return func(a *app, args []string) (int, error) {
		return 0, a.runtime().Resume(args[0])
	}
}
