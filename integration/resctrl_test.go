package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/huskrun/husk/cgroups/resctrl/resctrltest"
	"golang.org/x/sys/unix"
)

// cmdResctrl mounts a fake resctrl on /sys/fs/resctrl: resctrl [classes=N] [monitors=N].
// To husk it is the real one: what fstatfs(2) says of it is
// answered in the kernel's stead, so that husk need not trust anything for a test.
func cmdResctrl(ts *script, neg bool, args []string) {
	k := resctrltest.New()
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		n, err := strconv.Atoi(value)
		ts.Check(err)
		switch name {
		case "classes":
			k.Classes = n
		case "monitors":
			k.Monitors = n
		default:
			ts.Fatalf("usage: resctrl [classes=N] [monitors=N]")
		}
	}
	undo, err := fakeResctrl(k)
	ts.Check(err)
	ts.Defer(undo)
}

// classes lists the groups of resctrl and what they may use.
func classes() (list []string) {
	for _, pattern := range []string{"schemata", "*/schemata", "mon_groups/*", "*/mon_groups/*"} {
		paths, _ := filepath.Glob(filepath.Join(resctrlDir, pattern))
		for _, path := range paths {
			text, _ := os.ReadFile(path)
			list = append(list, path+" "+string(text))
		}
	}
	return list
}

// A create that is disturbed anywhere leaves resctrl as it was, or the next command does:
// a class of the container's own, and one that is shared.
func TestResctrlSweep(t *testing.T) {
	for name, class := range map[string]string{"own": "", "shared": "gold"} {
		for _, disturb := range []string{"kill", "error"} {
			t.Run(name+"-"+disturb, func(t *testing.T) {
				box(t, func(t *testing.T) { resctrlSweep(t, class, disturb) })
			})
		}
	}
}

func resctrlSweep(t *testing.T, class, disturb string) {
	undo, err := fakeResctrl(resctrltest.New())
	must(t, err)
	defer undo()
	if class != "" {
		must(t, os.Mkdir(filepath.Join(resctrlDir, class), 0o755))
		sharedClass = class
	}
	if disturb == "kill" {
		killSweep(t, parent, "create")
		return
	}
	errorSweep(t, parent, "create", stepCalls, otherCalls)
}

// sharedClass is the closID of the sweeps' bundle.
var sharedClass string

const resctrlDir = "/sys/fs/resctrl"

// fakeResctrl mounts k. Where the CPU has no resctrl, sysfs has no directory for it.
func fakeResctrl(k *resctrltest.Kernel) (undo func(), err error) {
	cgroup, err := unix.OpenTree(unix.AT_FDCWD, "/sys/fs/cgroup", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(cgroup)
	if err := unix.Mount("tmpfs", "/sys/fs", "tmpfs", 0, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount /sys/fs: %w", err)
	}
	cover := func() { unix.Unmount("/sys/fs", unix.MNT_DETACH) }
	for _, dir := range []string{"/sys/fs/cgroup", resctrlDir} {
		if err = os.Mkdir(dir, 0o755); err != nil {
			break
		}
	}
	if err == nil {
		err = unix.MoveMount(cgroup, "", unix.AT_FDCWD, "/sys/fs/cgroup", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	var unmount func()
	if err == nil {
		unmount, err = k.Mount(resctrlDir)
	}
	listener := -1
	if err == nil {
		listener, err = disguise()
	}
	if err != nil {
		cover()
		return nil, err
	}
	return func() {
		unmount()
		cover()
		unix.Close(listener)
	}, nil
}

// disguise answers fstatfs(2) on the fake for this process and all that it starts, for
// good: there is no way to lose a filter.
func disguise() (listener int, err error) {
	const (
		load, jumpEqual, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		flags                = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	)
	program := []unix.SockFilter{
		{Code: load, K: 0}, // struct seccomp_data: nr
		{Code: jumpEqual, Jf: 1, K: unix.SYS_FSTATFS},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	go answerStatfs(int(fd))
	return int(fd), nil
}

// Of <linux/seccomp.h>.
type seccompNotif struct {
	id    uint64
	pid   uint32
	flags uint32
	data  struct {
		nr, arch int32
		ip       uint64
		args     [6]uint64
	}
}

type seccompResp struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

const (
	notifRecv = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	notifSend = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	proceed   = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

func answerStatfs(fd int) {
	for {
		var n seccompNotif
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifRecv, uintptr(unsafe.Pointer(&n)))
		if errno == unix.EINTR || errno == unix.ENOENT {
			continue
		}
		if errno != 0 {
			return
		}
		r := seccompResp{id: n.id, flags: proceed}
		if path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, n.data.args[0])); path == resctrlDir {
			r.flags = 0
			if err := pretend(int(n.pid), n.data.args[1]); err != nil {
				r.err = -int32(unix.EFAULT)
			}
		}
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSend, uintptr(unsafe.Pointer(&r)))
	}
}

// pretend writes what fstatfs(2) says of resctrl into a process.
func pretend(pid int, address uint64) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	st := unix.Statfs_t{Type: 0x7655821, Bsize: 4096, Namelen: 255} // RDTGROUP_SUPER_MAGIC
	_, err = mem.WriteAt(unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)), int64(address))
	return err
}
