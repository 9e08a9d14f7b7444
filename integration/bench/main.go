// Bench measures husk beside crun, runc and the floor, a C program that makes
// only the system calls a container cannot do without, and its sandbox beside
// bubblewrap and Podman.
//
//	go run ./integration/bench -husk ./husk
//
// Everything happens in a throw-away Debian root (peers.sh) that is entered with
// mount, pid, network, ipc and uts namespaces of its own, so nothing shows in the
// host's mount table and nothing outlives the run. The runtimes take turns within
// each round and another one begins each round: a machine that slows down slows
// all of them, and none always runs on the caches another has just warmed.
//
// Environment: CRUN and RUNC name other binaries to measure, ROOT another root to
// measure in, SUITE the Debian suite of the root (default forky).
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/seccomp"
	"golang.org/x/sys/unix"
)

var (
	//go:embed peers.sh
	peersScript string
	//go:embed floor/floor.c
	floorSource []byte
)

// setup is what the measuring process, pid 1 of the throw-away root, is told.
type setup struct {
	Root    string            // Debian root with the peers and busybox
	Cgroup  string            // name of the cgroup that holds every container
	Engines []string          // what to measure, in column order
	Paths   map[string]string // binaries on the host; an engine not named here is the root's own
	Profile jsontext.Value    // seccomp profile
	Filter  []byte            // the same, compiled, for the floor; empty: leave that out
	Seconds float64           // how long to measure
	Warmup  int
}

func main() {
	var err error
	if len(os.Args) == 2 && os.Args[1] == insideArg {
		err = inside()
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	husk := flag.String("husk", "./husk", "husk `binary`")
	engines := flag.String("engines", "floor,husk,crun,runc", "comma-separated `list` of what to measure")
	profile := flag.String("profile", "seccomp/testdata/docker.json", "seccomp profile (JSON `file`)")
	budget := flag.Duration("time", 75*time.Second, "how long to measure")
	warmup := flag.Int("warmup", 3, "rounds to throw away first")
	output := flag.String("json", "", "where to write the numbers (default: bench.json in the cache)")
	flag.Parse()

	if os.Geteuid() != 0 {
		return errors.New("the measurement makes namespaces and cgroups: run it as root")
	}
	s := &setup{
		Cgroup: fmt.Sprintf("husk-bench-%d", os.Getpid()), Engines: strings.Split(*engines, ","),
		Seconds: budget.Seconds(), Warmup: *warmup,
	}
	cache := filepath.Join(envOr("XDG_CACHE_HOME", "/var/cache"), "husk")
	if err := s.prepare(cache, *husk, *profile); err != nil {
		return err
	}
	report, err := s.measure()
	if err != nil {
		return err
	}
	if *output == "" {
		*output = filepath.Join(cache, "bench.json")
	}
	return publish(report, *output)
}

// prepare finds or makes all that is measured and says what is missing.
func (s *setup) prepare(cache, husk, profile string) (err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	if s.Root = os.Getenv("ROOT"); s.Root == "" {
		if s.Root, err = peersRoot(); err != nil {
			return err
		}
	}
	s.Paths = map[string]string{"husk": husk, "crun": os.Getenv("CRUN"), "runc": os.Getenv("RUNC")}
	if s.Paths["floor"], err = buildFloor(cache); err != nil {
		return err
	}
	for engine, path := range s.Paths {
		if path == "" || !slices.Contains(s.Engines, engine) {
			delete(s.Paths, engine)
		} else if s.Paths[engine], err = settle(path); err != nil {
			return fmt.Errorf("%s: %w (husk is built by: make build)", engine, err)
		}
	}
	if s.Profile, err = os.ReadFile(profile); err != nil {
		return err
	}
	s.Filter, err = compileFilter(s.Profile)
	return err
}

// settle returns the absolute path of a binary that is on the disk: until the pages
// of a file just linked are written back, they count as dirty memory of the process
// that maps them.
func settle(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// compileFilter runs the program that husk embeds to compile seccomp profiles.
func compileFilter(profile []byte) ([]byte, error) {
	compiler := exec.Command("cmd/husk/seccomp-compiler")
	compiler.Stdin, compiler.Stderr = bytes.NewReader(profile), os.Stderr
	out, err := compiler.Output()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // not built, or not run from the repository
	} else if err != nil {
		return nil, fmt.Errorf("seccomp-compiler: %w", err)
	}
	var f seccomp.Filter
	err = f.UnmarshalBinary(out)
	return f.BPF, err
}

func envOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

func peersRoot() (string, error) {
	script := exec.Command("sh", "-c", peersScript, "peers.sh")
	script.Stderr = os.Stderr
	out, err := script.Output()
	if err != nil {
		return "", fmt.Errorf("no root to measure in: peers.sh: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func buildFloor(cache string) (string, error) {
	source, binary := filepath.Join(cache, "floor.c"), filepath.Join(cache, "floor")
	if err := os.WriteFile(source, floorSource, 0o644); err != nil {
		return "", err
	}
	cc := exec.Command(envOr("CC", "cc"), "-O2", "-static", "-o", binary, source)
	cc.Stdout, cc.Stderr = os.Stderr, os.Stderr
	if err := cc.Run(); err != nil {
		return "", fmt.Errorf("the floor needs a C compiler and a static libc (apt-get install gcc libc6-dev): %w", err)
	}
	return binary, nil
}

// measure runs this program again as pid 1 of new namespaces and takes its report.
func (s *setup) measure() (*report, error) {
	// An interrupt kills the child and all in its namespaces; then this tidies up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	child := exec.CommandContext(ctx, "/proc/self/exe", insideArg)
	child.Stdin, child.Stderr = bytes.NewReader(config), os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := child.Output()
	if err := errors.Join(err, removeCgroup(s.Cgroup)); err != nil {
		return nil, err
	}
	var r report
	return &r, json.Unmarshal(out, &r)
}

// removeCgroup removes what an interrupted measurement leaves. The cgroup tree is
// reached through a mount that is attached nowhere.
func removeCgroup(name string) error {
	where, err := cgroups.Mountpoint()
	if err != nil {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, where, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", where, err)
	}
	defer unix.Close(tree)
	top := fmt.Sprintf("/proc/self/fd/%d/%s", tree, name)
	left, _ := os.ReadDir(top)
	for _, entry := range left {
		if entry.IsDir() {
			os.Remove(filepath.Join(top, entry.Name()))
		}
	}
	if err := os.Remove(top); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
