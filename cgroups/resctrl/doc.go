// Package resctrl puts a container into a class of service of resctrl, the file system
// by which the kernel shares out caches and memory bandwidth (Intel RDT, AMD QoS, Arm
// MPAM; linux.intelRdt of a config).
//
//	/sys/fs/resctrl/             the default class
//	  schemata, tasks            what it may use; which threads are in it
//	  mon_groups/NAME/tasks      threads of the class that are counted by themselves
//	  CLASS/schemata, tasks, …   another class; mkdir makes it with its files, rmdir
//	                             returns its threads to the default class
//	  info/last_cmd_status       why the last call failed
//
// The life of a [Use], which whoever creates keeps on record:
//
//	create         Lock ──► Look ──► (record) ──► Make ──► Join ──► Close
//	exec           Join
//	update         Lock ──► Change ──► (limits) ──► Close
//	                                      └ failed: Restore ──► Close
//	failed create  Lock ──► Undo: all of it
//	delete         Remove: what is the container's own
//
// Look changes nothing, and says in advance what Make will: so that a create that is
// killed in between can be undone. The lock is flock(2) on the root directory, as the
// kernel's documentation asks of those who look before they leap. It is advisory, and
// everybody who may read the directory may take it: so Remove, which must always work,
// does without.
package resctrl
