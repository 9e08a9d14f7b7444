package main

import (
	"embed"
	"io"

	"github.com/huskrun/husk/seccomp"
)

// helpers has the seccomp compiler if make built it: the pattern also matches a text
// file, so that a plain go build works.
//
//go:embed seccomp-compiler*
var helpers embed.FS

// seccompCompiler returns nil in a plain go build, which has no C program to embed.
func seccompCompiler() seccomp.Compiler {
	f, err := helpers.Open("seccomp-compiler")
	if err != nil {
		return nil
	}
	return seccomp.External(f.(io.ReaderAt)) // read where it lies, not copied
}
