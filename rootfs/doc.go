// Package rootfs turns the filesystem part of a configuration into a flat list
// of steps and carries them out.
//
//	specs.Spec ──Compile──▶ []Step ──(wire)──▶ Root.Apply, one by one
//	 (parent)                │                   (child, in its namespaces)
//	                         └─Step.Open: what only the parent can open,
//	                           sent along as a detached mount
//
// Compile decides, Apply obeys: there is no policy in the child. Four rules
// hold everywhere in this package, each paid for by somebody's CVE:
//
//   - A path inside the container is resolved by the kernel, below a descriptor
//     of the container's root (openat2, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS),
//     and what is missing is created by single component below a descriptor.
//     Nothing is looked up twice: what was checked is what is used.
//   - A mount is made detached, gets its flags while nobody can see it, and is
//     then attached by move_mount(2) onto a descriptor. No mount(2), no
//     /proc/self/fd strings, no second look-up for a "remount".
//   - procfs is only used through a private instance that no mount inside the
//     container can cover (see Proc).
//   - An inode of the container (ptmx, null) is verified before it is opened.
//
// What the parent opens it gives its flags and, for an id-mapped mount, its
// mapping: the kernel wants rights over the filesystem for that, which a user
// namespace never has over the host's. So an id-mapped mount is always made by the
// parent, also where it is a new filesystem.
//
// The child half runs in a process with one thread that must stay so; hence the
// raw system calls of sys.go and no os.File. Kernel floor: 5.14.
package rootfs
