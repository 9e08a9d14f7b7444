package namespaces

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// helperWait bounds newuidmap, which may look up subordinate ids on a network, and pasta.
const helperWait = 10 * time.Second

// writeMaps writes the id maps of the user namespace of the process pid.
func (c *Config) writeMaps(pid int) error {
	switch {
	case mayMapAnything():
		// setgroups(2) stays allowed, as a container created by root expects.
		return errors.Join(writeMap(pid, "gid_map", c.GIDMaps), writeMap(pid, "uid_map", c.UIDMaps))
	case isSelf(c.UIDMaps, os.Geteuid()) && isSelf(c.GIDMaps, os.Getegid()):
		// user_namespaces(7): a map of just oneself needs no privilege, but for
		// gids only once no process there can drop a supplementary group.
		if err := writeProc(pid, "setgroups", []byte("deny")); err != nil {
			return err
		}
		return errors.Join(writeMap(pid, "gid_map", c.GIDMaps), writeMap(pid, "uid_map", c.UIDMaps))
	default:
		return errors.Join(runHelper("newgidmap", pid, c.GIDMaps), runHelper("newuidmap", pid, c.UIDMaps))
	}
}

// mayMapAnything says whether this process has the two capabilities that the
// kernel asks for in the parent of the user namespace.
func mayMapAnything() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&need == need
}

func isSelf(maps []specs.LinuxIDMapping, id int) bool {
	return len(maps) == 0 || len(maps) == 1 && maps[0].Size == 1 && int64(maps[0].HostID) == int64(id)
}

func writeMap(pid int, file string, maps []specs.LinuxIDMapping) error {
	if len(maps) == 0 {
		return nil
	}
	text := formatMap(maps)
	if len(text) >= os.Getpagesize() {
		// A map can be written once, in one piece. user_namespaces(7) promises
		// 340 ranges, but with long numbers fewer fit.
		return fmt.Errorf("%s: %d ranges take %d bytes, the kernel accepts %d: %w",
			file, len(maps), len(text), os.Getpagesize()-1, unix.E2BIG)
	}
	return writeProc(pid, file, text)
}

func formatMap(maps []specs.LinuxIDMapping) []byte {
	b := make([]byte, 0, 24*len(maps))
	for _, m := range maps {
		b = append(strconv.AppendUint(b, uint64(m.ContainerID), 10), ' ')
		b = append(strconv.AppendUint(b, uint64(m.HostID), 10), ' ')
		b = append(strconv.AppendUint(b, uint64(m.Size), 10), '\n')
	}
	return b
}

// writeProc writes /proc/PID/file with one write. The process is a child of
// ours that nobody has reaped, so the number cannot mean another one.
func writeProc(pid int, file string, data []byte) error {
	path := "/proc/" + strconv.Itoa(pid) + "/" + file
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := retry(func() (int, error) { return unix.Write(fd, data) }); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func (c *Config) writeOffsets(pid int) error {
	var clocks []string
	for clock := range c.TimeOffsets {
		clocks = append(clocks, clock)
	}
	slices.Sort(clocks)
	var b []byte
	for _, clock := range clocks {
		o := c.TimeOffsets[clock]
		b = fmt.Appendf(b, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	return writeProc(pid, "timens_offsets", b)
}

// runHelper writes a map through newuidmap(1) or newgidmap(1), which are
// setuid root and know what /etc/subuid and /etc/subgid grant us.
func runHelper(name string, pid int, maps []specs.LinuxIDMapping) error {
	if len(maps) == 0 {
		return nil
	}
	path, err := findHelper(name, "uidmap", "map more than one's own id")
	if err != nil {
		return err
	}
	err = callHelper(path, append([]string{name, strconv.Itoa(pid)}, strings.Fields(string(formatMap(maps)))...))
	if err != nil {
		return fmt.Errorf("%w: %w", err, syscall.EPERM)
	}
	return nil
}

// MapsRanges says whether an ordinary user can have more than one id mapped, if any are
// granted.
func MapsRanges() bool {
	for _, name := range []string{"newuidmap", "newgidmap"} {
		if _, err := findHelper(name, "", ""); err != nil {
			return false
		}
	}
	return true
}

// callHelper waits until a program is done, or has gone into the background.
func callHelper(path string, args []string) error {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	said, err := newSaid()
	if err != nil {
		return err
	}
	defer said.Close()
	p, err := os.StartProcess(path, args, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, said},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	timer := time.AfterFunc(helperWait, func() { _ = p.Kill() })
	defer timer.Stop()
	state, err := p.Wait()
	if err != nil {
		return err
	}
	if !state.Success() {
		lines := strings.Split(complaint(said), "\n") // the last one says why
		return fmt.Errorf("%s: %v: %s", path, state, lines[len(lines)-1])
	}
	return nil
}

// findHelper looks in fixed places: PATH is the caller's, and what we find
// decides who is who in the container.
func findHelper(name, pkg, why string) (string, error) {
	for _, dir := range [...]string{"/usr/bin/", "/bin/", "/usr/local/bin/"} {
		if unix.Access(dir+name, unix.X_OK) == nil {
			return dir + name, nil
		}
	}
	return "", fmt.Errorf("%s, of the package %s, is needed to %s: %w", name, pkg, why, os.ErrNotExist)
}
