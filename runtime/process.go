package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// joinKeyring gives the thread the session keyring of the container, so that it cannot
// reach the caller's keys: a new one, or the one that the init made under this name.
// Kernels without keyrings have nothing to reach; a user who is over the key quota would
// not get one at all.
func joinKeyring(name string) error {
	id, err := unix.KeyctlJoinSessionKeyring(name)
	if err == unix.ENOSYS {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("join session keyring", err)
	}
	// The rights that a new one gives to its possessor and its owner, and one more: that
	// the owner finds it by name. Without that whoever joins later gets another one, and
	// so it is if the container has taken from us the right to change this.
	const possessor, viewReadLink, search = 0x3f000000, 0x00130000, 0x00080000
	_ = unix.KeyctlSetperm(id, possessor|viewReadLink|search)
	return nil
}

// setRlimit sets one limit. The parent has raised the hard limits that needed it, so
// this only ever lowers, which needs no privilege.
func setRlimit(s *Step) error {
	limit := unix.Rlimit{Cur: uint64(s.Nums[1]), Max: uint64(s.Nums[2])}
	err := unix.Prlimit(0, int(s.Nums[0]), &limit, nil)
	if err != nil {
		return fmt.Errorf("set %s to %d:%d: %w", s.Args[0], limit.Cur, limit.Max, err)
	}
	return nil
}

// ownStdio gives pipes on stdin, stdout and stderr, and the container's own terminal,
// to the container's user, who could otherwise not reopen them as /dev/stdout. Files,
// sockets and the caller's terminal stay as they are: they belong to the caller.
func ownStdio(uid uint32, terminal bool) error {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Uid == uid {
			continue
		}
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFIFO && !(terminal && kind == unix.S_IFCHR) {
			continue
		}
		err := unix.Fchown(fd, int(uid), -1)
		// EINVAL, EPERM: the user namespace does not map the pipe's owner.
		if err != nil && err != unix.EINVAL && err != unix.EPERM && err != unix.EROFS {
			return os.NewSyscallError("fchown", err)
		}
	}
	return nil
}

// chdir enters the working directory with the rights of root, who may do so where the
// user may not: then that is where the user starts. Elsewhere it is the other way round
// (network file systems), and it has to wait for the change of ids.
func (i *initer) chdir(dir string) error {
	err := chdir(dir)
	i.inside = err == nil
	if errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

// chdir enters dir and checks that it is inside: a descriptor of the host that a
// careless caller leaked could be reached as /proc/self/fd/N (CVE-2024-21626), and the
// kernel then answers getcwd with "(unreachable)".
func chdir(dir string) error {
	path, err := unix.BytePtrFromString(dir)
	if err != nil {
		return &fs.PathError{Op: "chdir", Path: dir, Err: err}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		return &fs.PathError{Op: "chdir", Path: dir, Err: errno}
	}
	var buf [unix.PathMax]byte
	n, _, errno := unix.RawSyscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&buf)), uintptr(len(buf)), 0)
	if errno != 0 {
		return &fs.PathError{Op: "getcwd", Path: dir, Err: errno}
	}
	if n == 0 || buf[0] != '/' {
		return fmt.Errorf("%s is outside of the container's root: %w", dir, unix.EXDEV)
	}
	return nil
}

// become changes to uid nums[0], gid nums[1] and the groups that follow. The raw calls
// concern this thread alone, which is the one that will execve; capabilities survive
// the change until setCaps.
func (i *initer) become(nums []int64) error {
	i.became = true
	if err := prctl(unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	groups := make([]uint32, len(nums)-2)
	for k := range groups {
		groups[k] = uint32(nums[k+2])
	}
	if err := i.setGroups(groups); err != nil {
		return err
	}
	gid, uid := uintptr(nums[1]), uintptr(nums[0])
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("setresgid %d: %w", gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("setresuid %d: %w", uid, errno)
	}
	return os.NewSyscallError("prctl", prctl(unix.PR_SET_KEEPCAPS, 0, 0))
}

// setGroups: a user namespace made without privilege forbids setgroups, and then an
// empty list cannot be asked for; the caller's groups show as nogroup.
func (i *initer) setGroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0)
	if errno == 0 || errno == unix.EPERM && len(groups) == 0 && (i.denied || i.setgroupsDenied()) {
		return nil
	}
	return fmt.Errorf("setgroups %v: %w", groups, errno)
}

func (i *initer) setgroupsDenied() bool {
	b, err := i.root.Proc().Read("self/setgroups", 16)
	return err == nil && strings.HasPrefix(string(b), "deny")
}

func (i *initer) setUmask(mask int64) {
	if mask < 0 {
		mask = int64(i.umask)
	}
	unix.Umask(int(mask))
}

