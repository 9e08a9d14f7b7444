package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The tests of limits_*_test.go ask the kernel whether a limit that husk wrote does
// what its field promises: a hog in the container takes what it gets, and the
// counters of its cgroup tell how much that was. They need the controllers in
// cgroup2, so on a machine whose cgroups are v1 they run in the VM only. Time is
// measured by those counters where they have it: the machine that emulates the VM is
// slow, busy and not to be trusted.

// needControllers skips unless cgroup2 has all these controllers.
func needControllers(t *testing.T, names ...string) {
	t.Helper()
	have := strings.Fields(readString(t, "/sys/fs/cgroup/cgroup.controllers"))
	for _, name := range names {
		if !slices.Contains(have, name) {
			t.Skipf("needs the %s controller on cgroup2", name)
		}
	}
}

func readString(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// A guest is a running container that is watched through the files of its cgroup.
type guest struct {
	*bundle
	id, group string // group is relative to the mount
	out       *os.File
}

// A room is a bundle that several guests live in.
type room struct{ *bundle }

func newRoom(t *testing.T) room {
	t.Helper()
	b := newBundle(t, nil)
	must(t, copyFile(tool("hog"), b.rootfs("hog")))
	return room{b}
}

// guest runs a program, by default the hog's, under these resources (JSON).
func (r room) guest(id, resources string, args ...string) *guest {
	r.t.Helper()
	return r.guestAs("/"+id, resources, nil, args...)
}

// guestAs is guest in a cgroup and with a change to the configuration.
func (r room) guestAs(group, resources string, edit func(*specs.Spec), args ...string) *guest {
	r.t.Helper()
	g := r.prepare(group, resources, edit, args...)
	// What husk and the hog say goes to one file: the hog keeps it open.
	cmd := exec.Command(runtimePath(), append(driverFlags(), "run", "-d", g.id)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, g.out, g.out
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("run %s: %v: %s", g.id, err, readString(r.t, g.out.Name()))
	}
	return g
}

// prepare writes the configuration of a guest and makes sure of its end.
func (r room) prepare(group, resources string, edit func(*specs.Spec), args ...string) *guest {
	r.t.Helper()
	g := &guest{bundle: r.bundle, id: filepath.Base(group), group: group}
	var err error
	g.out, err = os.Create(filepath.Join(r.dir, g.id+".out"))
	must(r.t, err)
	r.write(func(s *specs.Spec) {
		s.Linux.CgroupsPath, g.group = driverPath(group)
		s.Process.Args = args
		if !strings.HasPrefix(args[0], "/") {
			s.Process.Args = append([]string{"/hog"}, args...)
		}
		s.Linux.Resources = parseResources(r.t, resources)
		if edit != nil {
			edit(s)
		}
	})
	r.t.Cleanup(func() {
		g.husk("delete", "-f", g.id)
		g.out.Close()
	})
	return g
}

func parseResources(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r specs.LinuxResources
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &r
}

// gone ends a guest before the test ends.
func (g *guest) gone() {
	g.t.Helper()
	g.must("delete", "-f", g.id)
}

// file is the path of a file of the guest's cgroup.
func (g *guest) file(name string) string {
	return filepath.Join("/sys/fs/cgroup", g.group, name)
}

// reads checks what can be read back, as "file value" pairs.
func (g *guest) reads(pairs ...string) {
	g.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := readString(g.t, g.file(pairs[i])); got != pairs[i+1] {
			g.t.Errorf("%s: %s is %q, not %q", g.id, pairs[i], got, pairs[i+1])
		}
	}
}

// count is a number of a file: the only one, or that of a key.
func (g *guest) count(file, key string) uint64 {
	g.t.Helper()
	for line := range strings.Lines(readString(g.t, g.file(file))) {
		fields := strings.Fields(line)
		if key == "" || len(fields) == 2 && fields[0] == key {
			return parseUint(g.t, fields[len(fields)-1])
		}
	}
	g.t.Fatalf("%s: %s has no %s", g.id, file, key)
	return 0
}

// said waits until the hog has said a word, or is dead, and returns all it said.
func (g *guest) said(word string) string {
	g.t.Helper()
	var text string
	done := func() bool {
		data, _ := os.ReadFile(g.out.Name())
		text = string(data)
		return strings.Contains(text, word) || g.empty()
	}
	for end := time.Now().Add(slow); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("%s: waited too long for %q; it said %q", g.id, word, text)
		}
	}
	return text
}

// slow is how long anything may take in an emulated machine.
const slow = 30 * time.Second

// empty says whether everything in the guest's cgroup is dead.
func (g *guest) empty() bool {
	data, err := os.ReadFile(g.file("cgroup.events"))
	return err != nil || strings.Contains(string(data), "populated 0")
}

// ended waits until everything in the guest's cgroup is dead.
func (g *guest) ended() {
	g.t.Helper()
	for end := time.Now().Add(slow); !g.empty(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("%s does not end", g.id)
		}
	}
}

// remains says whether the cgroup of a guest that has ended can still be read: a scope is
// gone with its last process, and its counters with it.
func (g *guest) remains() bool { return !systemdDriver }

// lastNumber is the number after the last line of the hog that begins with word.
func (g *guest) lastNumber(word string) (n int) {
	g.t.Helper()
	for line := range strings.Lines(readString(g.t, g.out.Name())) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key == word {
			n, _ = strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return n
}

// rates measures counters over a window, n times, and returns for each counter the
// median of its growth per second.
func rates(n int, window time.Duration, counters ...func() uint64) []float64 {
	all := make([][]float64, len(counters))
	before := make([]uint64, len(counters))
	for range n {
		start := time.Now()
		for i, c := range counters {
			before[i] = c()
		}
		time.Sleep(window)
		for i, c := range counters {
			all[i] = append(all[i], float64(c()-before[i])/time.Since(start).Seconds())
		}
	}
	medians := make([]float64, len(counters))
	for i := range all {
		medians[i] = median(all[i])
	}
	return medians
}

// ratio is the median of how much faster a counter grows than another.
func ratio(n int, window time.Duration, a, b func() uint64) float64 {
	var all []float64
	for range n {
		a0, b0 := a(), b()
		time.Sleep(window)
		all = append(all, float64(a()-a0)/float64(max(b()-b0, 1)))
	}
	return median(all)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// within checks a measurement and logs it: these are the numbers of the proof.
func within(t *testing.T, what string, got, low, high float64) {
	t.Helper()
	t.Logf("%s: %.3g (%.3g to %.3g)", what, got, low, high)
	if got < low || got > high {
		t.Errorf("%s is %.3g, not %.3g to %.3g", what, got, low, high)
	}
}

// settles is within for what a busy machine disturbs: the best of three measurements
// counts. A limit without an effect fails them all.
func settles(t *testing.T, what string, low, high float64, measure func() float64) {
	t.Helper()
	got := measure()
	for range 2 {
		if got >= low && got <= high {
			break
		}
		t.Logf("%s: %.3g, once more", what, got)
		got = measure()
	}
	within(t, what, got, low, high)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func parseUint(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	must(t, err)
	return n
}
