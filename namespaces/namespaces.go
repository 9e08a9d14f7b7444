package namespaces

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Join is a namespace to enter: an open descriptor of a namespace file and its
// CLONE_NEW* type, or a pidfd and the types to share with that process.
type Join struct {
	Flag uintptr
	FD   int
}

// Config says everything about the child of [Spawn].
type Config struct {
	// New are the namespaces to create, Join those to enter before that. What
	// is in neither is inherited, what is in both an error.
	New  uintptr
	Join []Join

	// UIDMaps and GIDMaps are written for a new user namespace. With an empty
	// map the child keeps its (unmapped) ids there.
	UIDMaps, GIDMaps []specs.LinuxIDMapping

	// Unseen says that the processes of the joined namespaces cannot see the child:
	// then it may share the caller's memory until it executes. A cgroup that is frozen
	// meanwhile holds up the caller as well.
	Unseen bool

	// TimeOffsets are those of a new time namespace: "monotonic", "boottime".
	TimeOffsets map[string]specs.LinuxTimeOffset

	// Cgroup is the open directory of the cgroup v2 that the child is born
	// into, -1 to inherit.
	Cgroup int

	// Place, if given, moves the child with this pid into a cgroup before it goes on,
	// and before its cgroup namespace is made. It takes longer than to be born there,
	// but Linux 6.14 and later kill at birth, for ever, what clone3 puts into a cgroup
	// when cgroup.kill was once written to that one or to the caller's. See ErrKilled.
	Place func(pid int) error

	// Leave, unless 0, is the cgroup.procs of a cgroup, open for writing, into which
	// the child moves once its own cgroup is the root of its cgroup namespace: what it
	// needs from then on is charged there. If that is refused it stays.
	Leave int

	// Small keeps the program from transparent huge pages, of which its heap would
	// take a whole one at once. What it executes inherits that.
	Small bool

	// Root is a detached mount that becomes "/" of the new mount namespace before
	// a joined PID namespace is entered, whose processes could otherwise reach
	// the host's files through /proc/PID/root. 0: the child does that itself.
	Root int

	// Exe is what the child executes, best from [Sealed].
	Exe       interface{ Fd() uintptr }
	Args, Env []string

	// Inherit says that the descriptors 3 to 3+Inherit-1 stay open in the
	// child, if they are open and not close-on-exec. 0 to 2 always do.
	Inherit int

	// Child becomes the child's descriptor 3+Inherit. Spawn closes it in the
	// caller, in order that the other end notices the child's death.
	Child *Conn
}

// ErrKilled says that somebody, or the kernel, killed the child with SIGKILL before
// [Spawn] was done with it. Later it is only seen by who reaps the child.
var ErrKilled = errors.New("the child was killed before it had entered its namespaces")

// Process is a child that Spawn made. Whoever called Spawn has to reap it, for
// example with waitid(P_PIDFD).
type Process struct {
	PID int      // in the PID namespace of the caller
	FD  *os.File // its pidfd
}

// names in the order in which namespaces are entered, but for the user
// namespace, which has rules of its own.
var names = [...]struct {
	flag uintptr
	name string
}{
	{unix.CLONE_NEWIPC, "ipc"},
	{unix.CLONE_NEWUTS, "uts"},
	{unix.CLONE_NEWNET, "net"},
	{unix.CLONE_NEWCGROUP, "cgroup"},
	{unix.CLONE_NEWTIME, "time"},
	{unix.CLONE_NEWPID, "pid"},
	{unix.CLONE_NEWNS, "mnt"},
	{unix.CLONE_NEWUSER, "user"},
}

// typeNames names the namespaces of the flags as /proc/PID/ns does: "net, pid".
func typeNames(flags uintptr) string {
	var found []string
	for _, n := range names {
		if flags&n.flag != 0 {
			found = append(found, n.name)
			flags &^= n.flag
		}
	}
	if flags != 0 {
		found = append(found, "unknown "+strconv.FormatUint(uint64(flags), 16))
	}
	return strings.Join(found, ", ")
}

// Open opens the namespace file at path and checks that it is of the type flag
// (CLONE_NEW*).
func Open(path string, flag uintptr) (*os.File, error) {
	// The path may name a FIFO or a terminal by mistake: neither wait for its
	// writer nor make it ours.
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := checkType(fd, flag); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func checkType(fd int, flag uintptr) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("not a namespace, but a %s namespace is wanted: %w", typeNames(flag), unix.EINVAL)
	}
	got, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return os.NewSyscallError("ioctl NS_GET_NSTYPE", err)
	}
	if uintptr(got) != flag {
		return fmt.Errorf("a %s namespace, but a %s namespace is wanted: %w", typeNames(uintptr(got)), typeNames(flag), unix.EINVAL)
	}
	return nil
}

// check refuses what would otherwise do something else than it says.
func (c *Config) check() error {
	var joined uintptr
	for _, j := range c.Join {
		if both := j.Flag & (joined | c.New); both != 0 {
			return fmt.Errorf("%s namespace given twice: %w", typeNames(both), unix.EINVAL)
		}
		joined |= j.Flag
	}
	switch {
	case c.Child == nil || c.Child.fd < 0 || c.Exe == nil || len(c.Args) == 0 || c.Inherit < 0:
		return errors.New("incomplete configuration")
	case len(c.UIDMaps)+len(c.GIDMaps) > 0 && c.New&unix.CLONE_NEWUSER == 0:
		return fmt.Errorf("id mappings without a new user namespace: %w", unix.EINVAL)
	case c.Place != nil && c.Cgroup >= 0:
		return fmt.Errorf("a cgroup to be born in and another one to be moved to: %w", unix.EINVAL)
	case c.Root != 0 && c.New&unix.CLONE_NEWNS == 0:
		return fmt.Errorf("a root without a new mount namespace: %w", unix.EINVAL)
	case len(c.TimeOffsets) > 0 && c.New&unix.CLONE_NEWTIME == 0:
		return fmt.Errorf("time offsets without a new time namespace: %w", unix.EINVAL)
	}
	return nil
}
