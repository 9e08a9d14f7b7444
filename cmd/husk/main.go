// At every start the Go runtime would look for a CPU limit in /proc/self/mountinfo
// and the cgroup files, and go on polling it: a file that is long on a host with a
// thousand containers, read by a program that runs for two milliseconds.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command husk runs OCI containers: it is the program that an engine, or a person
// with a bundle, calls to create, start, signal and delete them.
//
// Everything that matters is in package runtime; here are the command line, what
// is printed, and the terminal of a foreground run.
package main

import (
	"os"

	"github.com/huskrun/husk/runtime"
)

func main() {
	runtime.Init() // does not return in a container's init
	a := &app{stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(a.main(os.Args[1:]))
}
