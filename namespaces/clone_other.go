//go:build !amd64 || race || msan || asan

package namespaces

// canShare is false where nobody has written cloneShared yet, and where the
// compiler adds calls for a detector of races to the wrapper of runShared.
var canShare = false

func cloneShared(*cloneArgs, uintptr, *half) (pid, errno uintptr) { panic("unreachable") }
