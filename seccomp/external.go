package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Compiler makes filters from profiles.
type Compiler interface {
	// ID names the compiler's code including its libseccomp: a filter in the
	// cache is used only by the compiler that made it. Empty: never cached.
	ID() string
	// Compile compiles a profile, the JSON text of /linux/seccomp. Mistakes in it
	// are joined *FieldErrors.
	Compile(profile []byte) (*Filter, error)
}

// ErrNoCompiler is returned by Load without a Compiler.
var ErrNoCompiler = errors.New("this program was built without its seccomp compiler")

// External is the Compiler that runs exe, a static build of package compiler.
// exe is only read from, and that only when a profile is to be loaded.
func External(exe io.ReaderAt) Compiler {
	return &external{exe: exe, timeout: 30 * time.Second}
}

type external struct {
	exe     io.ReaderAt
	timeout time.Duration
}

// noteWindow is how much of the program is searched for its build ID, which
// stands in the first page in practice.
const noteWindow = 8 << 10

// ID is the build ID that go build writes into the program: its last part is a
// hash of the linked file, libseccomp included, so it neither has to be computed
// at every start nor can be forgotten when libseccomp is upgraded.
func (e *external) ID() string {
	head := make([]byte, noteWindow)
	n, err := e.exe.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return goBuildID(head[:n])
}

// goBuildID finds the ELF note of owner "Go", type 4: the lengths of owner and
// text, the type, the owner padded to four bytes, the text (elf(5)).
func goBuildID(head []byte) string {
	header := append(binary.NativeEndian.AppendUint32(nil, 4), "Go\x00\x00"...)
	i := bytes.Index(head, header)
	if i < 8 || binary.NativeEndian.Uint32(head[i-8:]) != 4 {
		return ""
	}
	n := binary.NativeEndian.Uint32(head[i-4:])
	text := head[i+len(header):]
	if n > 256 || int(n) > len(text) {
		return ""
	}
	return string(text[:n])
}

// Compile has the program compile a profile.
func (e *external) Compile(profile []byte) (*Filter, error) {
	out, err := e.ask(profile)
	if err != nil {
		return nil, err
	}
	f := new(Filter)
	if err := f.UnmarshalBinary(out); err != nil {
		return nil, fmt.Errorf("seccomp compiler: %w", err)
	}
	return f, nil
}

// ask runs the program on memory files: no pipe that could fill up, so one wait with a
// deadline is all there is to do.
func (e *external) ask(profile []byte, args ...string) ([]byte, error) {
	exe, err := e.program()
	if err != nil {
		return nil, fmt.Errorf("seccomp compiler: %w", err)
	}
	defer exe.Close()
	files, err := stdio(profile)
	if err != nil {
		return nil, fmt.Errorf("seccomp compiler: %w", err)
	}
	defer closeAll(files)
	state, err := e.run(exe, files, args)
	if err != nil {
		return nil, fmt.Errorf("seccomp compiler: %w", err)
	}
	if !state.Success() {
		return nil, compilerError(state, files[2])
	}
	out, err := contents(files[1], 1<<24)
	if err != nil {
		return nil, fmt.Errorf("seccomp compiler: %w", err)
	}
	return out, nil
}

// program puts the program into a sealed memory file: what runs with our
// privileges must not be writable by anything that can reach our descriptors.
func (e *external) program() (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	f, err := memfd("husk-seccomp-compiler", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		f, err = memfd("husk-seccomp-compiler", flags)
	}
	if errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("%w (the sysctl vm.memfd_noexec forbids programs in memory files)", err)
	}
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, io.NewSectionReader(e.exe, 0, math.MaxInt64)); err != nil {
		f.Close()
		return nil, err
	}
	// Not F_SEAL_WRITE: that fails (EBUSY) while the kernel still holds one of the pages,
	// and only takes more than this from who had it mapped before.
	const seals = unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}

func memfd(name string, flags int) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, flags)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// stdio are the program's standard files: the profile, and room for its answer
// and its complaints.
func stdio(profile []byte) (files []*os.File, err error) {
	for _, name := range []string{"profile", "filter", "errors"} {
		f, err := memfd("husk-seccomp-"+name, unix.MFD_CLOEXEC)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	if _, err := files[0].Write(profile); err != nil {
		closeAll(files)
		return nil, err
	}
	if _, err := files[0].Seek(0, io.SeekStart); err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// run starts the program without environment and waits for it. If we are killed
// meanwhile, so is it.
func (e *external) run(exe *os.File, stdio []*os.File, args []string) (*os.ProcessState, error) {
	argv := append([]string{"husk-seccomp-compiler"}, args...)
	p, err := os.StartProcess("/proc/self/fd/"+strconv.Itoa(int(exe.Fd())), argv, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: stdio,
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, err
	}
	late := time.AfterFunc(e.timeout, func() { _ = p.Kill() })
	state, err := p.Wait()
	if !late.Stop() && err == nil && !state.Success() {
		return nil, fmt.Errorf("no answer within %v", e.timeout)
	}
	return state, err
}

// compilerError reads the program's complaints: lines of a JSON pointer, a tab
// and what is wrong there; anything else is not about the profile.
func compilerError(state *os.ProcessState, stderr *os.File) error {
	text, _ := contents(stderr, 64<<10)
	var errs []error
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		field, what, ok := strings.Cut(line, "\t")
		if !ok || !strings.HasPrefix(field, Pointer) {
			errs = nil
			break
		}
		errs = append(errs, &FieldError{field, errors.New(what)})
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return fmt.Errorf("seccomp compiler: %v: %s", state, bytes.TrimSpace(text))
}

// contents reads at most limit bytes from the file's beginning.
func contents(f *os.File, limit int64) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, 0, limit))
}
