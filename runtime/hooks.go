package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hookCall is one hook to run in the namespaces of the caller.
type hookCall struct {
	path    string
	dir     string // where it begins; "": where we are
	args    []string
	env     []string
	state   []byte        // the container's state, JSON, for stdin
	timeout time.Duration // 0: none
	init    *initer       // whose process's rights it shall have; nil: ours
}

// hookOutputLimit is how much of a failing hook's output its error quotes.
const hookOutputLimit = 4096

func hookTimeout(h specs.Hook) int64 {
	if h.Timeout == nil {
		return 0
	}
	return int64(*h.Timeout)
}

// hookState makes the state document of a hook without its pid, which the one who
// runs the hook adds by appendPid.
func hookState(version, id string, status specs.ContainerState, bundle string, annotations map[string]string) []byte {
	w := &jsonWriter{}
	w.object(func() {
		w.text("ociVersion", version)
		w.text("id", id)
		w.text("status", string(status))
		w.text("bundle", bundle)
		w.texts("annotations", annotations)
	})
	return w.b
}

func appendPid(state []byte, pid int) []byte {
	if pid == 0 {
		return state
	}
	state = append(bytes.Clone(state[:len(state)-1]), `,"pid":`...)
	return append(strconv.AppendInt(state, int64(pid), 10), '}')
}

// runHook runs one hook and waits for it. State and output go through anonymous files
// and not through pipes: nobody has to read or write while the hook runs, so a hook
// that reads nothing or writes much cannot stall the runtime. The hook's environment
// is exactly the configured one. At the timeout its whole process group is killed.
func runHook(h *hookCall) error {
	stdin, err := memfile("state", h.state)
	if err != nil {
		return err
	}
	defer unix.Close(stdin)
	output, err := memfile("output", nil)
	if err != nil {
		return err
	}
	defer dropOutput(output)
	args := h.args
	if len(args) == 0 {
		args = []string{h.path}
	}
	pid, pidfd, err := h.start(args, stdin, output)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	status, err := awaitHook(pid, pidfd, h.timeout)
	if err != nil {
		return fmt.Errorf("hook %s: %w%s", h.path, err, tail(output))
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		return fmt.Errorf("hook %s: %s%s", h.path, statusText(status), tail(output))
	}
	return nil
}

// start starts the hook, which leads a process group of its own and ends with us.
func (h *hookCall) start(args []string, stdin, output int) (pid, pidfd int, err error) {
	if h.init != nil {
		if pid, err = h.init.spawn(h, args, stdin, output); err != nil {
			return 0, -1, err
		}
		pidfd, err = unix.PidfdOpen(pid, 0)
		return pid, pidfd, os.NewSyscallError("pidfd_open", err)
	}
	pid, err = syscall.ForkExec(h.path, args, &syscall.ProcAttr{
		Dir:   h.dir,
		Env:   h.env,
		Files: []uintptr{uintptr(stdin), uintptr(output), uintptr(output)},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: &pidfd},
	})
	if err != nil {
		return 0, -1, &fs.PathError{Op: "run hook", Path: h.path, Err: err}
	}
	return pid, pidfd, nil
}

func awaitHook(pid, pidfd int, timeout time.Duration) (status syscall.WaitStatus, err error) {
	deadline := time.Time{}
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	waited := waitReadable(pidfd, deadline)
	late := errors.Is(waited, os.ErrDeadlineExceeded)
	if waited != nil {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			break
		}
	}
	if late {
		return status, fmt.Errorf("killed after its timeout of %s", timeout)
	}
	return status, errors.Join(waited, err)
}

// dropOutput frees what a hook wrote. A daemon that the hook left behind may hold the
// file for years, and can write no more to it.
func dropOutput(fd int) {
	_ = unix.Ftruncate(fd, 0)
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	_ = unix.Close(fd)
}

func statusText(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "killed by signal " + strconv.Itoa(int(s.Signal())) + " (" + s.Signal().String() + ")"
	}
	return "exit status " + strconv.Itoa(s.ExitStatus())
}

// memfile returns an anonymous file that holds b, positioned at its start.
func memfile(name string, b []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	if err = writeAll(fd, b); err == nil {
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("write memfd", err)
	}
	return fd, nil
}

// tail quotes the end of what a hook wrote.
func tail(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Size == 0 {
		return ""
	}
	b := make([]byte, min(st.Size, hookOutputLimit))
	n, _ := unix.Pread(fd, b, st.Size-int64(len(b)))
	text := printable(strings.TrimSpace(string(b[:max(n, 0)])))
	if text == "" {
		return ""
	}
	return ": " + text
}

// waitReadable waits until fd (a pidfd or socket) is readable, without end if the
// deadline is zero.
func waitReadable(fd int, deadline time.Time) error {
	for {
		var timeout *unix.Timespec
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left < 0 {
				left = 0
			}
			ts := unix.NsecToTimespec(int64(left))
			timeout = &ts
		}
		n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, timeout, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return os.ErrDeadlineExceeded
		default:
			return nil
		}
	}
}

// hookDir is where hooks begin that see the host's files: in the bundle, as those of runc
// and crun do, whatever the caller's directory is. The bundle may be gone by the time of
// delete, or not be seen from a mount namespace that is joined.
func hookDir(bundle string) string {
	fd, err := openPath(bundle, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "/"
	}
	_ = unix.Close(fd)
	return bundle
}

// runHooks runs hooks of the runtime's side in order and stops at the first failure.
func runHooks(name string, hooks []specs.Hook, bundle string, state []byte) error {
	for k, h := range hooks {
		if err := runHook(newHookCall(h, bundle, state)); err != nil {
			return at(pointer("/hooks", name, strconv.Itoa(k)), h.Path, err)
		}
	}
	return nil
}

func newHookCall(h specs.Hook, bundle string, state []byte) *hookCall {
	return &hookCall{
		path: h.Path, dir: hookDir(bundle), args: h.Args, env: h.Env, state: state,
		timeout: time.Duration(hookTimeout(h)) * time.Second,
	}
}
