package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// newFlags returns a flag set that prints nothing by itself.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// short makes -s another name for the flag called long.
func short(fs *flag.FlagSet, s, long string) {
	f := fs.Lookup(long)
	fs.Var(f.Value, s, aliasOf+long)
}

// aliasOf marks the usage text of a short name, so that help shows both on one line.
const aliasOf = "short for --"

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

// appendTo collects the values of a flag that may be repeated.
func appendTo(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}

// listTo collects values that may also be separated by commas.
func listTo(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, strings.Split(s, ",")...)
		return nil
	}
}
