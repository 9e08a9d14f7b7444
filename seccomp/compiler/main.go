// Command compiler is the half of husk's seccomp support that needs libseccomp:
// a profile (the JSON text of /linux/seccomp) on standard input becomes an
// encoded filter on standard output. Mistakes are lines on standard error, each
// a JSON pointer, a tab and a text. With the arguments "calls ARCHITECTURE" it
// prints the numbers and names of that architecture's system calls, and with
// "version" the version of its libseccomp.
//
// It is linked statically (make does), embedded in husk and run from memory, so
// it must need nothing: no files, no environment.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/huskrun/husk/seccomp"
	"github.com/huskrun/husk/seccomp/libseccomp"
)

func main() {
	debug.SetGCPercent(-1) // it lives for milliseconds
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println(libseccomp.Version())
		return
	}
	if err := answer(os.Args[1:]); err != nil {
		complain(err)
		os.Exit(1)
	}
}

func answer(args []string) error {
	if len(args) == 2 && args[0] == "calls" {
		calls, err := libseccomp.Calls(specs.Arch(args[1]))
		if err != nil {
			return err
		}
		return seccomp.WriteCalls(os.Stdout, calls)
	}
	out, err := compile(os.Stdin)
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	return err
}

func compile(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	f, err := libseccomp.Compiler().Compile(text)
	if err != nil {
		return nil, err
	}
	return f.MarshalBinary()
}

func complain(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			complain(e)
		}
		return
	}
	var f *seccomp.FieldError
	if errors.As(err, &f) {
		fmt.Fprintf(os.Stderr, "%s\t%v\n", f.Field, f.Err)
		return
	}
	fmt.Fprintln(os.Stderr, err)
}
