package integration

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// calls that husk makes for a step of the plan, in the parent or in the child.
// When one fails the error has to name the field of the config behind the step.
var stepCalls = map[string]int{
	"fsopen":        unix.SYS_FSOPEN,
	"fsconfig":      unix.SYS_FSCONFIG,
	"fsmount":       unix.SYS_FSMOUNT,
	"move_mount":    unix.SYS_MOVE_MOUNT,
	"open_tree":     unix.SYS_OPEN_TREE,
	"mount_setattr": unix.SYS_MOUNT_SETATTR,
	"mount":         unix.SYS_MOUNT,
	"umount2":       unix.SYS_UMOUNT2,
	"pivot_root":    unix.SYS_PIVOT_ROOT,
	"mknodat":       unix.SYS_MKNODAT,
	"symlinkat":     unix.SYS_SYMLINKAT,
	"sethostname":   unix.SYS_SETHOSTNAME,
	"chdir":         unix.SYS_CHDIR,
	"fchdir":        unix.SYS_FCHDIR,
	"prlimit64":     unix.SYS_PRLIMIT64,
	"bpf":           unix.SYS_BPF,
}

// otherCalls are the rest of what husk itself asks of the kernel. fcntl is not
// among them: the Go runtime looks at the standard descriptors with it and cannot
// go on without. Neither is the execve of husk itself.
var otherCalls = map[string]int{
	"openat":            unix.SYS_OPENAT,
	"openat2":           unix.SYS_OPENAT2,
	"read":              unix.SYS_READ,
	"pread64":           unix.SYS_PREAD64,
	"write":             unix.SYS_WRITE,
	"mkdirat":           unix.SYS_MKDIRAT,
	"unlinkat":          unix.SYS_UNLINKAT,
	"renameat":          unix.SYS_RENAMEAT,
	"renameat2":         unix.SYS_RENAMEAT2,
	"fsync":             unix.SYS_FSYNC,
	"fdatasync":         unix.SYS_FDATASYNC,
	"flock":             unix.SYS_FLOCK,
	"socketpair":        unix.SYS_SOCKETPAIR,
	"socket":            unix.SYS_SOCKET,
	"bind":              unix.SYS_BIND,
	"listen":            unix.SYS_LISTEN,
	"connect":           unix.SYS_CONNECT,
	"accept4":           unix.SYS_ACCEPT4,
	"sendmsg":           unix.SYS_SENDMSG,
	"recvmsg":           unix.SYS_RECVMSG,
	"clone3":            unix.SYS_CLONE3,
	"setsid":            unix.SYS_SETSID,
	"ioctl":             unix.SYS_IOCTL,
	"fstatfs":           unix.SYS_FSTATFS,
	"statx":             unix.SYS_STATX,
	"getdents64":        unix.SYS_GETDENTS64,
	"ppoll":             unix.SYS_PPOLL,
	"pidfd_open":        unix.SYS_PIDFD_OPEN,
	"pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL,
	"memfd_create":      unix.SYS_MEMFD_CREATE,
	"fchown":            unix.SYS_FCHOWN,
	"fchmod":            unix.SYS_FCHMOD,
	"prctl":             unix.SYS_PRCTL,
	"capset":            unix.SYS_CAPSET,
	"setgroups":         unix.SYS_SETGROUPS,
	"setresuid":         unix.SYS_SETRESUID,
	"setresgid":         unix.SYS_SETRESGID,
	"keyctl":            unix.SYS_KEYCTL,
	"close_range":       unix.SYS_CLOSE_RANGE,
	"dup3":              unix.SYS_DUP3,
	"execveat":          unix.SYS_EXECVEAT,
	"unshare":           unix.SYS_UNSHARE,
}

// blockingCalls may be interrupted by any signal.
var blockingCalls = map[string]int{
	"read":    unix.SYS_READ,
	"write":   unix.SYS_WRITE,
	"openat":  unix.SYS_OPENAT,
	"openat2": unix.SYS_OPENAT2,
	"sendmsg": unix.SYS_SENDMSG,
	"recvmsg": unix.SYS_RECVMSG,
	"connect": unix.SYS_CONNECT,
	"accept4": unix.SYS_ACCEPT4,
	"ppoll":   unix.SYS_PPOLL,
	"waitid":  unix.SYS_WAITID,
	"flock":   unix.SYS_FLOCK,
}

// An injection is the k-th call of a number by a victim.
type injection struct {
	name      string
	number, k int
}

// injections lists all calls out of the tables that a command makes.
func (b *bundle) injections(attach int, v victim, tables []map[string]int, args ...string) []injection {
	b.t.Helper()
	r := b.traced(attach, v, []string{"list"}, args...)
	if r.code != 0 {
		b.t.Fatalf("list: exit %d: %s", r.code, r.stderr)
	}
	seen := map[int]int{}
	for _, m := range regexp.MustCompile(`(?m)^call (\d+)$`).FindAllStringSubmatch(r.stderr, -1) {
		n, _ := strconv.Atoi(m[1])
		seen[n]++
	}
	var list []injection
	for _, table := range tables {
		for name, number := range table {
			for k := range seen[number] {
				list = append(list, injection{name, number, k + 1})
			}
		}
	}
	if len(list) == 0 {
		b.t.Fatal("no calls to disturb")
	}
	return list
}

