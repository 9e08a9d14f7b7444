package runtime

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/huskrun/husk/rootfs"
	"github.com/huskrun/husk/seccomp"
)

// Error is what every operation of this package returns when it fails: what was
// being done, to which container, because of which field of config.json, and the
// cause. errors.Is and errors.As reach the system call's errno through Err.
type Error struct {
	Op    string // operation: "create", "start", "kill", …
	ID    string // container id, "" when there is none yet
	Field string // JSON pointer into config.json, "" when no field is to blame
	Path  string // path inside the container or on the host, "" when none is meant
	Err   error  // the cause
	Hint  string // what to do about it, "" when the error says it all
	Exit  int    // exit status a shell would give: 126 or 127 when the process could not be executed, 128+n when signal n was faster, else 0
}

// Error says it in one line: "create ci-42: /mounts/3 (/data): bind /srv/data: no such file or directory".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.ID != "" {
		b.WriteString(" " + e.ID)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	if e.Path != "" && e.Field != "" {
		b.WriteString(" (" + e.Path + ")")
	}
	b.WriteString(": " + e.Err.Error())
	return strings.TrimPrefix(b.String(), ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// The causes that engines match by their text (containerd, moby, CRI-O, BuildKit):
// the words are part of the contract.
var (
	ErrExist      = errors.New("container with given ID already exists")
	ErrNotExist   = errors.New("container does not exist")
	ErrNotRunning = errors.New("container not running")
	ErrNotPaused  = errors.New("container not paused")
	ErrRunning    = errors.New("cannot start an already running container")
	ErrStopped    = errors.New("cannot start a container that has stopped")
	ErrBusy       = errors.New("container is locked by another operation")
)

// wrap gives err the operation and container it belongs to and looks up a hint.
// An *Error that a deeper layer made keeps its field and path.
func wrap(op, id string, err error) error {
	if err == nil {
		return nil
	}
	e := asError(err)
	e.Op, e.ID = op, id
	if op == "exec" && e.Exit == 0 {
		e.Exit = 255 // what else can fail must not look like the process's own status
	}
	if op == "create" {
		e.Exit = 0 // it executes nothing: 126 and 127 are for start and run
	}
	if e.Hint == "" {
		e.Hint = hint(e)
	}
	return e
}

// asError is err, or one with nothing else to say.
func asError(err error) *Error {
	if e, ok := err.(*Error); ok {
		return e
	}
	return &Error{Err: err}
}

// at gives err the config field and path that it is about.
func at(field, path string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Field: field, Path: path, Err: err}
}

// fieldError turns what a package below found about one field into an *Error. Several
// findings at once, joined, name their fields themselves.
func fieldError(err error) error {
	switch e := err.(type) {
	case *rootfs.FieldError:
		return at(e.Field, e.Path, e.Err)
	case *seccomp.FieldError:
		return at(e.Field, "", e.Err)
	case *cgroups.FieldError:
		if e.File != "" {
			return at(e.Field, "", fmt.Errorf("write %q to %s: %w", e.Value, e.File, e.Err))
		}
		return at(e.Field, "", e.Err)
	}
	return err
}

