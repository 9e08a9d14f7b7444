package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AnnotationLandlock has the processes of a container write only to what is in these
// directories, and to these files, one a line: a second line of defence behind mounts that
// are read-only. They are restricted by landlock(7), so that they cannot mount anything
// either, nor, where the kernel knows it, reach abstract sockets and signal processes
// outside. It takes noNewPrivileges, and on kernels without it is left out with a warning.
const AnnotationLandlock = "run.husk.landlock"

// landlockUses are the versions of Landlock that each add something that is used here.
const landlockUses = "2,3,6"

// What is restricted: changes, not reading or executing.
const (
	landlockWrites = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	landlockToFile = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// HasLandlock says whether this kernel knows enough of Landlock: its first version forbids
// links and renames from one directory to another.
func HasLandlock() bool { return landlockABI() >= 2 }

func landlockABI() int {
	abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// landlock: only a process that cannot gain rights may restrict itself.
func (v *validator) landlock() {
	text, ok := v.Annotations[AnnotationLandlock]
	if !ok {
		return
	}
	field := pointer("/annotations", AnnotationLandlock)
	for path := range strings.SplitSeq(text, "\n") {
		v.absolute(field, path)
	}
	if v.Process != nil && !v.Process.NoNewPrivileges {
		v.bad(field, "is for processes that cannot gain rights", "set /process/noNewPrivileges to true, or leave it out")
	}
}

// landlock adds the step.
func (p *Plan) landlock() {
	text, ok := p.config.Spec.Annotations[AnnotationLandlock]
	if !ok {
		return
	}
	field := pointer("/annotations", AnnotationLandlock)
	if !HasLandlock() {
		p.Warnings = append(p.Warnings, field+": left out: this kernel has no Landlock, or not before version 2 (Linux 5.19)")
		return
	}
	p.add(opLandlock, field, strings.Split(text, "\n")...)
}

// restrict confines this thread, and what it executes.
func restrict(paths []string) error {
	abi := landlockABI()
	attr := unix.LandlockRulesetAttr{Handled_access_fs: landlockWrites}
	if abi >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	// An older kernel takes a larger structure if it has zeros beyond what it knows.
	n, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	rules := int(n)
	defer unix.Close(rules)
	for _, path := range paths {
		if err := allowBelow(rules, path, attr.Handled_access_fs); err != nil {
			return err
		}
	}
	// Whoever may write to a stream may open it anew, as /dev/stdout. Pipes and sockets
	// are nowhere, so that they are not restricted: EBADFD.
	for fd := range 3 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY {
			continue
		}
		if err := allow(rules, fd, attr.Handled_access_fs); err != nil && !errors.Is(err, unix.EBADFD) {
			return err
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", errno)
	}
	return nil
}

func allowBelow(rules int, path string, rights uint64) error {
	fd, err := openPath(path, unix.O_PATH)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return allow(rules, fd, rights)
}

// allow adds the rule for a directory and all in it, or for a file.
func allow(rules, fd int, rights uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= landlockToFile
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock_add_rule: %w", errno)
	}
	return nil
}
