// probe looks around inside a container and says what it sees, one "key value"
// line per fact, so that tests need not believe the runtime's own words.
//
// It is C because a Go program is a bad witness: its runtime raises
// RLIMIT_NOFILE, installs signal handlers and starts threads before main.
//
//	probe [TOPIC...]          facts; without a topic all of them
//	probe open MODE PATH...   try to open: r, w, rw, a, d (directory)
//	probe stat PATH...        type, mode, owner, device, link target
//	probe see PATH...         all facts, and all about these paths and what is in them
//	probe hook FILE NAME      append to FILE who calls with which state, as a hook
//	probe exec PATH           execve it: prints the errno when that fails
//	probe hold                say "ready", wait for SIGTERM
//	probe ignore              the same, deaf to everything but SIGKILL
//	probe bomb N              keep N processes forking and dying
//	probe nest DIR DEPTH      make DEPTH nested cgroups, a process in each
//	probe sys NAME            one system call by name: ok or errno
//	probe leak SECONDS        try to reach into every other process
//	probe threads N           N threads pass a token round, with signals between
//	probe notify TEXT         send it to $NOTIFY_SOCKET
//	probe echo                copy terminal input back, report SIGWINCH
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

// quiet returns the name of an errno, or "ok" for a result that is not -1.
static const char *outcome(long result)
{
	const char *name;

	if (result != -1)
		return "ok";
	name = strerrorname_np(errno);
	return name ? name : "E?";
}

// file prints the first line of a file, or why it could not be read.
static void file(const char *key, const char *path)
{
	char line[4096];
	FILE *f = fopen(path, "re");

	if (!f) {
		printf("%s !%s\n", key, outcome(-1));
		return;
	}
	if (!fgets(line, sizeof line, f))
		line[0] = 0;
	line[strcspn(line, "\n")] = 0;
	printf("%s %s\n", key, line);
	fclose(f);
}

// lines prints every line of a file under one key.
static void lines(const char *key, const char *path)
{
	char *line = NULL;
	size_t size = 0;
	FILE *f = fopen(path, "re");

	if (!f) {
		printf("%s !%s\n", key, outcome(-1));
		return;
	}
	while (getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		printf("%s %s\n", key, line);
	}
	free(line);
	fclose(f);
}

static void ids(void)
{
	uid_t r, e, s;
	gid_t rg, eg, sg, groups[1024];
	int n = getgroups(1024, groups);

	getresuid(&r, &e, &s);
	getresgid(&rg, &eg, &sg);
	printf("uid %u %u %u\n", r, e, s);
	printf("gid %u %u %u\n", rg, eg, sg);
	printf("groups");
	for (int i = 0; i < n; i++)
		printf(" %u", groups[i]);
	puts("");
	lines("uid_map", "/proc/self/uid_map");
	lines("gid_map", "/proc/self/gid_map");
	file("setgroups", "/proc/self/setgroups");
}

static void mask(void)
{
	mode_t m = umask(0);

	umask(m);
	printf("umask %04o\n", m);
}

static const char *caps[] = {
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL",
	"SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
	"NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL",
	"SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
	"BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
};
#define NCAPS (int)(sizeof caps / sizeof *caps)

static void capset(const char *key, uint64_t set)
{
	printf("%s", key);
	for (int i = 0; i < NCAPS; i++)
		if (set >> i & 1)
			printf(" %s", caps[i]);
	puts("");
}

static void capabilities(void)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = { 0 };
	uint64_t bounding = 0, ambient = 0;

	syscall(SYS_capget, &h, d);
	for (int i = 0; i < NCAPS; i++) {
		if (prctl(PR_CAPBSET_READ, i) == 1)
			bounding |= 1ULL << i;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
			ambient |= 1ULL << i;
	}
	capset("cap.effective", d[0].effective | (uint64_t)d[1].effective << 32);
	capset("cap.permitted", d[0].permitted | (uint64_t)d[1].permitted << 32);
	capset("cap.inheritable", d[0].inheritable | (uint64_t)d[1].inheritable << 32);
	capset("cap.bounding", bounding);
	capset("cap.ambient", ambient);
}

