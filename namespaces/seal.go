package namespaces

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const selfExe = "/proc/self/exe"

// Executable is a program that a child executes.
type Executable struct {
	*os.File
	mount int // where it lies, -1: nowhere
}

// Close closes it. Of an overlay the kernel lets go only after a wait for all CPUs, which
// is best done while the child is on its way.
func (e *Executable) Close() error {
	if e.mount >= 0 {
		_ = unix.Close(e.mount)
		e.mount = -1
	}
	return e.File.Close()
}

// Sealed returns the running executable in a form that the container cannot
// write to through /proc/PID/exe (CVE-2019-5736): opened through a detached
// overlay without an upper layer, which is read-only and, unlike a read-only
// bind mount, cannot be unwrapped to the file below. Where that cannot be
// mounted, or where a user namespace could not execute the file behind it, it
// is the file itself if that is a stranger's to the child of c, and else a sealed
// copy in memory.
func Sealed(c *Config) (*Executable, error) {
	e, overlayErr := sealOverlay()
	if overlayErr == nil {
		return e, nil
	}
	if e, err := c.strangers(); err == nil {
		return e, nil
	}
	e, err := sealCopy()
	if err != nil {
		return nil, fmt.Errorf("sealing the executable: %w", errors.Join(overlayErr, err))
	}
	return e, nil
}

// sealOverlay takes some 60 µs. An overlay without an upper layer needs two
// lower ones, neither inside the other; the second is /sys, which holds no
// executables (/proc does not allow to be stacked upon).
func sealOverlay() (*Executable, error) {
	path, err := os.Readlink(selfExe)
	if err != nil {
		return nil, err
	}
	dir, err := openPath(unix.AT_FDCWD, filepath.Dir(path), unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	// The layer is named by descriptor: fsconfig takes at most 255 bytes, and
	// the separators of overlay's list need no escaping this way.
	mount, err := mountOverlay("/proc/thread-self/fd/" + strconv.Itoa(dir) + ":/sys")
	if err != nil {
		return nil, err
	}
	fd, err := openPath(mount, filepath.Base(path), 0)
	if err != nil {
		unix.Close(mount)
		return nil, err
	}
	e := &Executable{os.NewFile(uintptr(fd), path), mount}
	if err := sameExecutable(fd); err != nil {
		_ = e.Close()
		return nil, err
	}
	return e, nil
}

func mountOverlay(lower string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen overlay", err)
	}
	defer unix.Close(fs)
	// The others are the defaults of most kernels; where they are not, overlay
	// would complain in the kernel's log that /sys has no UUID.
	for _, option := range [...][2]string{{"lowerdir", lower}, {"index", "off"}, {"xino", "off"}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return -1, os.NewSyscallError("fsconfig overlay "+option[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig overlay", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	return mount, os.NewSyscallError("fsmount overlay", err)
}

func openPath(dir int, path string, flags uint64) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat2(dir, path, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_NO_MAGICLINKS,
		})
	})
	if err != nil {
		return -1, &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	return fd, nil
}

// sameExecutable guards against the name of the executable meaning another
// file by now: after an upgrade the child would speak another protocol. It also
// refuses a file that root of a user namespace, a stranger to its owner, may
// not execute.
func sameExecutable(fd int) error {
	var got, want unix.Stat_t
	if err := unix.Fstat(fd, &got); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := unix.Stat(selfExe, &want); err != nil {
		return &os.PathError{Op: "stat", Path: selfExe, Err: err}
	}
	// Overlay shows its own device number, but the lower file's inode number.
	if got.Ino != want.Ino || got.Size != want.Size || got.Mtim != want.Mtim || got.Ctim != want.Ctim {
		return errors.New("the executable was replaced since it was started")
	}
	if got.Mode&0o001 == 0 {
		return fmt.Errorf("the executable's mode %o lets only its owner execute it", got.Mode&0o7777)
	}
	return nil
}

var errOurs = errors.New("the child could change the executable")

// strangers returns the executable as it is, if no process in the child's new user
// namespace can get the right to write to it: capabilities there hold only for files
// whose owner is mapped, and for others the mode decides.
func (c *Config) strangers() (*Executable, error) {
	fd, err := retry(func() (int, error) { return unix.Open(selfExe, unix.O_PATH|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: selfExe, Err: err}
	}
	e := &Executable{os.NewFile(uintptr(fd), "husk"), -1}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err = sameExecutable(fd); err == nil {
		err = errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs))
	}
	real, effective, saved := unix.Getresuid()
	ours := slices.ContainsFunc(c.UIDMaps, func(m specs.LinuxIDMapping) bool { return st.Uid-m.HostID < m.Size })
	switch {
	case err != nil:
	case c.New&unix.CLONE_NEWUSER == 0, len(c.UIDMaps) == 0, ours, st.Mode&0o022 != 0,
		slices.Contains([]int{real, effective, saved}, int(st.Uid)),
		fs.Type == unix.FUSE_SUPER_MAGIC: // its server may be the user's own
		err = errOurs
	default:
		return e, nil
	}
	_ = e.Close()
	return nil, err
}

// sealCopy takes some 1.5 ms for each MB.
func sealCopy() (*Executable, error) {
	exe, err := openRead(selfExe)
	if err != nil {
		return nil, err
	}
	defer unix.Close(exe)
	f, err := sealedMemory("husk", func(memory int) error { return copyAll(memory, exe) })
	return &Executable{f, -1}, err
}

// SealedProgram returns a copy of a program in memory that nothing can write to.
func SealedProgram(name string, program io.ReaderAt) (*os.File, error) {
	return sealedMemory(name, func(memory int) error {
		_, err := io.Copy(fdWriter(memory), io.NewSectionReader(program, 0, math.MaxInt64))
		return err
	})
}

// sealedMemory makes an executable memory file, has it filled, and seals it.
func sealedMemory(name string, fill func(memory int) error) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	memory, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 all are executable
		memory, err = unix.MemfdCreate(name, flags)
	}
	if err == unix.EACCES {
		return nil, fmt.Errorf("memfd_create: %w (the sysctl vm.memfd_noexec forbids programs in memory files)", err)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(memory)
	if err := fill(memory); err != nil {
		return nil, err
	}
	if err := addSeals(memory); err != nil {
		return nil, err
	}
	// execve refuses a file that is open for writing (ETXTBSY), sealed or not.
	fd, err := openRead("/proc/thread-self/fd/" + strconv.Itoa(memory))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "memfd:"+name), nil
}

// fdWriter writes to a descriptor.
type fdWriter int

func (w fdWriter) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = retry(func() (int, error) { return unix.Write(int(w), b[n:]) })
		n += max(m, 0)
	}
	return n, os.NewSyscallError("write", err)
}

// openRead is os.Open without Go's poller, which costs three system calls more.
func openRead(path string) (int, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func copyAll(to, from int) error {
	for {
		n, err := retry(func() (int, error) { return unix.Sendfile(to, from, nil, 1<<30) })
		if err != nil {
			return os.NewSyscallError("sendfile", err)
		}
		if n == 0 {
			return nil
		}
	}
}

func addSeals(fd int) error {
	// Not F_SEAL_WRITE, which fails (EBUSY) while the kernel still holds one of the pages, and
	// only takes more than this from who had it mapped before; nor F_SEAL_EXEC, which implies it.
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("fcntl F_ADD_SEALS", err)
}

// retry repeats a system call that a signal interrupted; x/sys/unix does not.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}
