package engines

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
)

// An engine is a command line and what has to run for it.
type engine struct {
	name    string
	command string
	start   func(t *testing.T, s setting) *service
	load    string   // shell: makes the image box of the directory image
	remove  string   // command that kills and removes containers
	only    []string // scripts; default all that are for it
	own     bool     // its command line is not Docker's: it has scripts of its own alone
}

var allEngines = []engine{
	{name: "docker", command: "docker", start: startDocker, load: dockerLoad, remove: "docker rm -f"},
	{name: "dockremap", command: "docker", start: startRemapped, load: dockerLoad, remove: "docker rm -f", only: []string{"run", "exec", "dockremap"}},
	{name: "podman", command: "podman", start: startPodman, load: `tar -C image -c . | podman import -q -c CMD=sh - box`, remove: "podman rm -f -t 0"},
	{name: "rootless", command: "rootless", start: startRootless, load: `tar -C image -c . | rootless import -q -c CMD=sh - box`, remove: "rootless rm -f -t 0", only: []string{"run", "exec", "detach", "attach", "errors", "volumes", "rootless"}},
	{name: "ctr", command: "ctr", start: startContainerd, load: ctrLoad, remove: "ctr container rm", own: true},
	{name: "cri", command: "crictl", start: startCRI, load: criLoad, remove: "crictl rmp -f", own: true},
	{name: "cri-o", command: "crictl", start: startCRIO, load: crioLoad, remove: "crictl rmp -f", own: true},
}

const (
	dockerLoad = `tar -C image -c . | docker import -c 'CMD ["sh"]' - box`
	ctrLoad    = `tar -C image -c . | podman --root=/tmp/libpod import -q - box
podman --root=/tmp/libpod save -q --format oci-archive -o box.tar box
ctr image import box.tar
ctr image tag --force localhost/box:latest box`
)

// A setting is what an engine is configured with.
type setting struct{ runtime, driver string }

// On a machine with all controllers that systemd has booted, only those scripts run whose
// course depends on controllers or, with its driver, on systemd: others would be slower
// there and tell nothing new.
var (
	withControllers = []string{"controllers", "cri_controllers", "ctr_controllers", "oom", "stats", "update"}
	withSystemd     = []string{"cri_daemon", "ctr_daemon", "docker_daemon", "pause", "podman_health", "podman_pod", "rootless", "systemd"}
)

// tells says whether a script says something here.
func (s setting) tells(script string) bool {
	return !haveSystemd() || slices.Contains(withControllers, script) ||
		s.driver == "systemd" && slices.Contains(withSystemd, script)
}

// TestEngines runs every script that is for an engine, for each engine and runtime; on a
// machine that systemd has booted with each driver of cgroups.
func TestEngines(t *testing.T) {
	if os.Getenv(envRole) == "" {
		t.Skip("needs the throw-away root of make test-engines, and root")
	}
	drivers := []string{"cgroupfs"}
	if haveSystemd() {
		drivers = append(drivers, "systemd")
	}
	for _, e := range allEngines {
		for _, driver := range drivers {
			for _, runtime := range strings.Fields(or(os.Getenv("ENGINES_RUNTIMES"), "runc husk")) {
				s := setting{runtime, driver}
				if len(e.scripts(t, s)) > 0 {
					t.Run(e.name+"/"+driver+"/"+runtime, func(t *testing.T) { e.test(t, s) })
				}
			}
		}
	}
}

// haveSystemd says whether this is a machine, not a box.
func haveSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

func (e engine) test(t *testing.T, s setting) {
	daemon := e.start(t, s)
	makeImage(t)
	shell(t, e.load)
	// Engines make what they keep, such as a bridge, when first used.
	scripts := e.scripts(t, s)
	e.runScript(t, s, "testdata/"+e.warm(), daemon)
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
			e.runScript(t, s, file, daemon)
		})
	}
}

// purge removes what a script that failed has left.
func (e engine) purge(t *testing.T) {
	lines := map[string]string{
		"crictl":   `crictl rmp -fa`,
		"ctr":      `for c in $(ctr task ls -q); do ctr task rm -f $c || true; done; for c in $(ctr container ls -q); do ctr container rm $c; done`,
		"docker":   `docker rm -f $(docker ps -aq) || true`,
		"rootless": `rootless pod rm -fa -t 0; rootless rm -fa -t 0`,
		"podman":   `podman pod rm -fa -t 0; podman rm -fa -t 0`,
	}
	shell(t, lines[e.command])
}

// warm names the script that is run before leaks are looked for.
func (e engine) warm() string {
	if e.own {
		return e.kind() + "_run.txtar"
	}
	return "run.txtar"
}

// scripts lists those that are for this engine, here.
func (e engine) scripts(t *testing.T, s setting) (mine []string) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if e.has(name) && s.tells(name) {
			mine = append(mine, file)
		}
	}
	return mine
}

// has says whether a script is for this engine: one that is named after it, or after none
// if it has Docker's command line.
func (e engine) has(name string) bool {
	if e.only != nil {
		return slices.Contains(e.only, name)
	}
	prefix, _, _ := strings.Cut(name, "_")
	switch prefix {
	case "cri", "ctr", "docker", "dockremap", "podman", "rootless":
		return prefix == e.kind()
	}
	return !e.own
}

// kind names the engines that have scripts in common.
func (e engine) kind() string {
	kind, _, _ := strings.Cut(e.name, "-")
	return kind
}

