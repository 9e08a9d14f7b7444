package runtime

import (
	goruntime "runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The default profile is an allow list: what programs use, on any architecture,
// and nothing that reaches past the container or that only administrators of a
// machine need. Whoever has a capability that is for such calls gets them with it
// (capabilityCalls). Left out are
//
//   - mount, umount2, pivot_root, fsopen…: they change what paths mean;
//   - unshare, setns, clone with CLONE_NEW*: root of a new user namespace reaches
//     kernel code that was written for root alone;
//   - bpf, perf_event_open, userfaultfd, io_uring_*: few programs need them, many
//     exploits were built on them;
//   - keyctl, add_key, request_key: keyrings are not namespaced;
//   - open_by_handle_at: opens files by number, whatever the root;
//   - init_module, kexec_load, reboot, swapon, settimeofday, acct, quotactl,
//     syslog, mbind, move_pages…: they act on or tell of the machine;
//   - what is obsolete: uselib, vm86, sysfs, ustat, stime, nfsservctl…
//
// Calls newer than the newest named here return ENOSYS (package libseccomp).
var allowedCalls = []string{
	"_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl",
	"arm_fadvise64_64", "arm_sync_file_range", "bind", "brk", "cacheflush", "cachestat", "capget",
	"capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64",
	"clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
	"clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup",
	"dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2",
	"epoll_wait", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
	"faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod",
	"fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync",
	"fgetxattr", "file_getattr", "file_setattr", "flistxattr", "flock", "fork", "fremovexattr",
	"fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
	"ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake",
	"futimesat", "get_robust_list", "get_thread_area", "get_tls", "getcpu", "getcwd", "getdents",
	"getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
	"getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
	"getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage",
	"getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr",
	"getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel",
	"io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
	"ioctl", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
	"landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen",
	"listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lsm_get_self_attr",
	"lsm_list_modules", "lsm_set_self_attr", "lstat", "lstat64", "madvise", "map_shadow_stack",
	"membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat",
	"mlock", "mlock2", "mlockall", "mmap", "mmap2", "modify_ldt", "mprotect", "mq_getsetattr",
	"mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
	"mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd",
	"msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "nice",
	"open", "openat", "openat2", "pause", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "pipe",
	"pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl",
	"pread64", "preadv", "preadv2", "prlimit64", "process_madvise", "process_mrelease",
	"process_vm_readv", "process_vm_writev", "pselect6", "pselect6_time64", "ptrace", "pwrite64",
	"pwritev", "pwritev2", "read", "readahead", "readdir", "readlink", "readlinkat", "readv", "recv",
	"recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr",
	"removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "riscv_flush_icache",
	"rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
	"rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo",
	"sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
	"sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
	"sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield",
	"seccomp", "select", "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "send",
	"sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_thread_area",
	"set_tid_address", "set_tls", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid",
	"setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid",
	"setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32",
	"setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat", "shmat",
	"shmctl", "shmdt", "shmget", "shutdown", "sigaction", "sigaltstack", "signal", "signalfd",
	"signalfd4", "sigpending", "sigprocmask", "sigreturn", "sigsuspend", "socketcall", "socketpair",
	"splice", "stat", "stat64", "statfs", "statfs64", "statx", "swapcontext", "symlink", "symlinkat",
	"sync", "sync_file_range", "sync_file_range2", "syncfs", "sysinfo", "tee", "tgkill", "time",
	"timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
	"timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
	"timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit",
	"umask", "uname", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes", "vfork",
	"vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
}

// capabilityCalls are for who has a capability and otherwise fail or, as root of a user
// namespace, reach what is not the container's. See capabilities(7).
var capabilityCalls = []struct {
	name  string
	calls []string
}{
	{"CAP_BPF", []string{"bpf"}},
	{"CAP_DAC_READ_SEARCH", []string{"open_by_handle_at"}},
	{"CAP_PERFMON", []string{"perf_event_open"}},
	{"CAP_SYSLOG", []string{"syslog"}},
	{"CAP_SYS_ADMIN", []string{
		"bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "listmount", "listns", "lookup_dcookie",
		"mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "perf_event_open", "pivot_root", "quotactl",
		"quotactl_fd", "setdomainname", "sethostname", "setns", "statmount", "swapoff", "swapon", "syslog", "umount", "umount2", "unshare",
	}},
	{"CAP_SYS_BOOT", []string{"kexec_file_load", "kexec_load", "reboot"}},
	{"CAP_SYS_CHROOT", []string{"chroot"}},
	{"CAP_SYS_MODULE", []string{"delete_module", "finit_module", "init_module"}},
	{"CAP_SYS_NICE", []string{"get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"}},
	{"CAP_SYS_PACCT", []string{"acct"}},
	{"CAP_SYS_PTRACE", []string{"kcmp"}},
	{"CAP_SYS_RAWIO", []string{"ioperm", "iopl"}},
	{"CAP_SYS_TIME", []string{"clock_settime", "clock_settime64", "settimeofday", "stime"}},
	{"CAP_SYS_TTY_CONFIG", []string{"vhangup"}},
}

// personalities that change nothing but what uname(2) says: PER_LINUX,
// PER_LINUX32, each with and without UNAME26, and asking (-1). Others switch off
// address space randomisation or make memory executable.
var personalities = []uint64{0x0, 0x8, 0x20000, 0x20008, 0xffffffff}

// families of sockets: local, IP, netlink and (with CAP_NET_RAW) packet. The
// others load kernel modules when first used (AF_ALG, AF_RDS, AF_TIPC, AF_CAN…)
// or bypass the network namespace (AF_VSOCK). 32-bit x86 has a second door,
// socketcall(2), whose arguments no filter can see; leave that architecture out
// where this matters.
var families = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

// newNamespaces are the flags of clone(2) that create namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// defaultSeccomp is the profile that husk spec writes for a process with these
// capabilities.
func defaultSeccomp(caps []string) *specs.LinuxSeccomp {
	calls := []specs.LinuxSyscall{{Names: allowedCalls, Action: specs.ActAllow}}
	for _, c := range capabilityCalls {
		if slices.Contains(caps, c.name) {
			calls = append(calls, specs.LinuxSyscall{Names: c.calls, Action: specs.ActAllow})
		}
	}
	for _, v := range personalities {
		calls = append(calls, allowIf("personality", specs.LinuxSeccompArg{Value: v, Op: specs.OpEqualTo}))
	}
	for _, v := range families {
		if v == unix.AF_PACKET && !slices.Contains(caps, "CAP_NET_RAW") {
			continue
		}
		// The kernel takes an int: without the mask, a rule about the whole
		// register would not be about what the kernel sees.
		calls = append(calls, allowIf("socket", specs.LinuxSeccompArg{Value: 0xffffffff, ValueTwo: v, Op: specs.OpMaskedEqual}))
	}
	if !slices.Contains(caps, "CAP_SYS_ADMIN") {
		noClone3 := uint(unix.ENOSYS)
		calls = append(calls,
			allowIf("clone", specs.LinuxSeccompArg{Index: cloneFlags(), Value: newNamespaces, Op: specs.OpMaskedEqual}),
			// Its flags are in memory, where no filter sees them: programs are to fall
			// back on clone.
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &noClone3})
	}
	denied := uint(unix.EPERM)
	return &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &denied,
		Architectures:   seccompArches(goruntime.GOARCH),
		Syscalls:        calls,
	}
}

func allowIf(name string, arg specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg}}
}

// cloneFlags is the argument that holds clone's flags: the second on s390x,
// CONFIG_CLONE_BACKWARDS2 (clone(2)).
func cloneFlags() uint {
	if goruntime.GOARCH == "s390x" {
		return 1
	}
	return 0
}

// seccompArches are the machine's architecture and those of other programs it
// runs in common use.
func seccompArches(goarch string) []specs.Arch {
	switch goarch {
	case "amd64":
		return []specs.Arch{specs.ArchX86_64, specs.ArchX86}
	case "arm64":
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	case "s390x":
		return []specs.Arch{specs.ArchS390X, specs.ArchS390}
	}
	return nil // the machine's own alone
}