static void rlimits(void)
{
	static const char *names[] = {
		"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE",
		"MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
	};

	for (int i = 0; i < 16; i++) {
		struct rlimit l;

		getrlimit(i, &l);
		printf("rlimit.%s %lld %lld\n", names[i], (long long)l.rlim_cur, (long long)l.rlim_max);
	}
}

static void process(void)
{
	int sig = 0;

	printf("pid %d\nppid %d\npgid %d\nsid %d\n", getpid(), getppid(), getpgid(0), getsid(0));
	printf("nnp %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	printf("seccomp %d\n", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
	printf("dumpable %d\n", prctl(PR_GET_DUMPABLE));
	printf("keepcaps %d\n", prctl(PR_GET_KEEPCAPS));
	printf("securebits %d\n", prctl(PR_GET_SECUREBITS));
	printf("subreaper %d\n", (prctl(PR_GET_CHILD_SUBREAPER, &sig), sig));
	sig = 0;
	prctl(PR_GET_PDEATHSIG, &sig);
	printf("pdeathsig %d\n", sig);
	printf("personality %#x\n", personality(0xffffffff));
	printf("nice %d\n", getpriority(PRIO_PROCESS, 0));
	printf("cpus %d\n", (int)sysconf(_SC_NPROCESSORS_ONLN));
	file("oom", "/proc/self/oom_score_adj");
}

static void affinity(void)
{
	cpu_set_t set;

	sched_getaffinity(0, sizeof set, &set);
	printf("affinity %d\n", CPU_COUNT(&set));
}

// The structure of sched_getattr(2), for which older headers have none.
static void scheduling(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
		uint32_t low, high;
	} a = { 0 };
	static const char *policies[] = { "OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE" };
	static const char *classes[] = { "NONE", "RT", "BE", "IDLE" };
	cpu_set_t set;
	long io;

	if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) < 0 || a.policy > 6)
		printf("sched !%s\n", outcome(-1));
	else
		printf("sched %s flags=%#llx nice=%d priority=%u runtime=%llu deadline=%llu period=%llu\n",
		       policies[a.policy], (unsigned long long)a.flags, a.nice, a.priority,
		       a.policy == 6 ? (unsigned long long)a.runtime : 0, (unsigned long long)a.deadline,
		       (unsigned long long)a.period);
	io = syscall(SYS_ioprio_get, 1, 0);
	printf("ioprio %s %ld\n", io < 0 ? outcome(-1) : classes[io >> 13 & 3], io & 7);
	sched_getaffinity(0, sizeof set, &set);
	printf("cpulist");
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			printf(" %d", i);
	puts("");
}

static void memory(void)
{
	unsigned long nodes[64] = { 0 };
	int mode = 0;
	long result = syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, 0, 0);

	if (result < 0) {
		printf("mempolicy !%s\n", outcome(-1));
		return;
	}
	printf("mempolicy %d flags=%#x nodes=", mode & 0xff, mode & ~0xff);
	for (int i = 0; i < 4096; i++)
		if (nodes[i / 64] >> i % 64 & 1)
			printf("%d ", i);
	puts("");
}

// A security module's word: what this process is, and what its next execve will make it.
static void security(void)
{
	char label[256] = "";
	long n = syscall(SYS_keyctl, KEYCTL_GET_SECURITY, KEY_SPEC_SESSION_KEYRING, label, sizeof label);

	printf("key.label %s\n", n < 0 ? outcome(-1) : label);
	file("attr.current", "/proc/self/attr/current");
	file("attr.exec", "/proc/self/attr/exec");
	file("attr.apparmor", "/proc/self/attr/apparmor/current");
}

static void signals(void)
{
	sigset_t blocked;

	sigprocmask(SIG_BLOCK, NULL, &blocked);
	printf("sig.blocked");
	for (int i = 1; i < 65; i++)
		if (sigismember(&blocked, i) == 1)
			printf(" %d", i);
	printf("\nsig.ignored");
	for (int i = 1; i < 65; i++) {
		struct sigaction a;

		if (!sigaction(i, NULL, &a) && a.sa_handler == SIG_IGN)
			printf(" %d", i);
	}
	puts("");
}

