package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// baseConfig is what tests start from: an ordinary container without a system
// call filter, whose process is the probe.
const baseConfig = `{
	"ociVersion": "1.3.0",
	"process": {
		"user": {"uid": 0, "gid": 0},
		"args": ["/probe"],
		"env": ["PATH=/bin:/", "TERM=xterm"],
		"cwd": "/",
		"capabilities": {
			"bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
			"effective": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
			"permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
		},
		"noNewPrivileges": true
	},
	"root": {"path": "rootfs"},
	"hostname": "box",
	"mounts": [
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
		{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
		{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
		{"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
		{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
	],
	"linux": {
		"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
		"maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
		"readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
	}
}`

// applets are the busybox commands that scripts use inside containers.
var applets = strings.Fields("sh cat echo ls id env true false sleep kill mkdir rm touch ln mv cp mount umount " +
	"stat readlink hostname grep sed head tail wc dd test ps chmod chown ip ifconfig nc pwd sync printf mknod " +
	"mkfifo find sort cut tr ping df du date tty stty setsid seq usleep")

// makeRootfs fills dir with busybox, the probe and the usual directories, all
// owned by owner.
func makeRootfs(dir string, owner int) error {
	for _, d := range []string{"bin", "dev", "etc", "proc", "run", "sys", "tmp", "root", "var"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(tool("busybox"), filepath.Join(dir, "bin/busybox")); err != nil {
		return err
	}
	if err := copyFile(tool("probe"), filepath.Join(dir, "probe")); err != nil {
		return err
	}
	for _, a := range applets {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			return err
		}
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		return err
	}
	unix.Chmod(filepath.Join(dir, "tmp"), 0o1777) // os.Chmod has another idea of the sticky bit
	return chownTree(dir, owner)
}

func chownTree(dir string, owner int) error {
	if owner == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, owner, owner))
	})
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// A bundle is a bundle directory of a Go test.
type bundle struct {
	t   *testing.T
	dir string
}

// newBundle makes a bundle from the base configuration as edit changes it.
func newBundle(t *testing.T, edit func(*specs.Spec)) *bundle {
	t.Helper()
	return newOwnedBundle(t, 0, edit)
}

func newOwnedBundle(t *testing.T, owner int, edit func(*specs.Spec)) *bundle {
	t.Helper()
	b := &bundle{t: t, dir: filepath.Join(t.TempDir(), "bundle")}
	os.Chmod(filepath.Dir(b.dir), 0o755)
	os.Chmod(filepath.Dir(filepath.Dir(b.dir)), 0o755)
	if err := makeRootfs(filepath.Join(b.dir, "rootfs"), owner); err != nil {
		t.Fatal(err)
	}
	b.write(edit)
	return b
}

// write renews config.json: the base configuration as edit changes it.
func (b *bundle) write(edit func(*specs.Spec)) {
	b.t.Helper()
	var s specs.Spec
	if err := json.Unmarshal([]byte(baseConfig), &s); err != nil {
		b.t.Fatal(err)
	}
	if edit != nil {
		edit(&s)
	}
	data, err := json.MarshalIndent(&s, "", "\t")
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) rootfs(path string) string { return filepath.Join(b.dir, "rootfs", path) }

// shell makes the process a shell's command.
func shell(command string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh", "-c", command} }
}

// probeArgs sets the probe's arguments.
func probeArgs(args ...string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = append([]string{"/probe"}, args...) }
}

// A result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// commandTimeout bounds every command: husk has no business taking longer.
var commandTimeout = patience(40 * time.Second)

// run runs a command with its output in files (see the shim in tool.c for why).
func run(t *testing.T, name string, args ...string) result {
	t.Helper()
	return runCmd(t, exec.Command(name, args...))
}

func runCmd(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	errs, err := os.CreateTemp(t.TempDir(), "err")
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(commandTimeout, func() { cmd.Process.Kill() })
	cmd.Wait()
	r := result{took: time.Since(start)}
	if !timer.Stop() {
		t.Errorf("%v: hangs: killed after %v", cmd.Args, commandTimeout)
	}
	r.code = exitCode(cmd.ProcessState)
	a, _ := os.ReadFile(out.Name())
	b, _ := os.ReadFile(errs.Name())
	r.stdout, r.stderr = string(a), string(b)
	return r
}

func exitCode(s *os.ProcessState) int {
	if s == nil {
		return -1
	}
	return s.ExitCode()
}

// runtimePath is the runtime under test without the shim.
func runtimePath() string { return tool("runtime") }

// husk runs the runtime in the bundle.
func (b *bundle) husk(args ...string) result {
	b.t.Helper()
	return b.with(runtimePath(), append(driverFlags(), args...)...)
}

// with runs another runtime in the bundle.
func (b *bundle) with(runtime string, args ...string) result {
	b.t.Helper()
	cmd := exec.Command(runtime, args...)
	cmd.Dir = b.dir
	return runCmd(b.t, cmd)
}

