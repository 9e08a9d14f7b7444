// Package cgroups gives a container its control group (cgroup v2).
//
// The work falls into two halves. The pure half turns configuration into data:
// [Path], [Compile] and [CompileDevices] touch nothing and report every mistake
// at once, each with its JSON pointer. The other half acts on a [Group], which
// is a directory file descriptor: nothing is ever resolved twice by name.
//
//	Path ──► Missing ──► Create ──► FD ──► (child is born inside, CLONE_INTO_CGROUP)
//	                       │
//	Compile ───────────► Apply(early), AttachDevices … Apply(late)
//	                       │
//	                     Kill, WaitEmpty ──► Remove
//
// While the container runs:
//
//	Open ──► Stats, Limits, Procs ── what it uses, what is set, who is inside
//	     ──► Compile ─► Require ─► Update(limits, AttachDevices …) ── all or nothing
//	     ──► Freeze, Thaw, Kill; Below ── a group inside
//
// limits.md shows which field of the configuration becomes what. Where a caller
// without privileges may make groups, [Delegated] says.
//
// The child is born in its group rather than moved into it: a write to
// cgroup.procs waits for an RCU grace period (9 ms after a quiet moment),
// CLONE_INTO_CGROUP does not, and no process ever runs outside its limits.
//
// Limits come early or late. The re-exec'd child runs inside the group while it
// builds the container, so what could strangle it (memory, pids, cpu.max,
// whatever "unified" says) is written only when it is parked.
//
// Every function may be called with the group gone; none waits without a
// deadline; none needs more descriptors the deeper groups nest.
package cgroups