// fds are counted with fcntl, which needs no /proc; targets are a bonus.
static void fds(void)
{
	for (int fd = 0; fd < 4096; fd++) {
		char link[64], target[4096];
		int flags = fcntl(fd, F_GETFD), status = fcntl(fd, F_GETFL);
		struct stat s;
		ssize_t n;

		if (flags < 0)
			continue;
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		n = readlink(link, target, sizeof target - 1);
		target[n < 0 ? 0 : n] = 0;
		fstat(fd, &s);
		printf("fd %d %s%s mode=%o rdev=%u:%u %s\n", fd, flags & FD_CLOEXEC ? "cloexec" : "open",
		       status & O_NONBLOCK ? ",nonblock" : "", s.st_mode, major(s.st_rdev), minor(s.st_rdev), target);
	}
}

static void namespaces(void)
{
	static const char *names[] = { "cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts" };

	for (int i = 0; i < 8; i++) {
		char path[64], target[256];
		ssize_t n;

		snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
		n = readlink(path, target, sizeof target - 1);
		target[n < 0 ? 0 : n] = 0;
		printf("ns.%s %s\n", names[i], target);
	}
}

static void environment(void)
{
	for (char **e = environ; *e; e++)
		printf("env %s\n", *e);
}

// The raw call: glibc's getcwd hides "(unreachable)".
static void directory(void)
{
	char path[4096];

	if (syscall(SYS_getcwd, path, sizeof path) < 0)
		printf("cwd !%s\n", outcome(-1));
	else
		printf("cwd %s\n", path);
}

static void terminal(void)
{
	struct winsize w = { 0 };

	for (int fd = 0; fd < 3; fd++)
		printf("tty.%d %s\n", fd, isatty(fd) ? ttyname(fd) ? ttyname(fd) : "?" : "-");
	if (ioctl(0, TIOCGWINSZ, &w) == 0)
		printf("tty.size %dx%d\n", w.ws_row, w.ws_col);
	printf("tty.foreground %d\n", isatty(0) && tcgetpgrp(0) == getpgrp());
	printf("tty.controlling %s\n", outcome(open("/dev/tty", O_RDWR | O_CLOEXEC)));
}

static void names(void)
{
	struct utsname u;

	uname(&u);
	printf("hostname %s\ndomainname %s\nmachine %s\n", u.nodename, u.domainname, u.machine);
}

static void keyring(void)
{
	char text[256] = "";
	long n = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof text);

	printf("keyring %s\n", n < 0 ? outcome(-1) : text);
}

static void clocks(void)
{
	struct timespec m, b;

	clock_gettime(CLOCK_MONOTONIC, &m);
	clock_gettime(CLOCK_BOOTTIME, &b);
	printf("clock.monotonic %lld\nclock.boottime %lld\n", (long long)m.tv_sec, (long long)b.tv_sec);
	lines("timens", "/proc/self/timens_offsets");
}

static void links(void)
{
	struct if_nameindex *all = if_nameindex();
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (struct if_nameindex *i = all; i && i->if_index; i++) {
		struct ifreq r = { 0 };

		strncpy(r.ifr_name, i->if_name, IFNAMSIZ - 1);
		ioctl(s, SIOCGIFFLAGS, &r);
		printf("link %s %s\n", i->if_name, r.ifr_flags & IFF_UP ? "up" : "down");
	}
	close(s);
}

static void mounts(void)
{
	lines("mount", "/proc/self/mountinfo");
}

