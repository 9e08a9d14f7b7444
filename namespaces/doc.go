// Package namespaces makes the processes of containers. [Spawn] clones a child
// into new, joined and inherited namespaces and into a cgroup, and has it
// execute the calling program again; a [Conn] is the conversation between the
// two. It needs Linux 5.14 on a 64-bit machine.
//
// One clone is the rule. The child is single-threaded until it executes, which
// setns(2) wants of one that enters a user namespace:
//
//	caller                         child
//	clone3 ──────────────────────▶ in the cgroup, in the new namespaces
//	  │                            die with the caller's thread; default signals
//	  │                            close what is not meant for it
//	  │                            setns: namespaces to join
//	  │ uid_map, gid_map           ┆ gate, if there are maps
//	  └──── boot socket ─────────▶ uid and gid 0
//	                               unshare: cgroup (rooted where it is now)
//	Conn ◀───────────────────────▶ execveat: 0-2, inherited, Conn
//
// Two clones are needed where a namespace is entered by children only, or has
// to own others: when a PID namespace is joined, when there are time offsets,
// and when a user namespace is joined or new beside others. The first child
// is then a short-lived one that joins, makes the user and time namespaces and
// passes the gate; it clones the second with CLONE_PARENT, as the caller's own
// child, in what else is new, sends its pidfd over the boot socket and exits.
//
// A third way into a PID namespace is [Last], for a process that joins a
// container: its child stays outside, executes, prepares itself, and only then
// clones the one that is born inside and executes the payload at once.
//
// # Network devices
//
// What moves or makes them is a program of its own, [Links], which boots beside the
// child and furnishes the network namespace in which the child was born:
//
//	caller            linker                          kernel
//	StartLinks ─────▶ boots
//	Wire ───────────▶ looks at everything, then ────▶ RTM_NEWLINK, RTM_NEWADDR, nftables, …
//	Wait ◀─────────── done, or all undone
//	Keep ───────────▶ ends; EOF before it: undoes all, then ends
//
// An ordinary user, who may not change links on the host, has [Pasta] instead.
//
// # Shared memory
//
// Where nothing forbids it (see setMemory), the child shares the caller's
// memory and runs on a stack of its own until it executes, instead of in a copy
// that costs page tables and faults on both sides. Medians on two idle cores
// from Spawn to the first system call of a program that is executed, for a
// caller with a heap of 3 MB:
//
//	                           copied    shared
//	no namespace               0.77 ms   0.24 ms
//	all but user and time      1.37 ms   0.84 ms  (the network namespace is 0.5)
//
// # The sealed executable
//
// [Sealed] costs 0.06 ms as an overlay by descriptor, and 1.5 ms for each MB as
// a copy in memory.
package namespaces
