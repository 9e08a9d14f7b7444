package main

import (
	"flag"
	"time"

	"github.com/huskrun/husk/runtime"
)

// eventsCommand: husk events [--interval DURATION] [--stats] ID
func eventsCommand(fs *flag.FlagSet) action {
	interval := fs.Duration("interval", 5*time.Second, "print what the container uses once per `duration`, as in 500ms or 1m")
	stats := fs.Bool("stats", false, "print what it uses now, and end")
	return func(a *app, args []string) (int, error) {
		if *interval <= 0 {
			return 0, usage("give a duration as in 500ms, 5s or 1m", "events: the interval must be greater than 0")
		}
		if *stats {
			*interval = 0
		}
		return 0, a.runtime().Events(args[0], *interval, func(e *runtime.Event) error {
			line, err := e.MarshalJSON()
			if err == nil {
				_, err = a.stdout.Write(append(line, '\n'))
			}
			return err
		})
	}
}
