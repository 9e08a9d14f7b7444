// The Go runtime would fit itself to the CPU limit of its cgroup and go on polling it,
// in a program that runs for two milliseconds. (It reads the limit once all the same.)
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command husk runs OCI containers: it is the program that an engine, or a person
// with a bundle, calls to create, start, signal and delete them.
//
// Everything that matters is in package runtime; here are the command line, what
// is printed, and the terminal of a foreground run.
package main

import "os"

func main() {
	a := &app{stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(a.main(os.Args[1:]))
}