// status tells what no call answers.
static void status(void)
{
	static const char *keys[] = {
		"TracerPid", "Threads", "Seccomp_filters", "Speculation_Store_Bypass",
		"SpeculationIndirectBranch", "Cpus_allowed_list", "Mems_allowed_list", "NSpid",
	};
	char line[4096];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof line, f))
		for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
			size_t n = strlen(keys[i]);

			if (!strncmp(line, keys[i], n) && line[n] == ':')
				printf("status.%s %s", keys[i], line + n + 2);
		}
	if (f)
		fclose(f);
	printf("timerslack %d\n", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	printf("thp.disabled %d\n", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	file("coredump_filter", "/proc/self/coredump_filter");
	file("loginuid", "/proc/self/loginuid");
}

static void cgroups(void)
{
	lines("cgroup", "/proc/self/cgroup");
}

static const struct {
	const char *name;
	void (*tell)(void);
} topics[] = {
	{ "fds", fds }, // first: the others open files
	{ "ids", ids },
	{ "umask", mask },
	{ "caps", capabilities },
	{ "rlimits", rlimits },
	{ "process", process },
	{ "affinity", affinity },
	{ "scheduling", scheduling },
	{ "memory", memory },
	{ "security", security },
	{ "signals", signals },
	{ "namespaces", namespaces },
	{ "env", environment },
	{ "cwd", directory },
	{ "tty", terminal },
	{ "names", names },
	{ "keyring", keyring },
	{ "clocks", clocks },
	{ "links", links },
	{ "cgroup", cgroups },
	{ "mounts", mounts },
	{ "status", status },
};
#define NTOPICS (int)(sizeof topics / sizeof *topics)

static int tell(const char *name)
{
	for (int i = 0; i < NTOPICS; i++)
		if (!strcmp(name, topics[i].name)) {
			topics[i].tell();
			return 0;
		}
	fprintf(stderr, "probe: no topic %s\n", name);
	return 2;
}

static int tryopen(char **args)
{
	const char *mode = *args++;
	int flags = !strcmp(mode, "r") ? O_RDONLY :
		    !strcmp(mode, "w") ? O_WRONLY :
		    !strcmp(mode, "a") ? O_WRONLY | O_APPEND :
		    !strcmp(mode, "c") ? O_WRONLY | O_CREAT :
		    !strcmp(mode, "d") ? O_RDONLY | O_DIRECTORY :
					 O_RDWR;

	for (; *args; args++) {
		int fd = open(*args, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

		printf("open %s %s %s\n", mode, *args, outcome(fd));
		if (fd >= 0)
			close(fd);
	}
	return 0;
}

static int look(char **args)
{
	for (; *args; args++) {
		char target[4096] = "";
		struct stat s;
		const char *type;

		if (lstat(*args, &s)) {
			printf("stat %s %s\n", *args, outcome(-1));
			continue;
		}
		type = S_ISREG(s.st_mode)  ? "file" :
		       S_ISDIR(s.st_mode)  ? "dir" :
		       S_ISCHR(s.st_mode)  ? "char" :
		       S_ISBLK(s.st_mode)  ? "block" :
		       S_ISFIFO(s.st_mode) ? "fifo" :
		       S_ISLNK(s.st_mode)  ? "link" :
					     "socket";
		if (S_ISLNK(s.st_mode) && readlink(*args, target, sizeof target - 1) < 0)
			strcpy(target, "?");
		printf("stat %s %s %04o %u:%u %u:%u %s\n", *args, type, s.st_mode & 07777,
		       s.st_uid, s.st_gid, major(s.st_rdev), minor(s.st_rdev), target);
	}
	return 0;
}

static int byname(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

// see says all about a path: what it is, whether it can be read and written, what
// it begins with; of a directory also what is in it, of which only the nature counts.
static void see(const char *path, int top)
{
	char target[4096] = "", word[64] = "", inside[4300];
	struct dirent **list;
	struct stat s;
	int fd, n, i;

	if (lstat(path, &s)) {
		printf("see %s !%s\n", path, outcome(-1));
		return;
	}
	if (S_ISLNK(s.st_mode)) {
		n = readlink(path, target, sizeof target - 1);
		printf("see %s %o %.*s\n", path, s.st_mode, n < 0 ? 0 : n, target);
		return;
	}
	printf("see %s %o %u:%u", path, s.st_mode, s.st_uid, s.st_gid);
	if (S_ISCHR(s.st_mode) || S_ISBLK(s.st_mode))
		printf(" %u:%u", major(s.st_rdev), minor(s.st_rdev));
	if (S_ISDIR(s.st_mode)) {
		snprintf(inside, sizeof inside, "%s/.probe", path);
		printf(" w=%s\n", outcome(mkdir(inside, 0700)));
		rmdir(inside);
		n = top ? scandir(path, &list, NULL, byname) : 0;
		for (i = 0; i < n; i++) {
			snprintf(inside, sizeof inside, "%s/%s", path, list[i]->d_name);
			if (strcmp(list[i]->d_name, ".") && strcmp(list[i]->d_name, ".."))
				see(inside, 0);
		}
		return;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	printf(" r=%s", outcome(fd));
	n = top && fd >= 0 && S_ISREG(s.st_mode) ? (int)read(fd, word, sizeof word - 1) : 0;
	close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	printf(" w=%s", outcome(fd));
	close(fd);
	word[n < 0 ? 0 : strcspn(word, "\n")] = 0;
	printf(" %s\n", word);
}

// hook appends what a hook sees: its name, environment and place, and the state.
static int hook(const char *path, const char *name)
{
	char state[8192];
	ssize_t n, at = 0;

	while ((n = read(0, state + at, sizeof state - at - 1)) > 0)
		at += n;
	state[at] = 0;
	for (char *c = state; *c; c++)
		if (*c == '\n')
			*c = ' ';
	if (!freopen(path, "ae", stdout))
		return 1;
	printf("hook %s\n", name);
	environment();
	directory();
	ids();
	mask();
	process();
	signals();
	capabilities();
	namespaces();
	printf("state %s\n", state);
	return fflush(stdout) != 0;
}

static void quit(int sig)
{
	(void)sig;
	_exit(0);
}

// notify is sd_notify(3).
static int notify(const char *text)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const char *name = getenv("NOTIFY_SOCKET");
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	if (!name || strlen(name) >= sizeof to.sun_path)
		return 1;
	strcpy(to.sun_path, name);
	if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to) < 0) {
		perror(name);
		return 1;
	}
	return 0;
}

_Noreturn static void wait_forever(void)
{
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

static int hold(void)
{
	signal(SIGTERM, quit);
	wait_forever();
}

static int deaf(void)
{
	for (int i = 1; i < 65; i++)
		signal(i, SIG_IGN);
	wait_forever();
}

// bomb keeps n children alive, each of which lives for a moment and is replaced
// by its own child: a set of pids that no one can enumerate and then kill.
static int bomb(int n)
{
	signal(SIGCHLD, SIG_IGN);
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < n; i++)
		if (fork() == 0)
			for (;;) {
				usleep(2000);
				if (fork() > 0)
					_exit(0);
			}
	for (;;)
		pause();
}

// nest makes cgroups below dir, one in another, and leaves a process in each.
static int nest(const char *dir, int depth)
{
	char path[4096], procs[4200];

	snprintf(path, sizeof path, "%s", dir);
	for (int i = 0; i < depth; i++) {
		pid_t pid;
		int fd;

		strncat(path, "/n", sizeof path - strlen(path) - 1);
		if (mkdir(path, 0755)) {
			printf("nest %s %s\n", path, outcome(-1));
			return 1;
		}
		pid = fork();
		if (pid == 0)
			for (;;)
				pause();
		snprintf(procs, sizeof procs, "%s/cgroup.procs", path);
		fd = open(procs, O_WRONLY | O_CLOEXEC);
		if (dprintf(fd, "%d", pid) < 0) {
			printf("nest %s %s\n", procs, outcome(-1));
			return 1;
		}
		close(fd);
	}
	return hold();
}

static int call(const char *name)
{
	long r = -1;

	errno = 0;
	if (!strcmp(name, "unshare-user"))
		r = unshare(CLONE_NEWUSER);
	else if (!strcmp(name, "unshare-mount"))
		r = unshare(CLONE_NEWNS);
	else if (!strcmp(name, "mount"))
		r = mount("none", "/tmp", "tmpfs", 0, NULL);
	else if (!strcmp(name, "mkdir"))
		r = mkdir("/tmp/d", 0700);
	else if (!strcmp(name, "getpid"))
		r = syscall(SYS_getpid);
	else if (!strcmp(name, "getcwd"))
		r = syscall(SYS_getcwd, (char[64]){ 0 }, 64);
	else if (!strcmp(name, "personality"))
		r = syscall(SYS_personality, 8);
	else if (!strcmp(name, "keyctl"))
		r = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
	else if (!strcmp(name, "future")) // far above any number of today
		r = syscall(1500);
	else if (!strcmp(name, "mknod"))
		r = mknod("/tmp/null", S_IFCHR | 0600, makedev(1, 3));
	else if (!strcmp(name, "mknod-kmem"))
		r = mknod("/tmp/kmsg", S_IFCHR | 0600, makedev(1, 11));
	else if (!strcmp(name, "tiocsti"))
		r = ioctl(0, TIOCSTI, "x");
	else if (!strcmp(name, "sethostname"))
		r = sethostname("changed", 7);
	else if (!strcmp(name, "chroot"))
		r = chroot("/");
	else if (!strcmp(name, "rawsock"))
		r = socket(AF_INET, SOCK_RAW, 1);
	else if (!strcmp(name, "setuid0"))
		r = setuid(0);
	else if (!strcmp(name, "getuid"))
		return printf("sys getuid %ld\n", syscall(SYS_getuid)), 0;
	else if (!strcmp(name, "rmdir"))
		r = rmdir("/tmp/d");
	printf("sys %s %s\n", name, outcome(r));
	return 0;
}

// reach counts the descriptors of a process that can be followed, but for the
// standard ones, which are all that a payload has.
static int reach(int pid)
{
	char path[600], target[4096];
	struct dirent *e;
	int n = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, e->d_name);
		if (atoi(e->d_name) > 2 && readlink(path, target, sizeof target - 1) > 0)
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

// ours says whether a process runs a program of the test's own.
static int ours(int pid)
{
	char path[64], exe[4096];
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	n = readlink(path, exe, sizeof exe - 1);
	exe[n < 0 ? 0 : n] = 0;
	return !strcmp(exe, "/probe") || !strcmp(exe, "/bin/busybox");
}

// grab says whether a process can be traced while it is not yet the payload. It
// is stopped for the look, so that it does not become the payload meanwhile.
static int grab(int pid)
{
	int status, early;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0))
		return 0;
	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
		return 0;
	early = !ours(pid);
	ptrace(PTRACE_DETACH, pid, 0, 0);
	return early;
}