// shell runs a command line in /tmp.
func shell(t *testing.T, line string) {
	t.Helper()
	cmd := exec.Command("timeout", seconds(commandTimeout), "sh", "-ec", line)
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startRootless is Podman of an ordinary user, to whom cgroups are delegated only by
// systemd, if that is here.
func startRootless(t *testing.T, s setting) *service {
	startPodman(t, s)
	write(t, "/etc/subuid", "user:400000:65536\n")
	write(t, "/etc/subgid", "user:400000:65536\n")
	write(t, "/usr/local/bin/rootless", `#!/bin/sh
exec setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all --bounding-set=+all \
	env HOME=/home/user USER=user XDG_RUNTIME_DIR=/run/user/1000 podman "$@"
`)
	shell(t, `chmod 755 /usr/local/bin/rootless
grep -q ^user: /etc/passwd || { echo user:x:1000:1000::/home/user:/bin/sh >>/etc/passwd; echo user:x:1000: >>/etc/group; echo 'user:*:1::::::' >>/etc/shadow; }
mkdir -p /home/user /run/user/1000
[ -d /run/systemd/system ] || mountpoint -q /home/user || mount -t tmpfs tmpfs /home/user
chown user:user /home/user /run/user/1000
chmod 700 /home/user /run/user/1000
[ ! -d /run/systemd/system ] || { loginctl enable-linger user; systemctl start user@1000; }`)
	return nil
}

// configure writes what README.md has for a file of an engine, with another runtime as
// the engine's default.
func configure(t *testing.T, path, runtime string) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	must(t, err)
	_, text, found := strings.Cut(string(readme), "`"+path+"`")
	_, text, fenced := strings.Cut(text, "\n```")
	_, text, _ = strings.Cut(text, "\n")
	text, _, closed := strings.Cut(text, "```\n")
	if !found || !fenced || !closed {
		t.Fatalf("README.md does not show %s", path)
	}
	for _, key := range []string{`"default-runtime": `, `runtime = `} {
		text = strings.ReplaceAll(text, key+`"husk"`, key+strconv.Quote(runtime))
	}
	write(t, path, text)
}

// write writes a file of the box.
func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// A service is a daemon.
type service struct {
	ready   string // shell command that succeeds when it is
	command []string
	cmd     *exec.Cmd
}

// serve starts a daemon and ends it with the test.
func serve(t *testing.T, ready string, command ...string) *service {
	t.Helper()
	s := &service{ready: ready, command: command}
	must(t, s.start())
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", s.name(), tail(s.log()))
		}
	})
	return s
}

func (s *service) name() string { return filepath.Base(s.command[0]) }

func (s *service) log() string { return "/tmp/" + s.name() + ".log" }

// start starts it and waits until it is ready.
func (s *service) start() error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.command[0], s.command[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(harness.Patience(30 * time.Second))
	for exec.Command("sh", "-c", s.ready).Run() != nil {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not get ready:\n%s", s.name(), tail(s.log()))
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// stop terminates it, and kills it when that does not help.
func (s *service) stop() (err error) {
	s.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(harness.Patience(20*time.Second), func() { s.cmd.Process.Kill() })
	s.cmd.Wait()
	if !timer.Stop() {
		err = fmt.Errorf("%s does not end:\n%s", s.name(), tail(s.log()))
	}
	return err
}

func tail(path string) string {
	data, _ := os.ReadFile(path)
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-8):], []byte("\n")))
}

func startContainerd(t *testing.T, _ setting) *service {
	return serve(t, "ctr version", "/usr/bin/containerd")
}

func startDocker(t *testing.T, s setting) *service { return dockerd(t, s) }

// startRemapped is Docker whose containers have user namespaces.
func startRemapped(t *testing.T, s setting) *service {
	shell(t, "grep -q ^remap: /etc/passwd || { echo remap:x:998:998::/:/bin/false >>/etc/passwd; echo remap:x:998: >>/etc/group; }")
	write(t, "/etc/subuid", "remap:300000:65536\n")
	write(t, "/etc/subgid", "remap:300000:65536\n")
	return dockerd(t, s, "--userns-remap=remap")
}

func dockerd(t *testing.T, s setting, args ...string) *service {
	startContainerd(t, s)
	configure(t, "/etc/docker/daemon.json", s.runtime)
	t.Cleanup(func() { shell(t, "nft flush ruleset") }) // of the network that the next engine has, too
	return serve(t, "docker info", slices.Concat([]string{
		"/usr/sbin/dockerd", "--containerd=/run/containerd/containerd.sock", "--exec-opt=native.cgroupdriver=" + s.driver, "--live-restore",
	}, args)...)
}

// startPodman configures it: there is no daemon.
func startPodman(t *testing.T, s setting) *service {
	limits := ""
	if !hasController("pids") { // which Podman does not ask
		limits = "pids_limit = 0\n"
	}
	configure(t, "/etc/containers/containers.conf", s.runtime)
	write(t, "/etc/containers/containers.conf.d/box.conf", `[containers]
log_driver = "k8s-file"
`+limits+`[engine]
cgroup_manager = "`+s.driver+`"
events_logger = "file"
`)
	write(t, "/etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	write(t, "/etc/subuid", "containers:100000:131072\n")
	write(t, "/etc/subgid", "containers:100000:131072\n")
	shell(t, "grep -q ^containers: /etc/passwd || echo containers:x:999:999::/:/bin/false >>/etc/passwd")
	return nil
}
