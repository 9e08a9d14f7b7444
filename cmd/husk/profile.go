package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/huskrun/husk/runtime"
)

// recordProfile runs a bundle, and returns its process's exit status.
func (a *app) recordProfile(bundle, base, output string) (int, error) {
	r := a.runtime()
	path := output
	if output == "-" {
		path = ""
	}
	rec, err := r.NewRecording(base, path)
	if err != nil {
		return 0, err
	}
	defer rec.Close()
	var o runtime.RunOptions
	status, err := a.onTerminal(&o.Terminal, func() (int, error) {
		return r.Record("recording-"+strconv.Itoa(os.Getpid()), bundle, rec, o)
	})
	if err != nil {
		return status, err
	}
	p, err := r.Recorded(rec)
	if err != nil {
		return 0, err
	}
	if output == "-" {
		return status, a.printJSON(p, "\t")
	}
	data, err := marshal(p, "\t")
	if err != nil {
		return status, err
	}
	return status, a.saveProfile(rec, data)
}

// saveProfile prints a profile that cannot be written: the run may have been a long one.
func (a *app) saveProfile(rec *runtime.Recording, data []byte) error {
	err := rec.Save(data)
	if e, ok := errors.AsType[*runtime.Error](err); ok {
		if _, lost := a.stdout.Write(data); lost == nil {
			e.Hint = "the profile is on standard output instead"
		}
	}
	return err
}

// checkProfile prints what a profile does.
func (a *app) checkProfile(path string) error {
	e, err := a.runtime().ExplainProfile(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(a.stdout)
	for _, arch := range e.Arches {
		fmt.Fprintln(w, arch.Arch)
		for _, g := range arch.Groups {
			fmt.Fprintf(w, "  %s: %d system calls\n", g.Answer, len(g.Calls))
			wrapped(w, g.Calls)
			for _, rule := range g.Rules {
				fmt.Fprintf(w, "      %s\n", rule)
			}
		}
	}
	fmt.Fprintf(w, "other architectures: %s\n", e.Others)
	for _, part := range e.Idle {
		fmt.Fprintf(w, "without effect: %s\n", part)
	}
	return w.Flush()
}

// wrapped prints words in lines of at most 80 characters.
func wrapped(w io.Writer, words []string) {
	line := "   "
	for _, word := range words {
		if len(line)+1+len(word) > 80 {
			fmt.Fprintln(w, line)
			line = "   "
		}
		line += " " + word
	}
	fmt.Fprintln(w, line)
}