// leak tries to reach into every other process: what one that has just joined
// shows is a way out.
static int leak(int seconds)
{
	time_t end = time(NULL) + seconds;
	int seen = 0, reached = 0, attached = 0;

	puts("ready");
	fflush(stdout);
	while (time(NULL) < end) {
		DIR *d = opendir("/proc");
		struct dirent *e;

		while (d && (e = readdir(d))) {
			int pid = atoi(e->d_name);

			if (pid <= 0 || pid == getpid() || ours(pid))
				continue;
			seen++;
			reached += reach(pid) > 0;
			attached += grab(pid);
		}
		if (d)
			closedir(d);
	}
	printf("seen %d\nreached %d\nattached %d\n", seen, reached, attached);
	return 0;
}

// field reads a number in base 16 from /proc/PID/status.
static unsigned long long field(int pid, const char *name)
{
	char path[64], line[256];
	unsigned long long v = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, name, strlen(name)))
			v = strtoull(line + strlen(name) + 1, NULL, 16);
	if (f)
		fclose(f);
	return v;
}

// prey is what was found in processes that were caught before they were the payload.
static struct {
	int caught, privileged, way_out, other_root, writable, secret, unfiltered, terminal;
} prey;

// descend tries to get from a directory that a process has open to what is above it, and
// to write below it.
static void descend(const char *path)
{
	struct stat a, b;
	int dir = open(path, O_PATH | O_DIRECTORY), up, w;

	if (dir < 0)
		return;
	up = openat(dir, "..", O_PATH | O_DIRECTORY);
	if (up >= 0 && fstat(dir, &a) == 0 && fstat(up, &b) == 0 && (a.st_ino != b.st_ino || a.st_dev != b.st_dev)) {
		fprintf(stderr, "%s leads out\n", path);
		prey.way_out++;
	}
	w = openat(dir, "cgroup.procs", O_WRONLY);
	prey.writable += w >= 0;
	close(w);
	close(up);
	close(dir);
}

