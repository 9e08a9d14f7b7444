// Package harness is what tests of husk and tests of engines above it have in common: the
// outside of a box, that is namespaces and a cgroup of its own for a program that believes
// itself alone on a machine.
package harness

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// Patience stretches what a test waits for by $HUSK_PATIENCE: an emulated machine is
// slow.
func Patience(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("HUSK_PATIENCE")); err == nil && n > 1 {
		return d * time.Duration(n)
	}
	return d
}

// A Group is a cgroup that becomes the root of a box's cgroup namespace.
type Group struct {
	Dir  *os.File
	at   int
	name string
}

// NewGroup makes one. It goes through a detached mount, so that it needs no cgroup2 to be
// mounted anywhere and a cgroup v1 tree on the machine stays untouched.
func NewGroup(prefix string) (*Group, error) {
	at, err := CgroupRoot()
	if err != nil {
		return nil, fmt.Errorf("a cgroup2 file system: %w", err)
	}
	name := fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), time.Now().UnixNano())
	if err := unix.Mkdirat(at, name, 0o755); err != nil {
		return nil, fmt.Errorf("a writable cgroup2 hierarchy: mkdir: %w", err)
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &Group{Dir: os.NewFile(uintptr(fd), name), at: at, name: name}, nil
}

// CgroupRoot is a descriptor of the root of cgroup2.
var CgroupRoot = sync.OnceValues(func() (int, error) {
	// The machine's own mount, if there is one: another would change its options, which
	// are those of the hierarchy and of who mounts last.
	if where, err := cgroups.Mountpoint(); err == nil {
		return unix.OpenTree(unix.AT_FDCWD, where, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
})

// Isolate starts a command in this cgroup and in namespaces of its own, to die with the
// thread that starts it.
func (g *Group) Isolate() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:   syscall.SIGKILL,
		UseCgroupFD: true,
		CgroupFD:    int(g.Dir.Fd()),
	}
}

// Remove kills and removes what a box left, about which its own search for leaks has
// complained already unless the box was interrupted.
func (g *Group) Remove() error {
	defer g.Dir.Close()
	if fd, err := unix.Openat(g.at, g.name+"/cgroup.kill", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		unix.Write(fd, []byte("1"))
		unix.Close(fd)
	}
	var err error
	for range 200 {
		if err = RemoveTree(g.at, g.name); err == nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("left behind: cgroup %s: %w", g.name, err)
}

// RemoveTree removes a cgroup and those below it.
func RemoveTree(at int, name string) error {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	entries, _ := dir.ReadDir(-1)
	for _, e := range entries {
		if e.IsDir() {
			RemoveTree(fd, e.Name())
		}
	}
	dir.Close()
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}

// Run starts this program once more, as the child of a box's first process, and reaps, as a
// machine's init would, until it ends. It returns the exit status.
func Run(env []string) int {
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Println("start the test:", err)
		return 2
	}
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 2
		case got == pid && status.Signaled():
			fmt.Println("the test was killed by", status.Signal())
			return 128 + int(status.Signal())
		case got == pid:
			return status.ExitStatus()
		}
	}
}
