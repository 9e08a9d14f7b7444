// Package integration runs the real husk against real kernels. It holds tests
// only.
//
// Every test runs in a box of its own (see box): fresh mount, PID, network, IPC,
// UTS and cgroup namespaces below a PID 1 that reaps, with a cgroup2 file system
// whose root is the box's own subtree and tmpfs on /run, where husk keeps its
// state. Nothing a test does reaches the machine, and when a test ends the box
// is searched for what it left: processes, mounts, cgroups, links, state files
// and descriptors. Anything found fails the test.
//
// Behaviour is written down as scripts in testdata (one per behaviour, see the
// README there for the commands); what is a table or needs a race is Go. What
// happens inside a container is told by probe, a small C program, never by husk.
//
// Environment:
//
//	HUSK           the binary to test; otherwise make builds ../husk
//	HUSK_TOOLS     where the compiled helpers are; otherwise cc makes them
//	HUSK_SUITE     where the validation suite is; otherwise suite/build.sh builds it
//	CRUN RUNC      other runtimes to compare with, instead of those of make bench's root
//	HUSK_ORACLE    TestOracle only with bundles of these names (a regular expression)
//	HUSK_FULL      run the sweeps at every system call instead of a sample
//	HUSK_PATIENCE  multiplies the time that something may take
package integration
