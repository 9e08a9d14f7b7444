package main

import (
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The bundles each engine has, and what runs in them.
var payloads = map[string][]string{
	"true":           {"/bin/true"},
	"seccomp":        {"/bin/true"},
	"sleep":          {"/bin/sleep", "1000"},
	"filtered sleep": {"/bin/sleep", "1000"},
	"joined":         {"/bin/true"}, // the network namespace of byHand
	// An engine is measured only if its container is one.
	"check": {
		"/bin/sh", "-c",
		`[ $$ = 1 ] && [ "$(hostname)" = bench ] && grep -q "^Seccomp:.2" /proc/self/status && ! (: >/x) 2>/dev/null && exit 42`,
	},
}

type engine struct {
	name, path string
	cgroup     string // the container's, below cgroupRoot
}

func (e *engine) dir(kind string) string { return filepath.Join(work, e.name, kind) }

// command is the argv of one of the engine's commands.
func (e *engine) command(args ...string) []string {
	return append([]string{e.path, "--root", e.dir("state")}, args...)
}

// runs is the argv that runs a bundle in the foreground.
func (e *engine) runs(kind string) []string {
	if e.name != "floor" {
		return e.command("run", "--bundle", e.dir(kind), e.name)
	}
	filter := "-"
	if kind == "seccomp" {
		filter = filterFile
	}
	return append([]string{e.path, filepath.Join(cgroupRoot, e.cgroup), work + "/rootfs", filter}, payloads[kind]...)
}

type bench struct {
	setup   *setup
	engines []*engine
	null    int
	out     *os.File // what the last command printed
	report  report
	samples map[string]map[string][]float64 // operation, engine
}

func newBench(s *setup) (*bench, error) {
	// wait4 is called on the thread that forks; a thread switch would be timed too.
	goruntime.LockOSThread()
	// What else runs on the machine should disturb all of them little.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		return nil, fmt.Errorf("setpriority: %w", err)
	}
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	b := &bench{setup: s, samples: map[string]map[string][]float64{}}
	var err error
	if b.null, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	if b.out, err = os.OpenFile(work+"/out", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	if err := makeRootfs(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(cgroupRoot, s.Cgroup), 0o755); err != nil {
		return nil, err
	}
	for _, name := range s.Engines {
		e := &engine{name: name, cgroup: "/" + s.Cgroup + "/" + name}
		if path := s.Paths[name]; path != "" {
			e.path = hostBinary(name, path)
		} else if e.path, err = exec.LookPath(name); err != nil {
			return nil, err
		}
		b.engines = append(b.engines, e)
	}
	return b, b.prepare()
}

// prepare writes the bundles and proves that each engine really contains.
func (b *bench) prepare() error {
	spec, err := b.spec()
	if err != nil {
		return err
	}
	b.report = newReport(b.setup.Engines)
	for _, e := range b.engines {
		if err := e.write(spec, b.setup.Profile); err != nil {
			return err
		}
		if e.name == "floor" {
			continue
		}
		if _, err := b.spawn([]string{e.path, "--version"}, "/", 0); err != nil {
			return err
		}
		b.report.Versions[e.name], _, _ = strings.Cut(b.output(), "\n")
		if _, err := b.spawn(e.runs("check"), "/", 42); err != nil {
			return fmt.Errorf("not a container as asked for: %w", err)
		}
	}
	return nil
}

// spec is what the first runtime (husk, if it takes part) writes by `spec`.
func (b *bench) spec() ([]byte, error) {
	for _, e := range b.engines {
		if e.name == "floor" {
			continue
		}
		dir := e.dir("spec")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if _, err := b.spawn(e.command("spec"), dir, 0); err != nil {
			return nil, err
		}
		return os.ReadFile(dir + "/config.json")
	}
	return nil, errors.New("no runtime to measure")
}

func (e *engine) write(spec []byte, profile jsontext.Value) error {
	for kind, args := range payloads {
		p := profile
		if kind == "true" || kind == "sleep" || kind == "joined" {
			p = nil
		}
		config, err := bundle(spec, e.cgroup, p, args...)
		if err != nil {
			return err
		}
		if kind == "joined" {
			config = bytes.Replace(config, []byte(`"type":"network"`), []byte(`"type":"network","path":"/run/netns/bench"`), 1)
		}
		if err := os.MkdirAll(e.dir(kind), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(e.dir(kind)+"/config.json", config, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// measure repeats rounds until the time is up.
func (b *bench) measure() (*report, error) {
	for range b.setup.Warmup {
		if err := b.round(); err != nil {
			return nil, err
		}
	}
	clear(b.samples)
	b.report.Rounds = 0
	for end := time.Now().Add(time.Duration(b.setup.Seconds * float64(time.Second))); time.Now().Before(end); {
		if err := b.round(); err != nil {
			return nil, err
		}
	}
	b.report.add(b.samples)
	return &b.report, b.leftovers()
}

// round measures everything once. For each group of operations the engines take
// turns, in an order that turns with the rounds.
func (b *bench) round() error {
	for _, group := range []func(*engine) error{b.run, b.runSeccomp, b.network, b.sandbox, b.life, b.execSeccomp, b.shortLife} {
		for i := range b.engines {
			e := b.engines[(i+b.report.Rounds)%len(b.engines)]
			if err := group(e); err != nil {
				return err
			}
			if err := b.clean(e); err != nil {
				return err
			}
		}
	}
	b.report.Rounds++
	return nil
}

func (b *bench) run(e *engine) error {
	return b.timed("run true", e, e.runs("true"))
}

func (b *bench) runSeccomp(e *engine) error {
	if e.name == "floor" && len(b.setup.Filter) == 0 {
		return nil
	}
	return b.timed("run true, seccomp", e, e.runs("seccomp"))
}

// byHand makes a network of two devices, runs what it is given in it, and removes it.
const byHand = `ip netns add bench
ip -batch - <<.
link add bench0 type veth peer name eth0 netns bench
addr add 10.89.0.1/32 dev bench0
link set bench0 up
route add 10.89.0.2/32 dev bench0
.
ip -n bench -batch - <<.
addr add 10.89.0.2/24 dev eth0
link set eth0 up
route add default via 10.89.0.1
.
"$@"
ip link del bench0
ip netns del bench`

// network runs a container with a network of its own, made by husk or by hand.
func (b *bench) network(e *engine) error {
	if e.name != "husk" {
		return nil
	}
	run := e.command("run", "--net", "eth0:address=10.89.0.2/24,gateway=10.89.0.1", "--bundle", e.dir("true"), e.name)
	if err := b.timed("run true, --net", e, run); err != nil {
		return err
	}
	return b.timed("run true, net by hand", e, append([]string{"/bin/sh", "-euc", byHand, "sh"}, e.runs("joined")...))
}

// jobs run one job each, isolated from a system that it can only read.
var jobs = []struct {
	row  string
	argv []string
}{
	{"sandbox true", []string{"husk", "sandbox", "--", "true"}},
	{"bwrap true", strings.Fields("bwrap --unshare-all --die-with-parent --cap-drop ALL --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --bind . " + work + "/job --chdir " + work + "/job true")},
	{"podman run --rm true", strings.Fields("podman --root " + work + "/podman --runroot /run/podman --cgroup-manager cgroupfs --events-backend none run --rm --cgroups disabled --network none --rootfs " + work + "/rootfs /bin/true")},
}

// sandbox runs a job by husk, and by what else runs one, if the root has it.
func (b *bench) sandbox(e *engine) error {
	if e.name != "husk" {
		return nil
	}
	if err := os.MkdirAll(work+"/job", 0o755); err != nil {
		return err
	}
	for _, j := range jobs {
		path, err := exec.LookPath(j.argv[0])
		if j.argv[0] == e.name {
			path, err = e.path, nil
		}
		if err != nil {
			continue
		}
		took, err := b.spawn(slices.Concat([]string{path}, j.argv[1:]), work+"/job", 0)
		if err != nil {
			return err
		}
		b.sample(j.row, e, milliseconds(took))
		for err != syscall.ECHILD { // podman's monitor goes on a while
			if _, err = syscall.Wait4(-1, nil, 0, nil); err != nil && err != syscall.EINTR && err != syscall.ECHILD {
				return fmt.Errorf("wait4: %w", err)
			}
		}
	}
	return nil
}

// life is a container's whole life in separate commands. The signal is one that
// does nothing to it.
func (b *bench) life(e *engine) error {
	if e.name == "floor" {
		return nil
	}
	for _, step := range [][]string{
		{"create", "create", "--bundle", e.dir("sleep"), e.name},
		{"start", "start", e.name},
		{"state", "state", e.name},
		{"exec true", "exec", e.name, "/bin/true"},
		{"kill", "kill", e.name, "WINCH"},
		{"delete -f", "delete", "--force", e.name},
	} {
		if err := b.timed(step[0], e, e.command(step[1:]...)); err != nil {
			return err
		}
		if step[0] == "state" && !strings.Contains(b.output(), `"running"`) {
			return fmt.Errorf("%s: started, but the state is %s", e.name, b.output())
		}
	}
	return nil
}

// execSeccomp executes a process in a container with a filter.
func (b *bench) execSeccomp(e *engine) error {
	if e.name == "floor" {
		return nil
	}
	if _, err := b.spawn(e.command("run", "--detach", "--bundle", e.dir("filtered sleep"), e.name), "/", 0); err != nil {
		return err
	}
	if err := b.timed("exec true, seccomp", e, e.command("exec", e.name, "/bin/true")); err != nil {
		return err
	}
	_, err := b.spawn(e.command("delete", "--force", e.name), "/", 0)
	return err
}

// shortLife is a container that is created and deleted. While it is parked its
// memory is read.
func (b *bench) shortLife(e *engine) error {
	if e.name == "floor" {
		return nil
	}
	create, err := b.spawn(e.command("create", "--bundle", e.dir("sleep"), e.name), "/", 0)
	if err != nil {
		return err
	}
	if err := b.memory(e); err != nil {
		return err
	}
	remove, err := b.spawn(e.command("delete", "--force", e.name), "/", 0)
	b.sample("create + delete -f", e, milliseconds(create+remove))
	return err
}

func (b *bench) memory(e *engine) error {
	if _, err := b.spawn(e.command("state", e.name), "/", 0); err != nil {
		return err
	}
	var state struct {
		PID    int    `json:"pid"`
		Status string `json:"status"`
	}
	if err := json.Unmarshal([]byte(b.output()), &state); err != nil || state.Status != "created" {
		return fmt.Errorf("%s: created, but the state is %q: %w", e.name, state.Status, err)
	}
	proc := fmt.Sprintf("/proc/%d/", state.PID)
	for _, field := range []struct{ name, file, key string }{
		{"parked RSS", "smaps_rollup", "Rss:"},
		{"parked private dirty", "smaps_rollup", "Private_Dirty:"},
		{"parked threads", "status", "Threads:"},
	} {
		data, err := os.ReadFile(proc + field.file)
		if err != nil {
			return err
		}
		value, err := number(string(data), field.key)
		if err != nil {
			return err
		}
		b.sample(field.name, e, value)
	}
	return nil
}

// number finds "key   number" at the start of a line.
func number(text, key string) (float64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("no %s", key)
}

func (b *bench) timed(operation string, e *engine, argv []string) error {
	took, err := b.spawn(argv, "/", 0)
	b.sample(operation, e, milliseconds(took))
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (b *bench) sample(operation string, e *engine, value float64) {
	if b.samples[operation] == nil {
		b.samples[operation] = map[string][]float64{}
	}
	b.samples[operation][e.name] = append(b.samples[operation][e.name], value)
}

// spawn times a command from the fork to its end as its parent sees it. Being pid
// 1, it meanwhile reaps containers, as an engine's shim does.
func (b *bench) spawn(argv []string, dir string, want int) (time.Duration, error) {
	if err := b.out.Truncate(0); err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{
		Dir:   dir,
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{uintptr(b.null), b.out.Fd(), b.out.Fd()},
	}
	begin := time.Now()
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", argv[0], err)
	}
	var status syscall.WaitStatus
	for {
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if got == pid {
			break
		}
		if err != nil && err != syscall.EINTR {
			return 0, fmt.Errorf("wait4: %w", err)
		}
	}
	took := time.Since(begin)
	if !status.Exited() || status.ExitStatus() != want {
		return took, fmt.Errorf("%s: status %#x instead of exit %d: %s", strings.Join(argv, " "), int(status), want, b.output())
	}
	return took, nil
}

// output is what the last command and its container wrote.
func (b *bench) output() string {
	data, _ := os.ReadFile(b.out.Name())
	return strings.TrimSpace(string(data))
}

// clean fails unless the engine has removed its container: a runtime that leaves
// work behind would win time by it.
func (b *bench) clean(e *engine) error {
	for _, path := range []string{filepath.Join(cgroupRoot, e.cgroup), filepath.Join(e.dir("state"), e.name)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s left %s behind (%v)", e.name, path, err)
		}
	}
	return nil
}

// leftovers fails if a process or a cgroup is left at the end.
func (b *bench) leftovers() error {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.ECHILD {
			return os.Remove(filepath.Join(cgroupRoot, b.setup.Cgroup))
		}
		if pid == 0 {
			return errors.New("a process is left")
		}
	}
}
