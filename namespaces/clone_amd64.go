//go:build !race && !msan && !asan

package namespaces

// canShare says that cloneShared exists; tests switch it off.
var canShare = true

// cloneShared is clone3 with CLONE_VM and a stack: the child calls runShared(h)
// there.
//
//go:noescape
func cloneShared(args *cloneArgs, size uintptr, h *half) (pid, errno uintptr)

// runShared is called by the child of cloneShared.
//
//lint:ignore U1000 the assembly calls it
//go:nosplit
//go:norace
func runShared(h *half) { h.run() }
