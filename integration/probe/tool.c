// tool is what the tests need on the host's side of a container and what would
// be slow, or too multi-threaded, in Go.
//
//	husk ARGS...                  (by argv[0]) run $HUSK with its output in files
//	tool console SOCKET           take a terminal over a console socket, copy it
//	tool pidfd SOCKET             take a pidfd, say what came with it
//	tool trace ROLE WHAT -- CMD   run CMD and disturb its system calls
//	tool stuck CGROUP             hold a process in CGROUP that only SIGKILL moves
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <linux/ptrace.h>

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "tool: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static int status_code(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void copy(int from, int to)
{
	char buf[65536];
	ssize_t n;
	off_t at = 0;

	while ((n = pread(from, buf, sizeof buf, at)) > 0) {
		if (write(to, buf, n) != n)
			return;
		at += n;
	}
}

// leaves says whether the command leaves a container behind that keeps its
// standard output: then the output goes to the files out and err of the test.
static int leaves(char **args)
{
	int run = 0;

	for (; *args; args++) {
		if (!strcmp(*args, "--root") || !strcmp(*args, "--log") || !strcmp(*args, "--log-format")) {
			if (!*++args)
				break;
			continue;
		}
		if (!strcmp(*args, "create"))
			return 1;
		if (!strcmp(*args, "run"))
			run = 1;
		if (run && (!strcmp(*args, "-d") || !strcmp(*args, "--detach")))
			return 1;
	}
	return 0;
}

static int output(int named, const char *name)
{
	char path[4096];
	const char *dir = getenv("WORK");
	int fd;

	if (!named || !dir)
		return memfd_create(name, MFD_CLOEXEC);
	snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

// shim runs the runtime with files for its output. Pipes would not do: the test
// waits for their end, and the container that create leaves behind holds them.
static int shim(char **argv)
{
	const char *husk = getenv("HUSK");
	int named = leaves(argv + 1), out = output(named, "out"), err = output(named, "err"), status;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); // a script that fails interrupts us
		dup2(out, 1);
		dup2(err, 2);
		argv[0] = (char *)husk;
		execv(husk, argv);
		die(husk);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("wait");
	copy(out, 1);
	copy(err, 2);
	return status_code(status);
}

// receive takes one connection and returns the one descriptor that comes over it.
static int receive(const char *path, char *data, size_t size)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), c, n = 0, fds[16];
	char control[256];
	struct iovec v = { data, size - 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *h;
	ssize_t got;

	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 1))
		die(path);
	c = accept4(s, NULL, NULL, SOCK_CLOEXEC);
	got = recvmsg(c, &m, MSG_CMSG_CLOEXEC);
	if (got < 0)
		die("recvmsg");
	data[got] = 0;
	for (h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		if (h->cmsg_type == SCM_RIGHTS) {
			n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(h), n * sizeof(int));
		}
	printf("data %s\nfds %d\nrest %zd\n", data, n, recv(c, control, 1, 0));
	fflush(stdout);
	close(c);
	return n ? fds[0] : -1;
}

static int console(const char *path)
{
	char data[4097], buf[4096];
	int fd = receive(path, data, sizeof data);
	struct winsize w;
	ssize_t n;

	printf("tty %d\n", isatty(fd));
	if (ioctl(fd, TIOCGWINSZ, &w) == 0)
		printf("size %dx%d\n", w.ws_row, w.ws_col);
	fflush(stdout);
	while ((n = read(fd, buf, sizeof buf)) > 0) // EIO: the last peer is closed
		if (write(1, buf, n) != n)
			break;
	return 0;
}

static int pidfd(const char *path)
{
	char data[4097], info[64], line[4096];
	int fd = receive(path, data, sizeof data);
	FILE *f;

	snprintf(info, sizeof info, "/proc/self/fdinfo/%d", fd);
	f = fopen(info, "re");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "Pid:", 4))
			fputs(line, stdout);
	return 0;
}