// execute replaces the init by the container's process. The connection carries the
// errno or, by its EOF, the success.
func (i *initer) execute(s *Step) error {
	argc := int(s.Nums[0])
	env := environment(s.Args[argc:], i.home)
	argv, err := syscall.SlicePtrFromStrings(s.Args[:argc])
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	path, _ := searchPath(env)
	files := candidates(s.Args[0], path)
	paths, err := syscall.SlicePtrFromStrings(files)
	if err != nil {
		return err
	}
	if err := i.announce(); err != nil {
		return err
	}
	i.tie()
	try := tryExec
	switch {
	case i.last == nil:
	case i.last.Own:
		try = i.supervise
	default:
		try = i.lastExec
	}
	return execError(s.Args[0], files, try(paths[:len(files)], argv, envp))
}

// tryExec executes the first path that can be, and returns what the kernel says if none can.
func tryExec(paths, argv, envp []*byte) (answers []unix.Errno) {
	for k := range paths {
		_, _, e := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(paths[k])),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])))
		answers = append(answers, e)
		if e != unix.ENOENT && e != unix.ENOTDIR && e != unix.EACCES {
			break
		}
	}
	return answers
}

// execError chooses the answer that tells most.
func execError(name string, files []string, answers []unix.Errno) error {
	best, errno := 0, unix.ENOENT
	searched := !strings.Contains(name, "/")
	for k, e := range answers {
		if e == unix.ENOENT && unix.Access(files[k], unix.F_OK) == nil {
			return &fs.PathError{Op: "exec", Path: files[k], Err: interpreterError{}}
		}
		if e != unix.ENOENT && e != unix.ENOTDIR || !searched {
			best, errno = k, e
		}
	}
	if errno == unix.ENOENT && searched {
		return &notFoundError{name, errno}
	}
	return &fs.PathError{Op: "exec", Path: files[best], Err: errno}
}

// interpreterError is ENOENT for a file that does exist.
type interpreterError struct{}

func (interpreterError) Error() string { return "its interpreter: " + unix.ENOENT.Error() }
func (interpreterError) Unwrap() error { return unix.ENOENT }

// candidates lists the files that execvp(3) would try.
func candidates(name, path string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var files []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		files = append(files, dir+"/"+name)
	}
	return files
}

// environment keeps the last of duplicate variables and adds HOME if it is missing.
func environment(env []string, home string) []string {
	out := make([]string, 0, len(env)+1)
	if home != "" {
		out = append(out, "HOME="+home)
	}
	seen := make(map[string]bool, len(env))
	for _, kv := range slices.Backward(env) {
		name, _, _ := strings.Cut(kv, "=")
		if !seen[name] {
			out = append(out, kv)
		}
		seen[name] = true
	}
	slices.Reverse(out)
	return out
}

// closeAllBut closes every descriptor from first on, save keep.
func closeAllBut(first, keep int) error {
	if keep > first {
		if err := unix.CloseRange(uint(first), uint(keep-1), 0); err != nil {
			return err
		}
	}
	return unix.CloseRange(uint(max(first, keep+1)), math.MaxInt32, 0)
}

// exitCode is the status a shell gives for a program that could not be executed: 127
// if there is none, 126 if there is one that cannot be run. 0: err is about something else.
func exitCode(field string, err error) int {
	if !strings.HasPrefix(field, "/process/args") {
		return 0
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return 127
	}
	return 126
}

// raiseLimits raises hard limits of the parked init that it could not raise itself
// once it is in a user namespace. Soft limits stay as they are until execve.
func raiseLimits(pid int, steps []Step) error {
	for k := range steps {
		s := &steps[k]
		if s.Op != opRlimit {
			continue
		}
		var have unix.Rlimit
		if err := unix.Prlimit(pid, int(s.Nums[0]), nil, &have); err != nil {
			return at(s.Field, s.Args[0], os.NewSyscallError("prlimit", err))
		}
		if uint64(s.Nums[2]) <= have.Max {
			continue
		}
		want := unix.Rlimit{Cur: have.Cur, Max: uint64(s.Nums[2])}
		if err := unix.Prlimit(pid, int(s.Nums[0]), &want, nil); err != nil {
			return at(s.Field, s.Args[0], fmt.Errorf("raise the hard limit from %s to %s: %w",
				limitText(int64(have.Max)), limitText(s.Nums[2]), err))
		}
	}
	return nil
}

// setOOMScore writes oom_score_adj of the init from outside, because lowering it needs
// a privilege that a user namespace takes away.
func setOOMScore(pid int, score *int) error {
	if score == nil {
		return nil
	}
	file := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	fd, err := openPath(file, unix.O_WRONLY)
	if err == nil {
		err = writeAll(fd, strconv.AppendInt(nil, int64(*score), 10))
		_ = unix.Close(fd)
	}
	if err != nil {
		return at("/process/oomScoreAdj", "", fmt.Errorf("set to %d: %w", *score, err))
	}
	return nil
}
