// Command unpacker reads images and writes their layers, for package image: its root
// directory and its users are those of the layer that it is writing. It is embedded in
// husk, and executed, with the conversation as descriptor 3, only for images that are not
// in the store yet.
package main

import (
	"fmt"
	"os"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs/image/unpack"
)

func main() {
	if err := unpack.Serve(namespaces.FromFD(3)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
