// Package systemd lets systemd make the control groups of containers.
//
// With systemd in charge of the hierarchy a group is a unit: a scope, transient, in a
// slice. systemd makes it, moves the container's first process into it and delegates it;
// limits are properties of the unit, for what is only written to the group's files
// systemd may write anew.
//
//	Parse ──► Unit ─────────┐
//	Properties, ParseProperty ──► Manager.Start ──► cgroup ──► Set … Stop
//
// systemd is spoken to over D-Bus, by a client of our own: the common one for Go brings
// package net and reflection into every start of the program. It connects to the
// manager's own socket where it may, so that no message bus needs to run or to answer.
// Nothing that comes from there is trusted: it may be long, wrong, or not come at all.
// Every wait has a deadline, and every error names the unit.
//
// A unit that is active is somebody's, and never touched; one of the same name that
// failed is forgotten. If systemd goes away while it works, as it does to execute itself
// anew, it is asked once more, after a look at what has become of the unit.
package systemd
