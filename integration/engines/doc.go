// Package engines runs container engines with husk below them: Docker, containerd and
// Podman, the last for root and for an ordinary user, as Debian packages them, their
// daemons started by hand; and containerd once more as a node of Kubernetes has it, and
// CRI-O, which no suite of Debian has and root.sh builds, with crictl and critest in the
// place of the kubelet. It holds tests only; make test-engines runs them, in some twenty
// minutes on an idle machine with two processors.
//
// Everything happens in a box (box_test.go): a throw-away Debian root (root.sh), which
// is kept, below an overlay, which is not, in mount, PID, network, IPC, UTS and cgroup
// namespaces of its own, with a cgroup2 file system that shows the box's own subtree.
// Engines find a machine to themselves; the machine finds nothing.
//
// A second time everything happens in a virtual machine (../vm) that has the same root for
// its own and that systemd has booted: cgroups have every controller there, and engines
// either make them themselves or have systemd do it. An emulated machine is slow; so it runs
// only the scripts whose course depends on controllers or on systemd (setting.tells): limits and
// that they limit, what a container uses, updates, kills for want of memory, pauses, the
// slices of pods, timers of health checks, restarts of daemons, an ordinary user's delegated
// cgroups.
//
// What an engine has to do is written down as scripts in testdata. The same script runs
// with every engine that it is for and with every runtime, runc first: so a failure with
// both is the engine's, the root's or the script's, one with husk alone is husk's. After
// each script the box is searched for what is left: processes, mounts, cgroups, links,
// state files.
//
// Environment:
//
//	ENGINES_ROOT      the throw-away root, as root.sh prints it; "/" if the whole machine is;
//	                  without it nothing is tested
//	ENGINES_RUNTIMES  which to test, default "runc husk"
//	HUSK              the binary to test, default ../../husk
//	HUSK_PATIENCE     multiplies the time that something may take
package engines
