// Command unpacker reads images and writes their layers, for package image: its root
// directory and its users are those of the layer that it is writing. And it writes what a
// container has changed, for package changes. It is embedded in husk, and executed, with
// the conversation as descriptor 3, only for that and for images that are not in the store.
package main

import (
	"fmt"
	"os"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs/changes"
	"github.com/huskrun/husk/rootfs/changes/writer"
	"github.com/huskrun/husk/rootfs/image/unpack"
)

func main() {
	conn, serve := namespaces.FromFD(3), func(c *namespaces.Conn) error { return unpack.Serve(c) }
	if len(os.Args) > 1 && os.Args[1] == changes.Argument {
		serve = func(c *namespaces.Conn) error { return writer.Serve(c) }
	}
	if err := serve(conn); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