// fail runs a command with one of the victim's calls failing. The second result
// says whether it came to that.
func (b *bundle) fail(attach int, v victim, i injection, errno unix.Errno, args ...string) (result, bool) {
	b.t.Helper()
	what := []string{"fail", itoa(i.number), itoa(i.k), itoa(int(errno))}
	r := b.traced(attach, v, what, args...)
	r.stderr = strings.ReplaceAll(r.stderr, "injected 0\n", "")
	injected := strings.Contains(r.stderr, "injected 1\n")
	r.stderr = strings.ReplaceAll(r.stderr, "injected 1\n", "")
	return r, injected
}

// An error at any call leads to a clean error with nothing left, without any
// help, or is none.
func errorSweep(t *testing.T, v victim, command string, tables ...map[string]int) {
	b := sweepBundle(t)
	clean := census(t)
	list := b.injections(b.prepare(v, command), v, tables, command, "c1")
	b.must("delete", "-f", "c1")
	ignored := map[string]int{}
	failed := 0
	tried := sweep(t, len(list), func(n int) bool {
		i := list[(n-1)%len(list)]
		r, injected := b.fail(b.prepare(v, command), v, i, unix.EIO, command, "c1")
		what := fmt.Sprintf("%s of %s: %s number %d fails", v, command, i.name, i.k)
		switch {
		case r.code == 0 || !injected:
			ignored[i.name]++
			return b.recovers(clean, what, r, false)
		case !b.clean(what, i, r):
			b.husk("delete", "-f", "c1")
			return false
		case command == "create" && !b.undone(clean, what, r):
			return false
		}
		failed++
		return b.recovers(clean, what, r, false)
	})
	t.Logf("%s of %s: %d of %d tried, %d failed cleanly, no error for %v", v, command, tried, len(list), failed, ignored)
}

// clean wants one error in husk's form, with a field if a step of the plan failed.
func (b *bundle) clean(what string, i injection, r result) bool {
	b.t.Helper()
	if r.code != 1 && r.code != 126 && r.code != 127 || !strings.HasPrefix(r.stderr, "husk: ") || !strings.Contains(r.stderr, "husk: error: ") {
		b.t.Errorf("%s: exit %d: %s", what, r.code, r.stderr)
		return false
	}
	if stepCalls[i.name] != 0 && !regexp.MustCompile(`husk: error: [^/]*: /(mounts|root|linux|process|hostname|hooks)`).MatchString(r.stderr) {
		b.t.Errorf("%s: no field: %s", what, r.stderr)
		return false
	}
	return true
}

// undone wants everything as if create had never been tried.
func (b *bundle) undone(clean *snapshot, what string, r result) bool {
	b.t.Helper()
	left := leftover(clean, b.t)
	if left == nil {
		return true
	}
	b.t.Errorf("%s: not undone:\n  %s\n  %s", what, strings.Join(left, "\n  "), r.stderr)
	b.husk("delete", "-f", "c1")
	killStrays()
	return false
}

func TestErrorSweepCreateChild(t *testing.T) {
	box(t, func(t *testing.T) { errorSweep(t, child, "create", stepCalls, otherCalls) })
}

func TestErrorSweepCreateParent(t *testing.T) {
	box(t, func(t *testing.T) { errorSweep(t, parent, "create", stepCalls, otherCalls) })
}

func TestErrorSweepStartChild(t *testing.T) {
	box(t, func(t *testing.T) { errorSweep(t, child, "start", stepCalls, otherCalls) })
}

func TestErrorSweepStartParent(t *testing.T) {
	box(t, func(t *testing.T) { errorSweep(t, parent, "start", otherCalls) })
}

// An interrupted call is no failure: signals come from timers, terminals and the
// Go runtime's own preemption.
func interruptSweep(t *testing.T, v victim, command string) {
	b := sweepBundle(t)
	clean := census(t)
	list := b.injections(b.prepare(v, command), v, []map[string]int{blockingCalls}, command, "c1")
	b.must("delete", "-f", "c1")
	tried := sweep(t, len(list), func(n int) bool {
		i := list[(n-1)%len(list)]
		errno := unix.EINTR
		if i.name == "openat2" && n%2 == 0 {
			errno = unix.EAGAIN // a rename was racing
		}
		r, _ := b.fail(b.prepare(v, command), v, i, errno, command, "c1")
		what := fmt.Sprintf("%s of %s: %v from %s number %d", v, command, errno, i.name, i.k)
		if r.code != 0 {
			t.Errorf("%s: exit %d: %s", what, r.code, r.stderr)
		}
		return b.recovers(clean, what, r, false) && r.code == 0
	})
	t.Logf("%s of %s: %d of %d tried", v, command, tried, len(list))
}

func TestInterruptSweep(t *testing.T) {
	for _, command := range []string{"create", "start", "delete"} {
		for _, v := range []victim{parent, child} {
			if command == "delete" && v == child {
				continue
			}
			t.Run(command+"-"+string(v), func(t *testing.T) {
				box(t, func(t *testing.T) { interruptSweep(t, v, command) })
			})
		}
	}
}