// The tracer. ROLE says whose system calls count: "parent" (the command), or
// "child" (every other process). WHAT is
//
//	count                  print how many there were of each role
//	kill N                 SIGKILL the process at its role's Nth call
//	stop N, term N         SIGSTOP, SIGTERM likewise
//	fail NUMBER K ERRNO    the Kth call of that number does not happen
//	list                   print the number of each call of the role
//
// $ATTACH is the PID of one more process that plays the child: the parked init,
// which is no descendant of start. As soon as the command is gone the tracer goes
// too, which detaches the rest.
enum action { COUNT, LIST, SEND, FAIL };

struct plan {
	int child; // the role: 0 parent, 1 child
	enum action action;
	int signal;
	long at, number, error;
};

static long counts[2];

#define MAXTASKS 4096
static struct {
	pid_t tid;
	int fail; // its next exit stop returns the error
} tasks[MAXTASKS];

static int task(pid_t tid)
{
	int i;

	for (i = 0; i < MAXTASKS && tasks[i].tid; i++)
		if (tasks[i].tid == tid)
			return i;
	tasks[i].tid = tid;
	return i;
}

static pid_t group(pid_t tid)
{
	char path[64], line[256];
	pid_t tgid = tid;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Tgid: %d", &tgid) == 1)
			break;
	if (f)
		fclose(f);
	return tgid;
}

#if defined __x86_64__
static void skip_call(pid_t tid)
{
	ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, regs.orig_rax), -1L);
}

static void set_result(pid_t tid, long value)
{
	ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, regs.rax), value);
}
#elif defined __aarch64__
static void skip_call(pid_t tid)
{
	int none = -1;
	struct iovec v = { &none, sizeof none };

	ptrace(PTRACE_SETREGSET, tid, NT_ARM_SYSTEM_CALL, &v);
}

static void set_result(pid_t tid, long value)
{
	struct user_regs_struct r;
	struct iovec v = { &r, sizeof r };

	ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &v);
	r.regs[0] = value;
	ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &v);
}
#endif

// entered decides what happens to a task that is about to make a system call.
// It returns false when the tracer's work is done.
static int entered(pid_t tid, pid_t parent, const struct plan *p, long number)
{
	pid_t tgid = group(tid);
	int role = tgid != parent;
	long n;

	if (p->action == FAIL) {
		if (role != p->child || number != p->number || ++counts[role] != p->at)
			return 1;
		skip_call(tid);
		tasks[task(tid)].fail = 1;
		return 1;
	}
	n = ++counts[role];
	if (role != p->child)
		return 1;
	if (p->action == LIST)
		fprintf(stderr, "call %ld\n", number);
	if (n != p->at || p->action == LIST)
		return 1;
	if (p->action == SEND)
		kill(tgid, p->signal);
	return 1;
}

static int stopped(pid_t tid, int status, pid_t parent, const struct plan *p)
{
	struct ptrace_syscall_info info;
	int sig = WSTOPSIG(status), event = status >> 16;

	if (sig == (SIGTRAP | 0x80)) {
		if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0) {
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
				entered(tid, parent, p, info.entry.nr);
			else if (info.op == PTRACE_SYSCALL_INFO_EXIT && tasks[task(tid)].fail) {
				tasks[task(tid)].fail = 0;
				set_result(tid, -p->error);
			}
		}
		sig = 0;
	} else if (event == PTRACE_EVENT_STOP && sig != SIGTRAP) {
		return ptrace(PTRACE_LISTEN, tid, 0, 0); // a group stop: stay stopped
	} else if (event) {
		sig = 0;
	}
	return ptrace(PTRACE_SYSCALL, tid, 0, sig);
}

static int trace_loop(pid_t parent, const struct plan *p)
{
	int status, code = -1;

	for (;;) {
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			return code;
		if (WIFSTOPPED(status)) {
			stopped(tid, status, parent, p);
			continue;
		}
		if (tid == parent)
			return status_code(status);
	}
}

static struct plan parse(char **a)
{
	struct plan p = { .child = !strcmp(a[0], "child") };

