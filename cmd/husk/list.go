package main

import (
	"flag"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/huskrun/husk/runtime"
)

// listCommand: husk list [--format table|json] [--quiet]
func listCommand(fs *flag.FlagSet) action {
	format := fs.String("format", "table", "`format` of the output: table or json")
	short(fs, "f", "format")
	quiet := fs.Bool("quiet", false, "print ids only")
	short(fs, "q", "quiet")
	return func(a *app, _ []string) (int, error) {
		if *format != "table" && *format != "json" {
			return 0, usage("give --format table or json", "unknown format %q", *format)
		}
		states, err := a.runtime().List()
		switch {
		case err != nil:
		case *quiet:
			err = a.printIDs(states)
		case *format == "json":
			err = a.printList(states)
		default:
			err = a.printTable(states)
		}
		return 0, err
	}
}

func (a *app) printIDs(states []*runtime.State) error {
	for _, s := range states {
		if _, err := fmt.Fprintln(a.stdout, s.ID); err != nil {
			return err
		}
	}
	return nil
}

// printList prints null for no containers, as runc does and its users expect.
func (a *app) printList(states []*runtime.State) error {
	if len(states) == 0 {
		states = nil
	}
	return a.printJSON(states, "")
}

func (a *app) printTable(states []*runtime.State) error {
	w := tabwriter.NewWriter(a.stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range states {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle,
			s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}
