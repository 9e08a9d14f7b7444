package namespaces

import (
	"fmt"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// Within calls f on a thread that is in the namespace at path, of the type flag, as
// seen by f's own system calls: what a filesystem shows of a namespace is that of the
// thread that mounts it. User and mount namespaces, which threads share, and PID
// namespaces, which only children enter, cannot be visited so.
//
// The thread comes back: that of [Spawn] must not end, as it would with a goroutine
// that is still locked to it.
func Within(path string, flag uintptr, f func() error) error {
	there, err := Open(path, flag)
	if err != nil {
		return err
	}
	defer there.Close()
	goruntime.LockOSThread()
	back, err := Open("/proc/thread-self/ns/"+typeNames(flag), flag)
	if err != nil {
		goruntime.UnlockOSThread()
		return err
	}
	defer back.Close()
	if err := unix.Setns(int(there.Fd()), int(flag)); err != nil {
		goruntime.UnlockOSThread()
		return &os.PathError{Op: "setns", Path: path, Err: err}
	}
	err = f()
	if e := unix.Setns(int(back.Fd()), int(flag)); e != nil {
		// The goroutine stays where it is: no other may run on this thread.
		return fmt.Errorf("return from %s: %w", path, e)
	}
	goruntime.UnlockOSThread()
	return err
}

// Owned says whether the namespace at path, of the type flag, belongs to the user
// namespace at user.
func Owned(path string, flag uintptr, user string) bool {
	ns, err := Open(path, flag)
	if err != nil {
		return false
	}
	defer ns.Close()
	owner, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return false
	}
	defer unix.Close(owner)
	var a, b unix.Stat_t
	return unix.Fstat(owner, &a) == nil && unix.Stat(user, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}