	if (!strcmp(a[1], "list"))
		p.action = LIST;
	else if (!strcmp(a[1], "kill"))
		p.action = SEND, p.signal = SIGKILL, p.at = atol(a[2]);
	else if (!strcmp(a[1], "stop"))
		p.action = SEND, p.signal = SIGSTOP, p.at = atol(a[2]);
	else if (!strcmp(a[1], "term"))
		p.action = SEND, p.signal = SIGTERM, p.at = atol(a[2]);
	else if (!strcmp(a[1], "fail"))
		p.action = FAIL, p.number = atol(a[2]), p.at = atol(a[3]), p.error = atol(a[4]);
	return p;
}

static void seize(pid_t pid)
{
	if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		   PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC) ||
	    ptrace(PTRACE_INTERRUPT, pid, 0, 0))
		die("seize");
}

// attach seizes all threads of a process.
static void attach(const char *pid)
{
	char path[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%s/task", pid);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (atoi(e->d_name) > 0)
			seize(atoi(e->d_name));
	if (d)
		closedir(d);
}

static int trace(char **args)
{
	struct plan p = parse(args);
	int status, gate[2];
	pid_t pid;

	while (*args && strcmp(*args, "--"))
		args++;
	if (!*args || !args[1] || pipe2(gate, O_CLOEXEC))
		return 2;
	pid = fork();
	if (pid == 0) {
		read(gate[0], &status, 1);
		execvp(args[1], args + 1);
		die(args[1]);
	}
	seize(pid);
	if (getenv("ATTACH"))
		attach(getenv("ATTACH"));
	write(gate[1], "", 1);
	status = trace_loop(pid, &p);
	if (p.action == COUNT)
		fprintf(stderr, "parent %ld\nchild %ld\n", counts[0], counts[1]);
	if (p.action == FAIL)
		fprintf(stderr, "injected %d\n", counts[p.child] >= p.at);
	return status;
}

// state is the letter of a process's state in /proc/PID/stat.
static char state(pid_t pid)
{
	char path[64], line[512] = "";
	const char *end;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if ((fd = open(path, O_RDONLY)) >= 0) {
		if (read(fd, line, sizeof line - 1) < 0)
			line[0] = 0;
		close(fd);
	}
	end = strrchr(line, ')');
	return end && end[1] ? end[2] : 0;
}

// stuck holds a child in a cgroup which waits, in state D, for the answer of a file
// system that nobody serves: it cannot be frozen. Says so in the file ready.
static int stuck(const char *group)
{
	int fuse = open("/dev/fuse", O_RDWR), procs, ready, status, moved[2];
	char path[512], options[128], done;
	struct stat st;
	pid_t pid;

	if (fuse < 0 || unshare(CLONE_NEWNS) || mount("", "/", "", MS_PRIVATE | MS_REC, ""))
		die("fuse");
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	if (mount("stuck", "/mnt", "fuse", 0, options) || pipe(moved))
		die("mount");
	if ((pid = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(path, sizeof path, "%s/cgroup.procs", group);
		if ((procs = open(path, O_WRONLY)) < 0 || write(procs, "0", 1) != 1 || write(moved[1], "", 1) != 1)
			die(path);
		_exit(stat("/mnt/x", &st) ? 1 : 0);
	}
	if (read(moved[0], &done, 1) != 1)
		die("child");
	while (state(pid) != 'D')
		usleep(1000);
	if ((ready = open("ready", O_WRONLY | O_CREAT | O_EXCL, 0644)) < 0 || dprintf(ready, "%d\n", pid) < 0)
		die("ready");
	close(ready);
	waitpid(pid, &status, 0);
	return 0;
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');

	if (!strcmp(name ? name + 1 : argv[0], "husk"))
		return shim(argv);
	if (argc > 2 && !strcmp(argv[1], "console"))
		return console(argv[2]);
	if (argc > 2 && !strcmp(argv[1], "pidfd"))
		return pidfd(argv[2]);
	if (argc > 4 && !strcmp(argv[1], "trace"))
		return trace(argv + 2);
	if (argc > 2 && !strcmp(argv[1], "stuck"))
		return stuck(argv[2]);
	return 2;
}
