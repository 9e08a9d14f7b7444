package main

import (
	"flag"
	"fmt"
	"strings"
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
			return 0, fmt.Errorf("%w %q", errUnknown, args[0])
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
	return w.Flush()
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

// flags returns the command's flags.
func (c *command) flags() *flag.FlagSet {
	fs := newFlags(c.name)
	c.setup(fs)
	return fs
}

func countFlags(fs *flag.FlagSet) (n int) {
	fs.VisitAll(func(*flag.Flag) { n++ })
	return n
}

// printFlags prints one line per flag, its short name first.
func printFlags(w *tabwriter.Writer, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		if isShort(f) {
			return
		}
		name := "    --" + f.Name
		if s := shortOf(fs, f.Name); s != "" {
			name = "-" + s + ", --" + f.Name
		}
		value, text := flag.UnquoteUsage(f)
		if value != "" && !isBool(f) {
			name += " " + strings.ToUpper(value)
		}
		fmt.Fprintf(w, "  %s\t%s\n", name, text)
	})
}

func isShort(f *flag.Flag) bool { return strings.HasPrefix(f.Usage, aliasOf) }

// shortOf returns the short name of a flag, or "".
func shortOf(fs *flag.FlagSet, name string) (s string) {
	fs.VisitAll(func(f *flag.Flag) {
		if f.Usage == aliasOf+name {
			s = f.Name
		}
	})
	return s
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}
