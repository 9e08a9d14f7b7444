package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
	"golang.org/x/sys/unix"
)

// jailers are what the README compares husk sandbox with, each with the fewest flags that
// run a command of this system in a directory that it may write to. Podman has no limit on
// processes since the machine may lack the controller; nothing here has to do with one.
var jailers = []struct {
	name    string
	version string // of which the last word counts
	command string // JOB is the directory, IMAGE one with a root file system
}{
	{"husk sandbox", "", workRoot + "/bin/husk sandbox --"},
	{"bubblewrap", "bwrap --version", "bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc --bind JOB JOB"},
	{"podman run", "podman --version", "podman --root " + workRoot + "/podman --cgroup-manager cgroupfs run --rm --pids-limit 0 -v JOB:JOB -w JOB --rootfs IMAGE:O"},
}

// The comparison of sandboxes in the README is what comes out here, too.
func TestREADMEPeersSandbox(t *testing.T) {
	if patience(1) > 1 {
		t.Skip("the README is about this machine; natively this is a part of make test")
	}
	box(t, func(t *testing.T) {
		p := findPeers(t)
		if _, err := os.Stat(p.root + "/usr/bin/bwrap"); p.root == "" || err != nil {
			t.Skipf("needs bubblewrap and podman in %s (integration/bench/peers.sh)", p.root)
		}
		job, image := workRoot+"/job", workRoot+"/image"
		for _, dir := range []string{workRoot + "/bin", job, image} {
			must(t, os.MkdirAll(dir, 0o755))
		}
		must(t, copyFile(runtimePath(), workRoot+"/bin/husk"))
		must(t, copyFile(tool("hostile"), job+"/hostile"))
		furnishVictim(t)
		enter := []string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", enterRoot, "sh", p.root, "sh", "-euc", furnishHost, "sh", image}

		for _, l := range attempt(t, job, append(slices.Clone(enter), job+"/hostile")) {
			if !strings.HasPrefix(l, "yes ") {
				t.Error("of a job that nothing contains:", l)
			}
		}
		head, line, answers := "| A job can |", "|---|", map[string][]string{}
		var attempts []string
		for _, j := range jailers {
			head += " " + strings.TrimSpace(j.name+" "+versionOf(t, enter, j.version)) + " |"
			line += "---|"
			args := slices.Concat(enter, strings.Fields(strings.NewReplacer("JOB", job, "IMAGE", image).Replace(j.command)), []string{job + "/hostile"})
			for _, l := range attempt(t, job, args) {
				answer, what, _ := strings.Cut(l, " ")
				if !slices.Contains(attempts, what) {
					attempts = append(attempts, what)
				}
				answers[what] = append(answers[what], answer)
			}
		}
		removePodman(t, enter)
		table := head + "\n" + line + "\n"
		for _, what := range attempts {
			if len(answers[what]) != len(jailers) {
				t.Errorf("%s: not everybody was asked: %v", what, answers[what])
			}
			if answers[what][0] != "no" {
				t.Errorf("a job of husk's can %s", what)
			}
			table += "| " + what + " | " + strings.Join(answers[what], " | ") + " |\n"
		}
		compareREADME(t, "| A job can |", head, table)
	})
}

func versionOf(t *testing.T, enter []string, command string) string {
	t.Helper()
	if command == "" {
		return ""
	}
	r := runIn(t, workRoot, slices.Concat(enter, strings.Fields(command)))
	if r.code != 0 || r.stdout == "" {
		t.Fatalf("%s: exit %d\n%s", command, r.code, r.stderr)
	}
	words := strings.Fields(r.stdout)
	return words[len(words)-1]
}

func runIn(t *testing.T, dir string, args []string) result {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	return runCmd(t, cmd)
}

// furnishHost makes the root that was entered a host with a secret, and another one
// without.
const furnishHost = `mount --bind / "$1"
shift
mount -o remount,bind,ro /
mount -t tmpfs -o mode=700 tmpfs /root
mount -t tmpfs tmpfs /tmp
echo 'password hunter2' >/root/.netrc
chmod 600 /root/.netrc
HOME=/root TOKEN=hunter2 exec "$@"`

// furnishVictim makes what hostile.c looks for besides.
func furnishVictim(t *testing.T) {
	t.Helper()
	victim := workRoot + "/bin/victim"
	must(t, copyFile("/usr/bin/sleep", victim))
	sleep := exec.Command(victim, "1000")
	must(t, sleep.Start())
	t.Cleanup(func() { sleep.Process.Kill(); sleep.Wait() })
	for _, args := range []string{"link set lo up", "addr add 169.254.169.254/32 dev lo"} {
		must(t, exec.Command("ip", strings.Fields(args)...).Run())
	}
	for _, at := range [][2]string{{"tcp", "169.254.169.254:80"}, {"unix", "@hostile"}, {"unix", "/run/hostile.sock"}} {
		l, err := net.Listen(at[0], at[1])
		must(t, err)
		t.Cleanup(func() { l.Close() })
	}
	must(t, os.Chmod("/run/hostile.sock", 0o666))
}

// attempt runs the hostile job from a terminal and returns its lines, and one about what
// has outlived it.
func attempt(t *testing.T, dir string, args []string) []string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer master.Close()
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	fd, err := unix.IoctlRetInt(int(master.Fd()), unix.TIOCGPTPEER)
	must(t, err)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdin = dir, os.NewFile(uintptr(fd), "terminal")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	r := runCmd(t, cmd)
	if r.code != 0 {
		t.Fatalf("%v: exit %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	time.Sleep(100 * time.Millisecond)
	left := "no"
	for _, pid := range processesCalled("hostile-daemon") {
		left = "yes"
		unix.Kill(pid, unix.SIGKILL)
	}
	return append(strings.Split(strings.TrimSpace(r.stdout), "\n"), left+" leave a process behind")
}

// removePodman removes what podman keeps for its next container.
func removePodman(t *testing.T, enter []string) {
	t.Helper()
	if r := runIn(t, workRoot, slices.Concat(enter, strings.Fields("nft delete table inet netavark"))); r.code != 0 {
		t.Errorf("nft: %s", r.stderr)
	}
	fd, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	harness.RemoveTree(fd, "libpod_parent")
}

func processesCalled(name string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, f := range files {
		if comm, _ := os.ReadFile(f); string(comm) == name+"\n" {
			var pid int
			fmt.Sscanf(f, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}
