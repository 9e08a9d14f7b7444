// Command compiler is the half of husk's seccomp support that needs libseccomp:
// a profile (the JSON text of /linux/seccomp) on standard input becomes an
// encoded filter on standard output. Mistakes are lines on standard error, each
// a JSON pointer, a tab and a text. With the argument "version" it prints that
// of its libseccomp.
//
// It is linked statically (make does), embedded in husk and run from memory, so
// it must need nothing: no files, no environment, no arguments.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/huskrun/husk/seccomp"
	"github.com/huskrun/husk/seccomp/libseccomp"
)

func main() {
	debug.SetGCPercent(-1) // it lives for milliseconds
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println(libseccomp.Version())
		return
	}
	out, err := compile(os.Stdin)
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	if err != nil {
		complain(err)
		os.Exit(1)
	}
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
