// Package runtime runs OCI bundles.
//
// It compiles a config.json into a flat plan, executes the calling program once more as
// the container's init, which interprets that plan, and keeps the small state that
// create, start, kill and delete share:
//
//	create  LoadSpec → Validate → Compile → intent record
//	        → network helper → cgroup → class of service → Spawn
//	                                         ┌─ PLAN ─────→ init: mounts, devices, pivot, …
//	        limits, device program,          │
//	        join the class, network devices, │
//	        hooks ───────────────────────────┤
//	                                         └←──── READY ─ init: parked
//	        GO, record
//	start   connect → START ───────────────────────────────→ init: privileges, filter
//	        listener, to its agent  ←───────────── LISTENER ─ if the filter has one
//	        RESUME ────────────────────────────────────────→ init: execve
//	        EOF: execve succeeded; a packet: why not  ←──────
//	exec    what create kept → Spawn, joining → PLAN ──────→ init: drawn in exec.go
//	delete  cgroup.kill → empty → rmdir → bridges, class of service → poststop hooks → state
//
// What else is done to a container that exists (pause, resume, update, ps, events) needs
// its record and its cgroup only; whoever changes something holds the container's lock.
//
// The plan (plan.go) is a list of steps, each with the JSON pointer of the field it
// comes from; the init (init.go) is one loop with one switch over them. What crosses
// between the two is in wire.go, what stays on disk in record.go and store.go.
//
// A program that imports this package is its own init: the package takes over, before
// main, where the program was executed with the name "husk-init". [Runtime.Create] and
// [Runtime.Run] have effects on the calling process: every descriptor above 2 becomes
// close-on-exec, the soft limit on open files returns to what it was before the Go
// runtime raised it, and a foreground Run makes the process a subreaper.
package runtime
