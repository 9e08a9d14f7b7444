/* The floor: the system calls that running a container cannot do without, and
 * nothing else. No config, no checks, no state, no capabilities, no device
 * program. What a runtime needs above this is its own.
 *
 *   floor CGROUP ROOTFS FILTER|- COMMAND [ARG]...
 *
 * It sets up what `husk spec` asks for: pid, network, ipc, uts, mount and cgroup
 * namespaces, the default mounts, devices, read-only and masked paths, a
 * read-only root; FILTER is a file of struct sock_filter.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define MNT_DETACH 2 /* of <sys/mount.h>, which glibc < 2.37 lets not stand beside <linux/mount.h> */

#define NOSUID MOUNT_ATTR_NOSUID
#define NODEV MOUNT_ATTR_NODEV
#define NOEXEC MOUNT_ATTR_NOEXEC
#define RDONLY MOUNT_ATTR_RDONLY

static int check(long result, const char *what)
{
	if (result < 0)
		err(125, "floor: %s", what);
	return (int)result;
}

static void attach(int mount, const char *target)
{
	check(syscall(SYS_move_mount, mount, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), target);
	close(mount);
}

/* options: "key=value" strings, cut in place. */
static int filesystem(const char *type, uint64_t attributes, char *options[])
{
	int fs = check(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type), mount;

	for (; options && *options; options++) {
		char *value = strchr(*options, '=');
		*value++ = 0;
		check(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, *options, value, 0), *options);
	}
	check(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
	mount = check(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes), type);
	close(fs);
	return mount;
}

static void fresh(const char *type, const char *target, uint64_t attributes, char *options[])
{
	attach(filesystem(type, attributes, options), target);
}

static void clone_tree(const char *source, const char *target, uint64_t attributes)
{
	struct mount_attr attr = { .attr_set = attributes };
	int mount = syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (mount < 0 && errno == ENOENT)
		return;
	check(mount, source);
	if (attributes)
		check(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attr, sizeof(attr)), source);
	attach(mount, target);
}

static void mounts(void)
{
	fresh("proc", "proc", NOSUID | NOEXEC | NODEV, NULL);
	fresh("tmpfs", "dev", NOSUID, (char *[]){ strdup("mode=755"), strdup("size=65536k"), NULL });
	check(mkdir("dev/pts", 0755) | mkdir("dev/shm", 0755) | mkdir("dev/mqueue", 0755), "mkdir");
	fresh("devpts", "dev/pts", NOSUID | NOEXEC,
	      (char *[]){ strdup("ptmxmode=0666"), strdup("mode=0620"), strdup("gid=5"), NULL });
	fresh("tmpfs", "dev/shm", NOSUID | NOEXEC | NODEV,
	      (char *[]){ strdup("mode=1777"), strdup("size=65536k"), NULL });
	fresh("mqueue", "dev/mqueue", NOSUID | NOEXEC | NODEV, NULL);
	fresh("sysfs", "sys", NOSUID | NOEXEC | NODEV | RDONLY, NULL);
	fresh("cgroup2", "sys/fs/cgroup", NOSUID | NOEXEC | NODEV | RDONLY, NULL);
}

static void devices(void)
{
	static const struct { const char *path; int major, minor; } nodes[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 },
		{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
	};
	static const char *const links[][2] = {
		{ "pts/ptmx", "dev/ptmx" }, { "/proc/self/fd", "dev/fd" },
		{ "/proc/self/fd/0", "dev/stdin" }, { "/proc/self/fd/1", "dev/stdout" },
		{ "/proc/self/fd/2", "dev/stderr" },
	};

	mode_t mask = umask(0);

	for (size_t i = 0; i < sizeof(nodes) / sizeof(*nodes); i++)
		check(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)),
		      nodes[i].path);
	for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++)
		check(symlink(links[i][0], links[i][1]), links[i][1]);
	umask(mask);
}

static void hide(void)
{
	static const char *const readonly[] = {
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL,
	};
	static const char *const masked[] = {
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", NULL,
	};
	struct stat st;

	for (const char *const *p = readonly; *p; p++)
		clone_tree(*p, *p, RDONLY);
	for (const char *const *p = masked; *p; p++) {
		if (stat(*p, &st) < 0)
			continue;
		if (S_ISDIR(st.st_mode))
			fresh("tmpfs", *p, RDONLY, NULL);
		else
			clone_tree("/dev/null", *p, 0);
	}
}

static void loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");

	check(ioctl(fd, SIOCSIFFLAGS, &request), "lo up");
	close(fd);
}

static struct sock_filter code[BPF_MAXINSNS];
static struct sock_fprog program = { .filter = code };

static void load(const char *path)
{
	int fd = check(open(path, O_RDONLY | O_CLOEXEC), path);

	program.len = check(read(fd, code, sizeof(code)), path) / sizeof(*code);
	close(fd);
}

static void child(const char *rootfs, char *argv[])
{
	struct mount_attr slave = { .propagation = MS_SLAVE }, readonly = { .attr_set = RDONLY };

	check(unshare(CLONE_NEWCGROUP), "unshare");
	check(setsid(), "setsid");
	check(sethostname("bench", 5), "sethostname");
	loopback();
	check(syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &slave, sizeof(slave)), "slave");
	clone_tree(rootfs, rootfs, 0);
	check(chdir(rootfs), rootfs);
	mounts();
	devices();
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(syscall(SYS_umount2, ".", MNT_DETACH), "umount2");
	check(chdir("/"), "chdir");
	hide();
	check(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &readonly, sizeof(readonly)), "read-only root");
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	if (program.len)
		check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
	execve(argv[0], argv, (char *[]){ "PATH=/bin", NULL });
	err(127, "floor: %s", argv[0]);
}

int main(int argc, char *argv[])
{
	if (argc < 5)
		errx(125, "usage: floor CGROUP ROOTFS FILTER|- COMMAND [ARG]...");
	if (strcmp(argv[3], "-"))
		load(argv[3]);
	check(mkdir(argv[1], 0755), argv[1]);
	int pidfd, cgroup = check(open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC), argv[1]);
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			 CLONE_INTO_CGROUP | CLONE_PIDFD,
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = cgroup,
	};
	int pid = check(syscall(SYS_clone3, &args, sizeof(args)), "clone3"), status;

	if (pid == 0)
		child(argv[2], argv + 4);
	check(waitpid(pid, &status, 0), "waitpid");
	check(rmdir(argv[1]), argv[1]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
