package namespaces

import _ "unsafe" // go:linkname

// procPin keeps the scheduler from taking the calling goroutine off its thread. Package
// runtime keeps it for users like us.
//
//go:linkname procPin runtime.procPin
func procPin() int

// Pin has the calling thread make no system call but those of the code that it runs, from
// here to execve(2): a filter is about to be loaded that may kill for any other. Raw system
// calls have the scheduler do nothing; but to it one that takes long looks like a goroutine
// that does not give way, and whoever gives way in a locked thread wakes another one by
// futex(2), or makes one.
func Pin() { procPin() }
