package main

import (
	"flag"
	"fmt"
	"text/tabwriter"
)

// helpCommand: husk help [COMMAND]
func helpCommand(*flag.FlagSet) action {
	return func(a *app, args []string) (int, error) {
		if len(args) == 0 {
			return 0, a.help()
		}
		c := find(args[0])
		if c == nil {
			return 0, unknown(args[0])
		}
		return 0, a.helpFor(c)
	}
}

// help prints the commands and the global flags.
func (a *app) help() error {
	w := tabwriter.NewWriter(a.stdout, 0, 1, 2, ' ', 0)
	fmt.Fprint(w, "husk runs OCI containers.\n\nUsage: husk [global flags] COMMAND [flags] [arguments]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %s\t%s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\nGlobal flags:\n")
	fs := newFlags("husk")
	new(app).globals(fs)
	printFlags(w, fs)
	fmt.Fprint(w, "\nhusk help COMMAND explains a command.\n")
	return w.Flush()
}

// helpFor prints how to call one command.
func (a *app) helpFor(c *command) error {
	w := tabwriter.NewWriter(a.stdout, 0, 1, 2, ' ', 0)
	fmt.Fprintf(w, "husk %s: %s.\n\nUsage: husk %s\n", c.name, c.summary, c.usage())
	if fs := c.flags(); countFlags(fs) > 0 {
		fmt.Fprint(w, "\nFlags:\n")
		printFlags(w, fs)
	}
	if text := c.explanation(); text != "" {
		fmt.Fprint(w, "\n"+text)
	}
	return w.Flush()
}

// explanation is what there is to be said beyond the flags.
func (c *command) explanation() string {
	if c.more != nil {
		return c.more()
	}
	return c.details
}

// usage is the command as one would type it: "kill [flags] ID [SIGNAL]".
func (c *command) usage() string {
	s := c.name
	if countFlags(c.flags()) > 0 {
		s += " [flags]"
	}
	if c.args != "" {
		s += " " + c.args
	}
	return s
}
