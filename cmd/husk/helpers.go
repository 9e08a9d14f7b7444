package main

import (
	"embed"
	"io"

	"github.com/huskrun/husk/seccomp"
)

// helpers has the programs that make builds beside this file: what they are made of would
// cost every start of husk too much. The patterns also match text files, so that a plain
// go build, which has none of them, works.
//
//go:embed seccomp-compiler* network-helper* image-helper*
var helpers embed.FS

// helper returns a program, to be read where it lies in husk, or nil.
func helper(name string) io.ReaderAt {
	f, err := helpers.Open(name)
	if err != nil {
		return nil
	}
	return f.(io.ReaderAt)
}

// seccompCompiler returns nil where there is no program to compile with.
func seccompCompiler() seccomp.Compiler {
	program := helper("seccomp-compiler")
	if program == nil {
		return nil
	}
	return seccomp.External(program)
}
