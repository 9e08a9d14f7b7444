package engines

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience stretches what a test waits for by $HUSK_PATIENCE: an emulated machine is
// slow.
func patience(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("HUSK_PATIENCE")); err == nil && n > 1 {
		return d * time.Duration(n)
	}
	return d
}

// An engine is a command line and what has to run for it.
type engine struct {
	name  string
	start func(t *testing.T, runtime string) // until the end of the test
	load  string                             // shell: makes the image box of the directory image

	remove string // command that kills and removes containers
}

var allEngines = []engine{
	{"docker", startDocker, "tar -C image -c . | docker import -c 'CMD [\"sh\"]' - box", "docker rm -f"},
	{"podman", startPodman, "tar -C image -c . | podman import -q -c CMD=sh - box", "podman rm -f -t 0"},
	{"ctr", startContainerd, "tar -C image -c . | podman --root=/tmp/libpod import -q - box && podman --root=/tmp/libpod save -q --format oci-archive -o box.tar box && ctr image import box.tar && ctr image tag --force localhost/box:latest box", "ctr container rm"},
}

// TestEngines runs every script that is for an engine, for each engine and runtime.
func TestEngines(t *testing.T) {
	if os.Getenv(envRole) == "" {
		t.Skip("needs the throw-away root of make test-engines, and root")
	}
	for _, e := range allEngines {
		for _, runtime := range strings.Fields(or(os.Getenv("ENGINES_RUNTIMES"), "runc husk")) {
			t.Run(e.name+"/"+runtime, func(t *testing.T) { e.test(t, runtime) })
		}
	}
}

func (e engine) test(t *testing.T, runtime string) {
	e.start(t, runtime)
	makeImage(t)
	shell(t, e.load)
	// Engines make what they keep, such as a bridge, when first used.
	scripts := e.scripts(t)
	e.runScript(t, runtime, "testdata/"+e.warm())
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			before := census()
			t.Cleanup(func() {
				if t.Failed() {
					e.purge(t) // for the sake of the next
					return
				}
				before.compare(t)
			})
			e.runScript(t, runtime, file)
		})
	}
}

// purge removes what a script that failed has left.
func (e engine) purge(t *testing.T) {
	lines := map[string]string{
		"ctr":    `for c in $(ctr task ls -q); do ctr task rm -f $c || true; done; for c in $(ctr container ls -q); do ctr container rm $c; done`,
		"docker": `docker rm -f $(docker ps -aq) || true`,
		"podman": `podman pod rm -fa -t 0; podman rm -fa -t 0`,
	}
	shell(t, lines[e.name])
}

// warm names the script that is run before leaks are looked for.
func (e engine) warm() string {
	if e.name == "ctr" {
		return "ctr_run.txtar"
	}
	return "run.txtar"
}

// scripts lists those for this engine: those named after it, and those that are named
// after none for engines with Docker's command line.
func (e engine) scripts(t *testing.T) (mine []string) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		prefix, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".txtar"), "_")
		switch prefix {
		case e.name:
			mine = append(mine, file)
		case "ctr", "docker", "podman":
		default:
			if e.name != "ctr" {
				mine = append(mine, file)
			}
		}
	}
	return mine
}

// shell runs a command line in /tmp.
func shell(t *testing.T, line string) {
	t.Helper()
	cmd := exec.Command("timeout", "60", "sh", "-ec", line)
	cmd.Dir = "/tmp"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// makeImage makes the root file system of the containers: busybox under all its names,
// and what can go wrong when it is executed.
func makeImage(t *testing.T) {
	t.Helper()
	shell(t, `
rm -rf image
mkdir -p image/bin image/etc image/tmp image/root image/home/user
chmod 1777 image/tmp
cp "$(command -v busybox)" image/bin/busybox
chroot image /bin/busybox --install -s /bin
echo 'root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/home/user:/bin/sh' >image/etc/passwd
echo 'root:x:0:
user:x:1000:
extra:x:2000:user' >image/etc/group
chown 1000:1000 image/home/user
echo 'no program' >image/etc/text
printf '#!/bin/missing\n' >image/bin/lost
printf 'no program' >image/bin/garbage
chmod 755 image/bin/lost image/bin/garbage`)
}

// write writes a file of the box.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// daemon starts a program, waits until ready succeeds, and ends it with the test.
func daemon(t *testing.T, ready string, command ...string) {
	t.Helper()
	name := filepath.Base(command[0])
	log, err := os.Create("/tmp/" + name + ".log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, cmd) })
	deadline := time.Now().Add(patience(30 * time.Second))
	for exec.Command("sh", "-c", ready).Run() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not get ready:\n%s", name, tail(log.Name()))
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said:\n%s", name, tail(log.Name()))
		}
	})
}

// end terminates a daemon, and kills it when that does not help.
func end(t *testing.T, cmd *exec.Cmd) {
	cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(patience(20*time.Second), func() {
		t.Errorf("%s does not end", cmd.Path)
		cmd.Process.Kill()
	})
	cmd.Wait()
	timer.Stop()
}

func tail(path string) string {
	data, _ := os.ReadFile(path)
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-8):], []byte("\n")))
}

func startContainerd(t *testing.T, _ string) {
	daemon(t, "ctr version", "/usr/bin/containerd")
}

func startDocker(t *testing.T, runtime string) {
	startContainerd(t, runtime)
	write(t, "/etc/docker/daemon.json", fmt.Sprintf(`{
  "runtimes": {"husk": {"path": "/usr/local/bin/husk"}},
  "default-runtime": %q,
  "exec-opts": ["native.cgroupdriver=cgroupfs"]
}`, runtime))
	t.Cleanup(func() { shell(t, "nft flush ruleset") }) // of the network that the next engine has, too
	daemon(t, "docker info", "/usr/sbin/dockerd", "--containerd=/run/containerd/containerd.sock")
}

// startPodman configures it: there is no daemon.
func startPodman(t *testing.T, runtime string) {
	limits := ""
	if !hasController("pids") { // which Podman does not ask
		limits = "pids_limit = 0\n"
	}
	write(t, "/etc/containers/containers.conf", fmt.Sprintf(`[containers]
log_driver = "k8s-file"
%s[engine]
runtime = %q
runtime_supports_json = ["husk", "runc", "crun"]
runtime_supports_nocgroups = ["husk", "crun"]
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
husk = ["/usr/local/bin/husk"]
`, limits, runtime))
	write(t, "/etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	write(t, "/etc/subuid", "containers:100000:131072\n")
	write(t, "/etc/subgid", "containers:100000:131072\n")
	shell(t, "grep -q ^containers: /etc/passwd || echo containers:x:999:999::/:/bin/false >>/etc/passwd")
}