// search looks for text of the host in the memory of a process.
static void search(int pid)
{
	char path[64], line[512], perms[8];
	unsigned long from, to;
	static char buf[1 << 20];
	FILE *maps;
	int mem;

	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY);
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	while (mem >= 0 && maps && fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, perms) != 3 || perms[1] != 'w' || to - from > (64 << 20))
			continue;
		for (; from < to; from += sizeof buf) {
			ssize_t n = pread(mem, buf, sizeof buf, (off_t)from);

			if (n > 0 && memmem(buf, (size_t)n, "HOST" "SECRET", 10)) {
				prey.secret++;
				from = to;
			}
		}
	}
	if (maps)
		fclose(maps);
	close(mem);
}

// has_terminal says whether a process has a controlling terminal, by its tty_nr.
static int has_terminal(int pid)
{
	char path[64], line[512], *rest = NULL;
	int tty = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (f && fgets(line, sizeof line, f))
		rest = strrchr(line, ')');
	if (rest && sscanf(rest, ") %*c %*d %*d %*d %d", &tty) != 1)
		tty = 0;
	if (f)
		fclose(f);
	return tty != 0;
}

// inspect looks for what a caught process has and we have not.
static void inspect(int pid)
{
	char path[600];
	struct stat a, b;
	struct dirent *e;
	int fd;
	DIR *d;

	if (field(pid, "CapPrm:") & ~field(getpid(), "CapBnd:") || field(pid, "CapEff:") & ~field(getpid(), "CapBnd:"))
		prey.privileged++;
	prey.terminal += has_terminal(pid);
	if (field(getpid(), "Seccomp:") != field(pid, "Seccomp:"))
		prey.unfiltered++;
	snprintf(path, sizeof path, "/proc/%d/root", pid);
	if (stat(path, &a) == 0 && stat("/", &b) == 0 && (a.st_ino != b.st_ino || a.st_dev != b.st_dev))
		prey.other_root++;
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	fd = open(path, O_WRONLY);
	if (fd >= 0 || errno == ETXTBSY) // it ends with the process
		prey.writable++;
	close(fd);
	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, e->d_name);
		if (atoi(e->d_name) > 2)
			descend(path);
	}
	if (d)
		closedir(d);
	search(pid);
}

