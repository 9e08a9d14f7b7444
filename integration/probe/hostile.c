// hostile is a job that tries what no job should get done. It prints a line for each
// attempt, "yes WHAT" or "no WHAT", and lastly leaves a daemon behind.
//
// What it looks for, its caller has put there: a process called victim, a variable TOKEN,
// the file /root/.netrc, listeners on the sockets @hostile and /run/hostile.sock and on
// 169.254.169.254 port 80, where clouds tell a machine its keys.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// can says whether a file can be read, and has something, or be opened for writing.
static int can(const char *path, int how)
{
	char c;
	int fd = open(path, how | O_NONBLOCK);
	return fd >= 0 && (how != O_RDONLY || read(fd, &c, 1) == 1);
}

static int called(int pid, const char *name)
{
	char path[64], comm[32] = "";
	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	FILE *f = fopen(path, "r");
	if (!f)
		return 0;
	if (!fgets(comm, sizeof comm, f))
		comm[0] = 0;
	fclose(f);
	comm[strcspn(comm, "\n")] = 0;
	return !strcmp(comm, name);
}

static int sees(void)
{
	DIR *proc = opendir("/proc");
	for (struct dirent *e; proc && (e = readdir(proc));)
		if (called(atoi(e->d_name), "victim"))
			return 1;
	return 0;
}

// The first process of the sandbox may be ours.
static int traces_init(void) { return !called(1, "hostile") && ptrace(PTRACE_SEIZE, 1, 0, 0) == 0; }

static int environment(void) { return getenv("TOKEN") != NULL; }
static int netrc(void) { return can("/root/.netrc", O_RDONLY); }

// What is written is what was there.
static int set_sysctl(void)
{
	char value[64];
	int fd = open("/proc/sys/vm/swappiness", O_RDWR);
	ssize_t n = fd < 0 ? -1 : read(fd, value, sizeof value);
	return n > 0 && pwrite(fd, value, n, 0) == n;
}

static int set_sysfs(void) { return can("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY); }

static int kernel_log(void)
{
	char text[64];
	return klogctl(3, text, sizeof text) >= 0 || can("/dev/kmsg", O_RDONLY);
}

static int mounts(void) { return mount("none", "/tmp", "tmpfs", 0, NULL) == 0; }
static int new_user(void) { return unshare(CLONE_NEWUSER) == 0; }

static int device(void)
{
	unlink("/tmp/disk");
	return mknod("/tmp/disk", S_IFBLK | 0600, makedev(7, 0)) == 0 && open("/tmp/disk", O_RDONLY | O_NONBLOCK) >= 0;
}

static int raw_socket(void)
{
	return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0 || socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)) >= 0;
}

static int metadata(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(80) };
	inet_pton(AF_INET, "169.254.169.254", &a.sin_addr);
	return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof a) == 0;
}

static int reach(const char *name, int abstract)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strcpy(a.sun_path + abstract, name);
	return connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&a,
		       offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name)) == 0;
}

static int abstract_socket(void) { return reach("hostile", 1); }
static int daemon_socket(void) { return reach("/run/hostile.sock", 0); }
static int keyring(void) { return syscall(SYS_add_key, "user", "hostile", "x", 1, KEY_SPEC_PROCESS_KEYRING) >= 0; }

static int kernel_code(void)
{
	char params[256] = { 0 };
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof event, .exclude_kernel = 1 };
	union bpf_attr map = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };
	return syscall(SYS_io_uring_setup, 1, params) >= 0 || syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map) >= 0 ||
	       syscall(SYS_perf_event_open, &event, 0, -1, -1, 0) >= 0 || syscall(SYS_userfaultfd, 1) >= 0;
}

static int set_id(void) { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0; }

// The caller sees whether it comes to anything.
static int types(void) { return ioctl(0, TIOCSTI, "!") == 0; }

static int is_root(void)
{
	unsigned inside, outside, size;
	FILE *f = fopen("/proc/self/uid_map", "r");
	while (f && fscanf(f, "%u %u %u", &inside, &outside, &size) == 3)
		if (geteuid() >= inside && geteuid() - inside < size && geteuid() - inside + outside == 0)
			return 1;
	return 0;
}

static const struct {
	const char *what;
	int (*try)(void);
} attempts[] = {
	{ "be root of the machine", is_root },
	{ "gain rights by a set-id program", set_id },
	{ "read the caller's variables", environment },
	{ "read the caller's home", netrc },
	{ "see processes of the host", sees },
	{ "trace the sandbox's own process", traces_init },
	{ "type into the caller's terminal", types },
	{ "reach a service by its socket in `/run`", daemon_socket },
	{ "reach a service by an abstract socket", abstract_socket },
	{ "reach the cloud's metadata at 169.254.169.254", metadata },
	{ "open raw sockets", raw_socket },
	{ "mount a file system", mounts },
	{ "make a user namespace", new_user },
	{ "open a disk by a device of its own", device },
	{ "use kernel keyrings", keyring },
	{ "use io_uring, bpf, perf events or userfaultfd", kernel_code },
	{ "change a sysctl", set_sysctl },
	{ "write to `/sys`", set_sysfs },
	{ "read the kernel's log", kernel_log },
};

// A fork in a session of its own, orphaned.
static void leave_daemon(void)
{
	if (fork() == 0) {
		setsid();
		if (fork() == 0) {
			prctl(PR_SET_NAME, "hostile-daemon");
			for (int fd = 0; fd < 3; fd++)
				close(fd);
			sleep(300);
		}
		_exit(0);
	}
	wait(NULL);
}

// One that nothing contains would do what it tries to the machine.
static int on_machine(void)
{
	struct stat own;
	return stat("/proc/self/ns/pid", &own) != 0 || own.st_ino == 0xEFFFFFFC; // the first, by its constant number
}

int main(void)
{
	if (on_machine()) {
		fputs("hostile runs only in a PID namespace that is not the machine's\n", stderr);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
		int status = 1;
		pid_t child = fork();
		if (child == 0) {
			alarm(5); // one that hangs gets nothing done
			_exit(attempts[i].try() ? 0 : 1);
		}
		waitpid(child, &status, 0);
		printf("%s %s\n", status ? "no" : "yes", attempts[i].what);
	}
	leave_daemon();
	return 0;
}