// must is husk for commands that may not fail.
func (b *bundle) must(args ...string) result {
	b.t.Helper()
	r := b.husk(args...)
	if r.code != 0 {
		b.t.Fatalf("husk %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

// look runs the bundle once with the probe and returns what it told.
func (b *bundle) look(args ...string) facts {
	b.t.Helper()
	return parseFacts(b.must(slices.Concat([]string{"run"}, args, []string{"c1"})...).stdout)
}

// facts are the probe's lines by key.
type facts map[string][]string

func parseFacts(out string) facts {
	f := facts{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		f[key] = append(f[key], strings.TrimRight(value, " "))
	}
	return f
}

func (f facts) one(key string) string { return strings.Join(f[key], "\n") }

// mount returns the mountinfo line of a mount point as seen inside.
func (f facts) mount(target string) (line string, ok bool) {
	for _, l := range f["mount"] {
		fields := strings.Fields(l)
		if len(fields) > 4 && fields[4] == target {
			line, ok = l, true // the last one is on top
		}
	}
	return line, ok
}

// options returns the per-mount options, the optional fields (propagation) and
// the file system's own options of a mountinfo line.
func mountParts(line string) (options, propagation, fstype, super string) {
	head, tail, _ := strings.Cut(line, " - ")
	h, t := strings.Fields(head), strings.Fields(tail)
	if len(h) < 6 || len(t) < 3 {
		return "", "", "", ""
	}
	return h[5], strings.Join(h[6:], " "), t[0], t[2]
}

// state asks for the state of a container.
func (b *bundle) state(id string) (specs.State, bool) {
	b.t.Helper()
	var s specs.State
	r := b.husk("state", id)
	if r.code != 0 {
		return s, false
	}
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		b.t.Fatalf("state %s: %v: %s", id, err, r.stdout)
	}
	return s, true
}

// waitFor polls until a container has a status.
func (b *bundle) waitFor(id string, status specs.ContainerState) {
	b.t.Helper()
	poll(b.t, func() bool {
		s, ok := b.state(id)
		return ok && s.Status == status
	}, "container %s to be %s", id, status)
}

// poll waits until done says so.
func poll(t *testing.T, done func() bool, what string, args ...any) {
	t.Helper()
	deadline := time.Now().Add(patience(5 * time.Second))
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for "+what, args...)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// editJSON changes a document by JSON pointer. Missing objects on the way are
// made. verb is "set", "add" (append to an array) or "del".
func editJSON(doc []byte, verb, pointer, value string) ([]byte, error) {
	var root, v any
	if err := decodeNumbers(doc, &root); err != nil {
		return nil, err
	}
	if verb != "del" {
		if err := decodeNumbers([]byte(value), &v); err != nil {
			return nil, fmt.Errorf("value %s: %w", value, err)
		}
	}
	steps := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i := range steps {
		steps[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(steps[i])
	}
	root, err := edit(root, steps, verb, v)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, pointer, err)
	}
	return json.MarshalIndent(root, "", "\t")
}

func decodeNumbers(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // 18446744073709551615 must survive
	return d.Decode(v)
}

// edit returns node with the change made below it.
func edit(node any, steps []string, verb string, v any) (any, error) {
	if len(steps) == 0 {
		if verb != "add" {
			return v, nil
		}
		list, _ := node.([]any)
		return append(list, v), nil
	}
	if list, ok := node.([]any); ok {
		return editList(list, steps, verb, v)
	}
	if node == nil {
		node = map[string]any{}
	}
	object, ok := node.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: not an object", steps[0])
	}
	if verb == "del" && len(steps) == 1 {
		delete(object, steps[0])
		return object, nil
	}
	child, err := edit(object[steps[0]], steps[1:], verb, v)
	object[steps[0]] = child
	return object, err
}

func editList(list []any, steps []string, verb string, v any) (any, error) {
	i, err := strconv.Atoi(steps[0])
	if err != nil || i < 0 || i >= len(list) {
		return nil, fmt.Errorf("%s: not an index below %d", steps[0], len(list))
	}
	if verb == "del" && len(steps) == 1 {
		return slices.Delete(list, i, i+1), nil
	}
	list[i], err = edit(list[i], steps[1:], verb, v)
	return list, err
}

// lookupJSON returns what a pointer names, as compact JSON.
func lookupJSON(doc []byte, pointer string) (string, error) {
	var node any
	if err := decodeNumbers(doc, &node); err != nil {
		return "", err
	}
	for _, step := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		if pointer == "/" || pointer == "" {
			break
		}
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch n := node.(type) {
		case map[string]any:
			child, ok := n[step]
			if !ok {
				return "", fmt.Errorf("%s: no %s", pointer, step)
			}
			node = child
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(n) {
				return "", fmt.Errorf("%s: no element %s", pointer, step)
			}
			node = n[i]
		default:
			return "", fmt.Errorf("%s: nothing below a scalar", pointer)
		}
	}
	out, err := json.Marshal(node)
	return string(out), err
}
