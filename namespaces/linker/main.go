// Command linker changes network links, and what the host's packet filter does for them,
// for package namespaces: see [namespaces.Links], whose other end it is. It is embedded in
// husk, and executed, with the conversation as descriptor 3, only for containers that
// need it.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/huskrun/husk/namespaces"
)

func main() {
	debug.SetGCPercent(-1) // it lives for milliseconds
	if err := namespaces.ServeLinks(namespaces.FromFD(3), new(linker)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
