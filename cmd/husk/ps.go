package main

import (
	"flag"
	"io"
)

// psCommand: husk ps [--format table|json] ID [PS OPTION...]
func psCommand(fs *flag.FlagSet) action {
	format := fs.String("format", "table", "`format` of the output: table, as ps(1) prints it, or json, an array of pids")
	short(fs, "f", "format")
	return func(a *app, args []string) (int, error) {
		switch *format {
		case "table":
			table, err := a.runtime().ProcessTable(args[0], args[1:])
			if err == nil {
				_, err = io.WriteString(a.stdout, table)
			}
			return 0, err
		case "json":
			pids, err := a.runtime().Processes(args[0])
			if err != nil {
				return 0, err
			}
			return 0, a.printJSON(append([]int{}, pids...), "") // none are [], not null
		}
		return 0, usage("give --format table or json", "unknown format %q", *format)
	}
}
