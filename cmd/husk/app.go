package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/huskrun/husk/runtime"
)

// app is one call of husk: its standard streams and its global flags.
type app struct {
	stdout, stderr io.Writer

	root      string
	debug     bool
	log       string
	logFormat string
	rootless  string
	cgroups   string // manager

	properties string // of systemd units that annotations may set

	netAnnotations bool // annotations may make network interfaces

	through func(*os.File) io.Writer // the way to our terminal, nil: directly

	held   []string // warnings for the log
	failed int      // exit status of a failure
}

// usageError is a mistake on the command line, found before anything was done.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

func usage(hint, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), hint}
}

// Exit statuses. Engines and scripts know 3 from runc.
const (
	exitError   = 1
	exitUnknown = 3 // no such command
)

var errUnknown = errors.New("unknown command")

// main runs one command line and returns the exit status.
func (a *app) main(args []string) int {
	status, err := a.dispatch(args)
	if err == nil {
		a.logWarnings()
		return status
	}
	a.report(err)
	status = exitStatus(err)
	if status == exitError && a.failed != 0 {
		return a.failed
	}
	return status
}

func exitStatus(err error) int {
	var re *runtime.Error
	switch {
	case errors.Is(err, errUnknown):
		return exitUnknown
	case errors.As(err, &re) && re.Exit != 0:
		return re.Exit
	}
	return exitError
}

// dispatch parses the global flags, finds the command and runs it.
func (a *app) dispatch(args []string) (int, error) {
	fs := newFlags("husk")
	version := a.globals(fs)
	err := fs.Parse(args)
	rest := fs.Args()
	switch {
	case errors.Is(err, flag.ErrHelp) || err == nil && len(rest) == 0 && !*version:
		return 0, a.help()
	case err != nil:
		return 0, usage("husk help lists the commands and global flags", "%v", err)
	case *version:
		return 0, a.version()
	}
	if err := a.check(); err != nil {
		return 0, err
	}
	c := find(rest[0])
	if c == nil {
		return 0, unknown(rest[0])
	}
	return a.run(c, rest[1:])
}

// unknown says that there is no such command. Engines ask for help with two that runc
// has, and take success for a yes.
func unknown(name string) error {
	if name == "checkpoint" || name == "restore" {
		return fmt.Errorf("%w %q: checkpoints are not built yet", errUnknown, name)
	}
	return fmt.Errorf("%w %q", errUnknown, name)
}

// run parses the flags of c and does what it is for.
func (a *app) run(c *command, args []string) (int, error) {
	a.failed = c.failed
	fs := newFlags(c.name)
	act := c.setup(fs)
	words, err := c.parse(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, a.helpFor(c)
	}
	if err != nil {
		return 0, usage(flagHint(c, args), "%s: %v", c.name, err)
	}
	if err := c.arity(words); err != nil {
		return 0, err
	}
	a.trace(c.name, args)
	return act(a, words)
}

// parse returns the positional arguments. Flags end with the first of them, for it may be
// followed by a command with flags of its own, where the table does not say otherwise.
func (c *command) parse(fs *flag.FlagSet, args []string) (words []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if !c.mixed || len(rest) == 0 {
			return append(words, rest...), nil
		}
		words, args = append(words, rest[0]), rest[1:]
	}
}

// arity checks the number of positional arguments.
func (c *command) arity(args []string) error {
	hint := "usage: husk " + c.usage()
	switch {
	case len(args) < c.min:
		return usage(hint, "%s: too few arguments", c.name)
	case c.max >= 0 && len(args) > c.max:
		if last := args[len(args)-1]; strings.HasPrefix(last, "-") {
			hint = "flags go before the container's id: husk " + c.name + " " + last + " ID"
		}
		return usage(hint, "%s: too many arguments: %q", c.name, args)
	}
	return nil
}

// flagHint explains a flag that the command does not have: the usual reason is a
// global one that came too late.
func flagHint(c *command, args []string) string {
	global := newFlags("")
	new(app).globals(global)
	own := newFlags("")
	c.setup(own)
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && own.Lookup(name) == nil && global.Lookup(name) != nil {
			return "global flags go before the command: husk --" + name + " … " + c.name
		}
	}
	return "husk help " + c.name + " lists its flags"
}
