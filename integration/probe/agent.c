// agent answers the system calls that a container's seccomp filter reports:
//
//	agent SOCKET N     take N listeners, print what came with each, and answer
//	                   until the last process under them has ended
//	agent SOCKET 0     accept a connection, and close it with what came unread
//
// It lies about getuid, makes the device that mknod asks for, refuses rmdir with
// a number that no kernel uses there, and lets everything else happen.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
	exit(1);
}

// take reads a container process state to its end, and returns the listener.
static int take(int c)
{
	char data[1 << 16], control[256];
	struct iovec v = { data, sizeof data - 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *h;
	int fd = -1, n = 0;
	ssize_t got = recvmsg(c, &m, MSG_CMSG_CLOEXEC), more;

	if (got < 0)
		die("recvmsg");
	for (h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		if (h->cmsg_type == SCM_RIGHTS) {
			n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(&fd, CMSG_DATA(h), sizeof fd);
		}
	while ((more = recv(c, data + got, sizeof data - 1 - got, 0)) > 0)
		got += more;
	data[got] = 0;
	printf("state %s\nfds %d\n", data, n);
	fflush(stdout);
	return fd;
}

// device makes the node that the caller of mknod or mknodat asks for, with the rights
// of this process and in the caller's root.
static int device(int fd, struct seccomp_notif *n)
{
	int at = n->data.nr == SYS_mknodat, mem, root, r;
	char path[4096], name[64];

	snprintf(name, sizeof name, "/proc/%d/mem", n->pid);
	mem = open(name, O_RDONLY | O_CLOEXEC);
	r = pread(mem, path, sizeof path - 1, n->data.args[at]);
	close(mem);
	snprintf(name, sizeof name, "/proc/%d/root", n->pid);
	root = open(name, O_PATH | O_CLOEXEC);
	// What was read is the caller's only if the caller is still there.
	if (r <= 0 || root < 0 || ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &n->id) || path[0] != '/')
		return -EIO;
	path[r] = 0;
	r = mknodat(root, path + 1, n->data.args[at + 1], n->data.args[at + 2]) ? -errno : 0;
	close(root);
	printf("mknod %s %d\n", path, r);
	fflush(stdout);
	return r;
}

static void serve(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	while (poll(&p, 1, -1) > 0 && p.revents & POLLIN) {
		struct seccomp_notif n = { 0 };
		struct seccomp_notif_resp a = { 0 };

		if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &n))
			continue;
		a.id = n.id;
		if (n.data.nr == SYS_getuid)
			a.val = 4242;
		else if (n.data.nr == SYS_mknodat
#ifdef SYS_mknod
			 || n.data.nr == SYS_mknod
#endif
		)
			a.error = device(fd, &n);
		else if (n.data.nr == SYS_unlinkat
#ifdef SYS_rmdir
			 || n.data.nr == SYS_rmdir
#endif
		)
			a.error = -EXDEV;
		else
			a.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &a);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), count, fd;

	if (argc < 3)
		return 2;
	strncpy(a.sun_path, argv[1], sizeof a.sun_path - 1);
	if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 8))
		die(argv[1]);
	count = atoi(argv[2]);
	if (!count) {
		struct pollfd p = { accept4(s, NULL, NULL, SOCK_CLOEXEC), POLLIN, 0 };

		return poll(&p, 1, -1) != 1 || close(p.fd);
	}
	while (count--) {
		int c = accept4(s, NULL, NULL, SOCK_CLOEXEC);

		fd = take(c);
		close(c);
		if (fd >= 0 && !fork()) {
			close(s);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
	close(s);
	while (wait(NULL) > 0)
		;
	return 0;
}