// hints is the one table of advice: the first row whose every given key matches wins.
var hints = []struct {
	cause error  // errors.Is(err, cause)
	field string // prefix of the config field
	text  string // part of the error's text
	hint  string
}{
	{cause: ErrExist, hint: "choose another id, or remove the old container with: husk delete --force ID"},
	{cause: ErrNotExist, hint: "husk list shows the containers of this state root; --root picks another root"},
	{cause: ErrRunning, hint: "husk exec runs another process in it"},
	{cause: ErrStopped, hint: "delete it and create it again: husk delete ID"},
	{cause: syscall.EBUSY, field: "/linux/cgroupsPath", hint: "the cgroup is in use: set another cgroupsPath, or end the processes in it"},
	{cause: syscall.ENOENT, field: "/linux/cgroupsPath", text: "systemd", hint: "is systemd running, and its bus to be reached from here? Without it: husk --cgroup-manager cgroupfs"},
	{cause: syscall.EROFS, field: "/linux/cgroupsPath", hint: "cgroups are mounted read-only: remount them read-write, or do without limits by husk --cgroup-manager disabled"},
	{cause: ErrBusy, hint: "another husk command works on this container; try again when it has ended"},
	{cause: syscall.ENOEXEC, field: "/process", hint: "the file is neither a program of this machine's architecture nor a script that starts with #!"},
	{cause: syscall.ENOENT, field: "/process/args", text: "interpreter", hint: "the program exists but the interpreter in its #! line or ELF header does not: add it to the rootfs"},
	{cause: syscall.ENOENT, field: "/process/args", hint: "the path is looked up inside the rootfs, with PATH of /process/env"},
	{cause: syscall.EACCES, field: "/process/args", hint: "check that the file is executable for /process/user, and that its mount is not noexec"},
	{cause: syscall.ENOENT, field: "/mounts", hint: "the source of a bind mount must exist on the host; a relative one is looked up in the bundle"},
	{cause: syscall.ENODEV, field: "/mounts", hint: "the kernel has no such filesystem type (see /proc/filesystems)"},
	{cause: syscall.EINVAL, field: "/mounts", text: "id-map ", hint: "this kernel, or the filesystem, knows no id-mapped mounts (with ridmap also one mounted below): leave out idmap and the mappings"},
	{cause: syscall.EPERM, field: "/mounts", text: "id-map ", hint: "it needs CAP_SYS_ADMIN in the user namespace that the filesystem was mounted in, a mapping that is not the host's own, and a source that is not id-mapped already"},
	{cause: syscall.EOVERFLOW, field: "/mounts", text: "chmod ", hint: "the mapping leaves out who owns the new tmpfs, so its mode cannot follow the directory below: add mode= to the options"},
	{cause: syscall.EINVAL, field: "/mounts", text: "pidns=", hint: "to mount the procfs of a PID namespace that the container's user namespace does not own takes Linux 6.17: join the owning user namespace too, or bind /proc"},
	{cause: syscall.EINVAL, text: "option \"context=", hint: "SELinux is off, or its policy has no such label (/linux/mountLabel, or the mount's own options)"},
	{cause: syscall.EINVAL, field: "/mounts", hint: "an option is unknown to this filesystem or has a bad value"},
	{cause: syscall.EPERM, field: "/mounts", text: "mount_setattr ", hint: "in a user namespace a mount of the host keeps its ro, nosuid, nodev, noexec and access times: leave out rw, suid, dev, exec and what changes access times"},
	{cause: syscall.EPERM, field: "/mounts", hint: "mounting this needs privileges over the namespace that owns it; a user namespace cannot mount every filesystem"},
	{cause: syscall.ENOENT, field: "/root", hint: "root.path is relative to the bundle directory"},
	{cause: syscall.EPERM, field: "/process/rlimits", hint: "raising a hard limit needs CAP_SYS_RESOURCE, and RLIMIT_NOFILE ends at the sysctl fs.nr_open"},
	{cause: syscall.EPERM, field: "/process/scheduler", text: "SCHED_DEADLINE", hint: "SCHED_DEADLINE needs CAP_SYS_NICE on the host, which an exec into a user namespace lacks, and a process that may use every CPU: neither a cpuset nor execCPUAffinity"},
	{cause: syscall.EPERM, field: "/process/scheduler", hint: "real time and a lower nice value need CAP_SYS_NICE on the host; where the kernel has CONFIG_RT_GROUP_SCHED, real time needs a cgroup with cpu.rt_runtime_us, too"},
	{cause: syscall.EBUSY, field: "/process/scheduler", hint: "the processors' bandwidth for deadlines is used up: lower runtime or raise period (kernel.sched_rt_runtime_us bounds the sum)"},
	{cause: syscall.EOPNOTSUPP, field: "/process/scheduler", hint: "this kernel has no utilization clamping (CONFIG_UCLAMP_TASK): remove the SCHED_FLAG_UTIL_CLAMP flags"},
	{cause: syscall.EINVAL, field: "/process/scheduler", hint: "see sched_setattr(2); kernel.sched_deadline_period_min_us and _max_us bound the period"},
	{cause: syscall.EPERM, field: "/process/ioPriority", hint: "IOPRIO_CLASS_RT needs CAP_SYS_NICE or CAP_SYS_ADMIN on the host"},
	{cause: syscall.EINVAL, field: "/process/execCPUAffinity", hint: "none of these CPUs is online and in the cpuset"},
	{cause: syscall.EINVAL, field: "/linux/memoryPolicy", hint: "none of the nodes has memory that the cpuset allows (/linux/resources/cpu/mems), or the mode is newer than the kernel: MPOL_WEIGHTED_INTERLEAVE needs Linux 6.9"},
	{cause: syscall.EINVAL, field: "/linux/personality", hint: "this processor runs no 32-bit programs"},
	{cause: syscall.ENOENT, field: "/process/apparmorProfile", hint: "no such profile is loaded: load it with apparmor_parser --replace FILE; aa-status lists those that are"},
	{cause: syscall.EACCES, field: "/process/apparmorProfile", hint: "husk runs under a profile itself, which needs the rule: change_profile -> PROFILE,"},
	{cause: syscall.EINVAL, field: "/process/selinuxLabel", hint: "the policy has no such label; it is written as in system_u:system_r:container_t:s0"},
	{cause: syscall.EACCES, field: "/process/selinuxLabel", hint: "the policy does not let husk's own domain choose labels (process setexec, setkeycreate)"},
	{cause: syscall.EACCES, field: "/process/oomScoreAdj", hint: "lowering oom_score_adj needs CAP_SYS_RESOURCE"},
	{cause: syscall.ENOENT, field: "/linux/sysctl", hint: "this kernel has no such setting, or a module is not loaded"},
	{cause: syscall.EPERM, field: "/linux/namespaces", hint: "creating or joining this namespace needs CAP_SYS_ADMIN, or a user namespace"},
	{cause: syscall.ENOSPC, field: "/linux/namespaces", hint: "a limit in /proc/sys/user/max_*_namespaces is reached"},
	{cause: syscall.ENOENT, field: "/linux/namespaces", hint: "the namespace file does not exist; was the process or mount that held it removed?"},
	{cause: syscall.ENOENT, field: "/linux/seccomp/listenerPath", hint: "start the agent first: it makes this unix stream socket and listens on it"},
	{cause: syscall.ECONNREFUSED, field: "/linux/seccomp/listenerPath", hint: "nobody listens there: start the agent (again) first"},
	{cause: syscall.EPROTOTYPE, field: "/linux/seccomp/listenerPath", hint: "the agent has to listen on a stream socket (SOCK_STREAM)"},
	{cause: syscall.EPERM, field: "/linux/seccomp", text: "pidfd_getfd", hint: "husk takes the listener out of the container's process, which needs the rights of ptrace(2) over it"},
	{cause: syscall.ENODEV, field: netDevicesField, hint: "ip link lists the devices of this network namespace; one that a container has is not there"},
	{cause: syscall.EEXIST, field: netDevicesField, hint: "give it another name there, or one with %d in which the kernel puts a number"},
	{cause: syscall.ENODEV, text: "bridge: ", hint: "make the bridge with: ip link add NAME type bridge, or name one that husk makes and removes, as in husk0"},
	{cause: syscall.EINVAL, text: " is no bridge", hint: "ip link show type bridge lists them; one whose name begins with husk is made if it is missing"},
	{text: "address: auto takes one", hint: "add bridge=husk0, or write the address"},
	{cause: syscall.EADDRINUSE, text: " is that of ", hint: "write another address, or address=auto, which takes one that is free"},
	{cause: syscall.EADDRINUSE, text: "bridge ", hint: "take the gateway that the bridge has, another bridge, or a network that is nobody's: ip addr shows whose there are"},
	{cause: syscall.EADDRNOTAVAIL, text: "bridge ", hint: "address=auto takes addresses of the bridge's network; write another bridge, or the address"},
	{cause: syscall.EEXIST, text: "host-name: ", hint: "leave out host-name, and the kernel numbers the host's end, or write another name"},
	{cause: syscall.EEXIST, text: "the container has a network device", hint: "the kernel makes that one in every network namespace: give the interface another name"},
	{cause: syscall.EEXIST, text: "make network device", hint: "its name, or that of host-name, was taken a moment ago: write another one"},
	{cause: syscall.EHOSTUNREACH, text: "masquerade and publish: ", hint: "add the word forwarding, or: sysctl -w net.ipv4.ip_forward=1 (and net.ipv6.conf.all.forwarding=1 for IPv6)"},
	{cause: syscall.EADDRNOTAVAIL, text: "publish: ", hint: "ip addr shows the addresses of the host; leave the address out to publish at every one, or write one of the host's other addresses"},
	{text: "comes back to ::1", hint: "write 127.0.0.1, or another address of the host"},
	{cause: syscall.EADDRINUSE, text: "publish: ", hint: "write another port of the host; ss -lntup shows the programs that listen, nft list table inet husk the containers that publish"},
	{cause: syscall.ENXIO, text: "allow: ", hint: "the name is looked up once, on the host: give one that it knows, or the address"},
	{cause: syscall.EINVAL, text: "allow: ", hint: "in the container that would be the container itself: give the address that the host has at the bridge"},
	{text: "packet filter: allow: ", hint: "allow needs nftables in the kernel: the modules nf_tables and nft_reject_inet; nft list table inet husk_allow shows what is there"},
	{text: "packet filter: ", hint: "masquerade and publish need nftables in the kernel: the modules nf_tables, nft_chain_nat, nft_ct, nft_fib_inet, nft_masq and nft_nat; nft list table inet husk shows what is there"},
	{cause: syscall.EAGAIN, text: "lock the host's network namespace", hint: "try again; /proc/locks shows who keeps a FLOCK on the inode of /proc/self/ns/net"},
	{cause: syscall.EEXIST, text: "the gateway: ", hint: "another interface has a default route of this family already: leave out one of the gateways"},
	{cause: syscall.EACCES, text: "IPv6 is disabled", hint: "leave out addresses of IPv6, or have it: sysctl -w net.ipv6.conf.default.disable_ipv6=0"},
	{cause: syscall.EOPNOTSUPP, text: "nknown device type", hint: "the kernel lacks the devices: modprobe veth, modprobe bridge"},
	{cause: errNoServers, hint: "give name servers that the container can reach, as in dns=192.0.2.53, or leave /etc/resolv.conf as it is by dns=none"},
	{cause: syscall.EROFS, text: " /etc/", hint: "the file is to be bound on one that is missing in a root filesystem which cannot be written: make an empty one there, or leave out the word of the interface"},
	{cause: os.ErrNotExist, text: "package passt", hint: "install the package passt, or run husk as root"},
	{text: "pasta: exit status 1: Failed to open", hint: "pasta needs to read and write /dev/net/tun, which everybody may as a rule: modprobe tun, chmod 666 /dev/net/tun"},
	{text: "pasta: exit status 1: ", hint: "if it is about ports: ss -lntup shows which are taken, and those below net.ipv4.ip_unprivileged_port_start are root's"},
	{cause: syscall.EPERM, text: ": needs CAP_NET_ADMIN", hint: "leave out the word, or run husk as root: the interface of an ordinary user's container is made by pasta, which has no bridges"},
	{cause: errNoLinks, hint: "build husk with make"},
	{cause: errNoUnpacker, hint: "build husk with make"},
	{cause: syscall.EPERM, field: netDevicesField, hint: "moving a network device needs CAP_NET_ADMIN over the namespace it is in: run husk as root of the host"},
	{cause: syscall.EINVAL, field: netDevicesField, text: "move", hint: "not every device can leave its network namespace: lo and the kernel's own tunnel devices cannot"},
	{cause: syscall.ENOENT, field: "/annotations/" + AnnotationLandlock, hint: "directories and files to write to are looked up in the container, when all is mounted"},
	{cause: syscall.ENOENT, field: "/hooks", hint: "hook paths are absolute and looked up on the host"},
	{cause: syscall.ENOSPC, field: resctrl.Pointer, hint: "the CPU has no more of these: remove directories of resctrl that nobody uses (rmdir), or share a class by closID"},
	{cause: syscall.EACCES, field: resctrl.Pointer, hint: "only root may change resctrl"},
	{cause: syscall.ENOENT, field: resctrl.Pointer + "/closID", hint: "give l3CacheSchema, memBwSchema or schemata to have it made"},
	{field: resctrl.Pointer, text: "does not match the class", hint: "use another closID, the schema that the class has, or none"},
	{cause: resctrl.ErrNotMounted, field: resctrl.Pointer, hint: "if the CPU has Intel RDT or the like: mount -t resctrl resctrl /sys/fs/resctrl"},
	{cause: os.ErrDeadlineExceeded, field: resctrl.Pointer, hint: "lslocks shows who holds the lock; try again when it is given up"},
	{cause: errNoClass, hint: "create it with linux.intelRdt in its config; {} gives it a class of its own"},
	{cause: syscall.EPERM, field: resctrl.Pointer, text: "default class", hint: "create the container with a class of its own (no closID), or change the default class by hand"},
	{cause: syscall.EEXIST, field: resctrl.Pointer + "/enableMonitoring", hint: "remove the monitoring group if nobody uses it (rmdir), or choose another id"},
	{cause: syscall.EEXIST, field: resctrl.Pointer + "/closID", hint: "another program has made it at the same time: try again"},
	{cause: syscall.EEXIST, field: resctrl.Pointer, hint: "remove the class if nobody uses it (rmdir), name it as closID to share it, or choose another id"},
	{cause: syscall.ENOSYS, hint: "husk needs Linux 5.14 or newer, and a system call filter above husk that lets it make containers"},
	{cause: syscall.EROFS, hint: "the file system is mounted read-only"},
	{cause: syscall.ENOSPC, hint: "no space left: free some, or use another file system (--root; for a report or a profile, its path)"},
	{cause: syscall.EAGAIN, text: "clone", hint: "a limit on processes is reached: ulimit -u, pids.max or kernel.pid_max"},
}

func hint(e *Error) string {
	text := e.Err.Error()
	for _, h := range hints {
		if h.cause != nil && !errors.Is(e.Err, h.cause) {
			continue
		}
		if !strings.HasPrefix(e.Field, h.field) || !strings.Contains(text, h.text) {
			continue
		}
		return h.hint
	}
	return ""
}
