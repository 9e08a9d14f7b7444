// Package changes reads what has been written to the upper directories of overlays with
// the option scratch.
//
//	Mark ──▶ (the container lives and ends) ──▶ Walk ──▶ Count
//	                                              └────▶ package writer: a directory, a layer
//
// Whoever wrote there is not to be trusted, and is dead by then. Everything is found below
// a descriptor of the tmpfs, and no symbolic link is followed. What is written elsewhere
// is written by package writer, in a program of its own.
package changes