// last is the newest pid of our PID namespace.
static int last(void)
{
	FILE *f = fopen("/proc/loadavg", "r");
	int pid = 0;

	if (f && fscanf(f, "%*s %*s %*s %*s %d", &pid) != 1)
		pid = 0;
	if (f)
		fclose(f);
	return pid;
}

// intrude waits for the next processes of its PID namespace, traces them from the moment
// they are there, and takes what they have.
static int intrude(int seconds)
{
	time_t end = time(NULL) + seconds;
	int next = getpid() + 1, status;

	puts("ready");
	fflush(stdout);
	for (; time(NULL) < end; next = last() + 1)
		for (int i = 0; i < 5000; i++)
			for (int pid = next; pid < next + 4; pid++) {
				if (ptrace(PTRACE_SEIZE, pid, 0, 0))
					continue;
				ptrace(PTRACE_INTERRUPT, pid, 0, 0);
				if (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
					if (!ours(pid)) {
						prey.caught++;
						inspect(pid);
					}
					ptrace(PTRACE_DETACH, pid, 0, 0);
				}
				next = pid + 1;
				break;
			}
	printf("next %d\ncaught %d\nprivileged %d\nwayout %d\nroot %d\nwritable %d\nsecret %d\nunfiltered %d\nterminal %d\n", next, prey.caught,
	       prey.privileged, prey.way_out, prey.other_root, prey.writable, prey.secret, prey.unfiltered, prey.terminal);
	return 0;
}

// forge takes the conversation out of the hands of the next processes and has the last
// word in it, which names a process of the host.
static int forge(int victim, int seconds)
{
	time_t end = time(NULL) + seconds;
	int taken = 0;

	signal(SIGPIPE, SIG_IGN);
	puts("ready");
	fflush(stdout);
	while (time(NULL) < end) {
		int next = last() + 1, pidfd = -1, conn = -1;

		for (int i = 0; pidfd < 0 && i < 20000; i++)
			pidfd = (int)syscall(SYS_pidfd_open, next, 0);
		for (int fd = 3; pidfd >= 0 && conn < 0 && fd < 8; fd++) {
			socklen_t len = sizeof(int);
			int type = 0;

			conn = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
			getsockopt(conn, SOL_SOCKET, SO_TYPE, &type, &len);
			if (conn >= 0 && type != SOCK_SEQPACKET) {
				close(conn);
				conn = -1;
			}
		}
		if (conn >= 0) {
			unsigned char m[6] = { 0, 0, (unsigned char)victim, (unsigned char)(victim >> 8), (unsigned char)(victim >> 16), 0 };

			// The last word counts most: as long as we have the conversation
			// open it has not ended. One kind a time, of those there are.
			m[0] = (unsigned char)(4 + taken++ % 6);
			usleep(100000);
			send(conn, m, sizeof m, MSG_DONTWAIT);
		}
		close(conn);
		close(pidfd);
	}
	printf("taken %d\n", taken);
	return 0;
}

