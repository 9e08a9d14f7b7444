// hog takes as much of a resource as it gets, so that tests see where a limit of
// the container's cgroup is. It says "ready" when it has begun, or has all that it
// was to take, and then stays until it is killed, so that the counters of its group
// can be read at leisure.
//
//	hog cpu N              N processes that compute
//	hog burst ON OFF       compute for ON ms, rest for OFF ms, and so on
//	hog memory BYTES       touch so much memory, telling every MiB
//	hog churn BYTES        the same, then touch it again and again
//	hog child BYTES        a child touches so much memory; tell how it ended
//	hog fork N             try to have N children
//	hog refork N           fork N times a second, telling when that begins or ceases to work
//	hog read|write FILE N [M]
//	                       N bytes at once, past the page cache, over and over, in M
//	                       processes
//	hog huge N [lazy]      map N huge pages of 2 MiB and touch them one by one; lazy:
//	                       without a reservation
//	hog where SECONDS      move about, tell the CPUs seen
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MIB (1 << 20)
#define HUGE (2 * MIB)

_Noreturn static void stay(void)
{
	puts("ready");
	for (;;)
		pause();
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void compute(double seconds)
{
	for (double end = now() + seconds; now() < end;)
		for (volatile int i = 0; i < 10000; i++)
			;
}

_Noreturn static int cpu(int n)
{
	puts("ready");
	for (int i = 1; i < n; i++)
		if (fork() == 0)
			break;
	for (;;)
		compute(1);
}

_Noreturn static int burst(int on, int off)
{
	puts("ready");
	for (;;) {
		compute(on / 1e3);
		usleep(off * 1000);
	}
}

static void touch(char *at, size_t size, int aloud)
{
	for (size_t i = 0; i < size; i += PAGE) {
		*(size_t *)(at + i) = i + 1;
		if (aloud && (i + PAGE) % MIB == 0)
			printf("touched %zu\n", (i + PAGE) / MIB);
	}
}

static char *map(size_t size, int flags)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (p == MAP_FAILED) {
		printf("mmap %s\n", strerrorname_np(errno));
		stay();
	}
	return p;
}

static int memory(size_t size, int again)
{
	char *p = map(size, 0);

	touch(p, size, 1);
	if (!again)
		stay();
	puts("ready");
	for (;;)
		touch(p, size, 0);
}

static int child(size_t size)
{
	int status;

	if (fork() == 0) {
		touch(map(size, 0), size, 1);
		_exit(0);
	}
	wait(&status);
	printf("child %d\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	stay();
}

static int forks(int n)
{
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid == 0)
			for (;;)
				pause();
		if (pid < 0) {
			printf("forked %d %s\n", i, strerrorname_np(errno));
			stay();
		}
	}
	printf("forked %d ok\n", n);
	stay();
}

_Noreturn static int refork(int n)
{
	for (int before = -1, after;; before = after) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		after = pid < 0 ? errno : 0;
		if (after != before)
			printf("fork %s\n", after ? strerrorname_np(after) : "ok");
		wait(NULL);
		usleep(1000000 / n);
	}
}

// transfer works through the file from its start to its end and begins anew.
static int transfer(int writing, const char *file, size_t size, int processes)
{
	int fd = open(file, (writing ? O_WRONLY : O_RDONLY) | O_DIRECT | O_CLOEXEC);
	char *p = map(size, MAP_POPULATE);
	off_t at = 0;

	if (fd < 0) {
		printf("open %s\n", strerrorname_np(errno));
		stay();
	}
	puts("ready");
	while (--processes > 0 && fork() > 0)
		;
	for (;;) {
		ssize_t n = writing ? pwrite(fd, p, size, at) : pread(fd, p, size, at);

		at = n == (ssize_t)size ? at + n : 0;
	}
}

static int huge(int n, int lazy)
{
	char *p = map((size_t)n * HUGE, MAP_HUGETLB | (lazy ? MAP_NORESERVE : 0));

	puts("mmap ok");
	for (int i = 0; i < n; i++) {
		p[(size_t)i * HUGE] = 1;
		printf("touched %d\n", i + 1);
	}
	stay();
}

static int where(int seconds)
{
	char seen[1024] = { 0 };

	for (double end = now() + seconds; now() < end; usleep(100)) {
		int n = sched_getcpu();

		if (n >= 0 && n < (int)sizeof seen)
			seen[n] = 1;
	}
	printf("cpus");
	for (int i = 0; i < (int)sizeof seen; i++)
		if (seen[i])
			printf(" %d", i);
	puts("");
	stay();
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	long long n = argc > 2 ? atoll(argv[2]) : 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "cpu"))
		return cpu(n);
	if (!strcmp(what, "burst") && argc > 3)
		return burst(n, atoi(argv[3]));
	if (!strcmp(what, "memory") || !strcmp(what, "churn"))
		return memory(n, *what == 'c');
	if (!strcmp(what, "child"))
		return child(n);
	if (!strcmp(what, "fork"))
		return forks(n);
	if (!strcmp(what, "refork"))
		return refork(n);
	if ((!strcmp(what, "read") || !strcmp(what, "write")) && argc > 3)
		return transfer(*what == 'w', argv[2], atoi(argv[3]), argc > 4 ? atoi(argv[4]) : 1);
	if (!strcmp(what, "huge"))
		return huge(n, argc > 3);
	if (!strcmp(what, "where"))
		return where(n);
	fputs("hog: see the head of hog.c\n", stderr);
	return 2;
}