static volatile sig_atomic_t winched;

static void winch(int sig)
{
	(void)sig;
	winched = 1;
}

// echo reports lines and window sizes as they come, until "quit".
static int echo(void)
{
	struct sigaction a = { .sa_handler = winch };
	char line[256];

	sigaction(SIGWINCH, &a, NULL);
	setvbuf(stdout, NULL, _IONBF, 0);
	puts("ready");
	for (;;) {
		ssize_t n = read(0, line, sizeof line - 1);

		if (winched) {
			struct winsize w;

			winched = 0;
			ioctl(0, TIOCGWINSZ, &w);
			printf("winch %dx%d\n", w.ws_row, w.ws_col);
		}
		if (n == 0 || (n < 0 && errno != EINTR))
			return 0;
		if (n < 0)
			continue;
		line[n] = 0;
		line[strcspn(line, "\r\n")] = 0;
		if (!strcmp(line, "quit"))
			return 7;
		printf("got %s\n", line);
	}
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn, threads;
static volatile sig_atomic_t signalled;

static void count_signal(int sig)
{
	(void)sig;
	signalled = 1;
}

static void *player(void *arg)
{
	long me = (long)arg;

	for (int round = 0; round < 20; round++) {
		struct timespec brief = { 0, 100000 };

		pthread_mutex_lock(&lock);
		while (turn % threads != me)
			pthread_cond_wait(&turned, &lock);
		turn++;
		pthread_cond_broadcast(&turned);
		pthread_mutex_unlock(&lock);
		if (round == 7)
			pthread_kill(pthread_self(), SIGUSR1);
		nanosleep(&brief, NULL);
	}
	return NULL;
}

static int play(int n)
{
	struct sigaction a = { .sa_handler = count_signal };
	pthread_t all[64];

	threads = n < 64 ? n : 64;
	sigaction(SIGUSR1, &a, NULL);
	for (long i = 0; i < threads; i++)
		if (pthread_create(&all[i], NULL, player, (void *)i))
			return puts("threads !create"), 1;
	for (int i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	printf("threads %d turns %d signalled %d\n", threads, turn, (int)signalled);
	return 0;
}

static int act(char **a)
{
	const char *verb = a[0];

	if (!strcmp(verb, "open") && a[1])
		return tryopen(a + 1);
	if (!strcmp(verb, "stat"))
		return look(a + 1);
	if (!strcmp(verb, "see")) {
		for (int i = 0; i < NTOPICS; i++)
			topics[i].tell();
		while (*++a)
			see(*a, 1);
		return 0;
	}
	if (!strcmp(verb, "hook") && a[1] && a[2])
		return hook(a[1], a[2]);
	if (!strcmp(verb, "exec") && a[1])
		return execv(a[1], a + 1), printf("exec %s %s\n", a[1], outcome(-1)), 0;
	if (!strcmp(verb, "threads") && a[1])
		return play(atoi(a[1]));
	if (!strcmp(verb, "hold"))
		return hold();
	if (!strcmp(verb, "ignore"))
		return deaf();
	if (!strcmp(verb, "bomb") && a[1])
		return bomb(atoi(a[1]));
	if (!strcmp(verb, "nest") && a[1] && a[2])
		return nest(a[1], atoi(a[2]));
	if (!strcmp(verb, "leak") && a[1])
		return leak(atoi(a[1]));
	if (!strcmp(verb, "intrude") && a[1])
		return intrude(atoi(a[1]));
	if (!strcmp(verb, "forge") && a[1] && a[2])
		return forge(atoi(a[1]), atoi(a[2]));
	if (!strcmp(verb, "notify") && a[1])
		return notify(a[1]);
	if (!strcmp(verb, "echo"))
		return echo();
	if (!strcmp(verb, "sys")) {
		while (*++a)
			call(*a);
		return 0;
	}
	return -1;
}

int main(int argc, char **argv)
{
	int r;

	if (argc < 2) {
		for (int i = 0; i < NTOPICS; i++)
			topics[i].tell();
		return 0;
	}
	r = act(argv + 1);
	if (r >= 0)
		return r;
	for (int i = 1; i < argc; i++)
		if (tell(argv[i]))
			return 2;
	return 0;
}
