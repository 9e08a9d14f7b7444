package integration

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestOracle runs the same bundles under husk and under other runtimes and compares
// what the probe sees in there. The bundles are generated from tables (oracle_cases),
// what is seen becomes facts (oracle_facts), and where two runtimes differ on a fact
// testdata/oracle.txt has to say who is right: by which sentence of the specification.
// What it lists and does not happen any more fails too.
//
// The runtimes come from $CRUN and $RUNC, or from the root that make bench keeps. All
// of them, husk too, run in there, one after the other, called by the same shell. The
// list is about certain versions; what others do otherwise is only told.
// $HUSK_ORACLE chooses bundles by a regular expression and logs the messages.
func TestOracle(t *testing.T) {
	if patience(1) > 1 {
		t.Skip("an emulated machine is too slow for that many containers; natively it is a part of make test")
	}
	groups := oracleGroups()
	if os.Getenv(envTest) == "" {
		t.Cleanup(func() { unusedDifferences(t, len(groups)) })
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		t.Run(name, func(t *testing.T) {
			peers := findPeers(t)
			box(t, func(t *testing.T) {
				elsewhere(func() {
					o := newOracle(t, peers)
					for _, c := range groups[name] {
						o.compare(t, name+"/"+c.name, c)
					}
					o.tell(t)
				})
			})
		})
	}
}

// peers are the runtimes to compare with: where their root is, if they have one, and
// their commands.
type peers struct {
	root     string
	commands map[string]string // by name: crun, runc
}

var peerNames = []string{"crun", "runc"}

// peersRoot is where integration/bench/peers.sh makes a root.
func peersRoot() string {
	cache := cmp.Or(os.Getenv("XDG_CACHE_HOME"), "/var/cache")
	return filepath.Join(cache, "husk/peers-"+cmp.Or(os.Getenv("SUITE"), "forky"))
}

// findPeers skips the test where there is none.
func findPeers(t *testing.T) peers {
	t.Helper()
	p := peers{commands: map[string]string{}}
	for _, name := range peerNames {
		if command := os.Getenv(strings.ToUpper(name)); command != "" {
			p.commands[name] = command
		}
	}
	if len(p.commands) > 0 {
		return p
	}
	p.root = peersRoot()
	for _, name := range peerNames {
		if found, _ := filepath.Glob(p.root + "/usr/*bin/" + name); len(found) > 0 {
			p.commands[name] = name
		}
	}
	if len(p.commands) == 0 {
		t.Skipf("needs other runtimes: %s has neither crun nor runc (integration/bench/peers.sh makes it), $CRUN and $RUNC name none", p.root)
	}
	return p
}

// referenceOf returns the command that runs one of them from anywhere.
func referenceOf(t *testing.T, name string) []string {
	t.Helper()
	p := findPeers(t)
	command := p.commands[name]
	switch {
	case command == "":
		t.Skipf("needs %s: neither $%s nor %s has it", name, strings.ToUpper(name), cmp.Or(p.root, "the environment"))
	case p.root == "":
		return []string{command}
	}
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", enterRoot, "sh", p.root, command}
}

// enterRoot runs a program of another distribution with the box's /run, where
// bundles are, and its kernel file systems.
const enterRoot = `root=$1; shift
mount --bind "$root" "$root"
for d in proc sys dev run; do mount --rbind /$d "$root/$d"; done
cd "$root"
old=$OLDPWD
pivot_root . .
umount -l .
cd "$old"
PATH=/usr/sbin:/usr/bin:/sbin:/bin exec "$@"`

// The oracle's directories, all in the box's /run, which is the same file system for
// every runtime.
const (
	oracleDir    = workRoot + "/oracle"
	oracleBundle = oracleDir + "/bundle"
	oracleSource = oracleDir + "/source" // what bind mounts show
	oracleOut    = oracleDir + "/out"
	oracleErr    = oracleDir + "/err"
	oracleHooks  = oracleDir + "/hooks"
	oracleHusk   = workRoot + "/bin/husk"
	oracleProbe  = workRoot + "/bin/probe"
	oracleTool   = workRoot + "/bin/tool"
	oracleSpaces = oracleDir + "/ns" // namespaces to join
)

type oracle struct {
	peers
	other  map[string]string // peers of another version than the list's, and what they do otherwise
	listed []*difference
	told   *os.File
	own    map[string]string // this box's namespaces, by the link's text
	chosen *regexp.Regexp
}

func newOracle(t *testing.T, p peers) *oracle {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(oracleHusk), 0o755))
	must(t, copyFile(runtimePath(), oracleHusk))
	must(t, copyFile(tool("tool"), oracleTool))
	must(t, copyFile(tool("probe"), oracleProbe))
	list, err := readDifferences("testdata/oracle.txt")
	must(t, err)
	told, err := os.OpenFile(tool(occurredFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	plainSignals()
	t.Cleanup(func() {
		if fd, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			harness.RemoveTree(fd, "oracle") // above the containers' cgroups, which the runtimes remove
			unix.Close(fd)
		}
	})
	p.enter(t)
	must(t, os.Mkdir(oracleDir, 0o755))
	must(t, unix.Mount("tmpfs", oracleDir, "tmpfs", 0, "mode=755")) // without options that runtimes might keep or not
	must(t, os.Mkdir(oracleSource, 0o755))
	must(t, os.Mkdir(oracleSpaces, 0o755))
	furnishSource(t)
	return &oracle{
		peers: p, other: otherVersions(t, p), listed: list, told: told, own: namespacesOf(t),
		chosen: regexp.MustCompile(os.Getenv("HUSK_ORACLE")),
	}
}

// listedVersions are those that testdata/oracle.txt is about.
var listedVersions = map[string]string{"crun": "1.28", "runc": "1.3.6"}

func otherVersions(t *testing.T, p peers) map[string]string {
	t.Helper()
	other := map[string]string{}
	for name, command := range p.commands {
		out, err := exec.Command(command, "--version").Output()
		must(t, err)
		if _, version, _ := strings.Cut(string(out), "version "); !strings.HasPrefix(version, listedVersions[name]) {
			other[name] = ""
		}
	}
	return other
}

// plainSignals makes all signals that this process was told to ignore (nohup) default
// ones for those it executes: execve(2) hands ignored signals down, but resets those
// that are caught.
func plainSignals() {
	for s := syscall.Signal(1); s < 32; s++ {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// compare runs one bundle under all runtimes.
func (o *oracle) compare(t *testing.T, name string, c oracleCase) {
	t.Helper()
	if !o.chosen.MatchString(name) {
		return
	}
	mine := o.run(t, "husk", oracleHusk, c)
	if mine["result"] == "refused" && !c.refused {
		t.Errorf("%s: husk refuses it: %s", name, mine["message"])
	}
	for _, peer := range peerNames {
		if command := o.commands[peer]; command != "" {
			o.judge(t, peer, name, mine, o.run(t, peer, command, c))
		}
	}
}

// judge reports the differences that are not on the list.
func (o *oracle) judge(t *testing.T, peer, name string, mine, theirs seen) {
	t.Helper()
	if os.Getenv("HUSK_ORACLE") != "" {
		t.Logf("%s: husk says %q, %s says %q", name, mine["message"], peer, theirs["message"])
	}
	for _, key := range mine.differing(theirs) {
		d := divergence{peer, name, key, mine.value(key), theirs.value(key)}
		if slices.ContainsFunc(o.listed, func(l *difference) bool { return l.explains(d) }) {
			continue
		}
		text := fmt.Sprintf("%s: %s\n\thusk: %s\n\t%s: %s", name, key, d.husk, peer, d.theirs)
		if _, ok := o.other[peer]; ok {
			o.other[peer] += text + "\n"
		} else {
			t.Error(text)
		}
	}
}

// occurredFile is where boxes tell which entries of the list they have met.
const occurredFile = "oracle-occurred"

// tell writes down what of the list has occurred in this box.
func (o *oracle) tell(t *testing.T) {
	t.Helper()
	defer o.told.Close()
	text := "end\n"
	for peer, otherwise := range o.other {
		t.Logf("%s is not the version that the list is about, %s:\n%s", peer, listedVersions[peer], otherwise)
		text += "other " + peer + "\n"
	}
	for _, d := range o.listed {
		for what := range d.occurred {
			text = fmt.Sprintf("%d: %s\n", d.line, what) + text
		}
	}
	_, err := o.told.WriteString(text)
	must(t, err)
}

// unusedDifferences reports what is on the list and has occurred nowhere, when all
// bundles have run.
func unusedDifferences(t *testing.T, groups int) {
	occurred := fileLines(tool(occurredFile))
	ended := slices.DeleteFunc(slices.Clone(occurred), func(l string) bool { return l != "end" })
	if len(ended) < groups || os.Getenv("HUSK_ORACLE") != "" {
		return
	}
	list, err := readDifferences("testdata/oracle.txt")
	must(t, err)
	commands := findPeers(t).commands
	for _, d := range list {
		for _, what := range d.all() {
			if peer, _, _ := strings.Cut(what, " "); commands[peer] == "" || slices.Contains(occurred, "other "+peer) {
				continue
			}
			if !slices.Contains(occurred, fmt.Sprintf("%d: %s", d.line, what)) {
				t.Errorf("testdata/oracle.txt:%d: no such difference any more: %s", d.line, what)
			}
		}
	}
}

// run runs a bundle under a runtime and returns what is seen.
func (o *oracle) run(t *testing.T, name, command string, c oracleCase) seen {
	t.Helper()
	o.prepare(t, c)
	state := filepath.Join(oracleDir, "state")
	defer os.RemoveAll(oracleBundle)
	defer os.RemoveAll(state)
	args := []string{command, "--root", state, "run", "c1"}
	var seat *exec.Cmd
	if c.terminal {
		socket := filepath.Join(oracleDir, "socket")
		args = []string{command, "--root", state, "run", "--detach", "--console-socket", socket, "c1"}
		seat = takeSeat(t, socket)
	}
	code := o.call(t, c, args)
	if seat != nil {
		if code != 0 {
			seat.Process.Kill()
		}
		seat.Wait()
	}
	s := o.look(t, c, code)
	if left, _ := os.ReadDir(filepath.Join(state, "c1")); len(left) > 0 {
		o.call(t, oracleCase{}, []string{command, "--root", state, "delete", "--force", "c1"})
	}
	s.hooks(t, o)
	if code == 0 {
		for _, inspect := range c.after {
			inspect(t, s)
		}
	}
	return s
}

// takeSeat receives a terminal and copies what is written on it to the output.
func takeSeat(t *testing.T, socket string) *exec.Cmd {
	t.Helper()
	os.Remove(socket)
	out, err := os.Create(oracleOut + ".tty")
	must(t, err)
	defer out.Close()
	cmd := exec.Command(oracleTool, "console", socket)
	cmd.Stdout = out
	must(t, cmd.Start())
	poll(t, func() bool { return unix.Access(socket, unix.F_OK) == nil }, "the console socket")
	return cmd
}

// elsewhere runs f in a thread that ends with it, and is not the one for which the
// process is known in /proc: it may be given a root of its own.
func elsewhere(f func()) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		goruntime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			elsewhere(f) // this thread is taken meanwhile
			goruntime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// enter makes the root of the peers, read-only, that of this thread, with the box's /run,
// where bundles are, and its kernel file systems. Everything is shared, as systemd leaves
// it on real machines. The test stays there, and with it all that it executes.
func (p peers) enter(t *testing.T) {
	t.Helper()
	must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
	must(t, unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
	if p.root != "" {
		must(t, unix.Mount(p.root, p.root, "", unix.MS_BIND, ""))
		for _, d := range []string{"/proc", "/sys", "/dev", "/run"} {
			must(t, unix.Mount(d, p.root+d, "", unix.MS_BIND|unix.MS_REC, ""))
		}
		must(t, unix.Mount("", p.root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		must(t, unix.Mount("tmpfs", p.root+"/tmp", "tmpfs", 0, "")) // where runc copies
		must(t, unix.Chdir(p.root))
		must(t, unix.PivotRoot(".", "."))
		must(t, unix.Unmount(".", unix.MNT_DETACH))
	}
	must(t, unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""))
}

// plainCaller is a shell that calls a runtime as any caller would; $1 is what is
// special about this one.
const plainCaller = `caller=$1
shift
umask 022
eval "$caller"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null`

// call calls a runtime; its output goes to files of the same names each time, which
// the containers see.
func (o *oracle) call(t *testing.T, c oracleCase, args []string) int {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-euc", plainCaller, "sh", c.caller}, args...)...)
	cmd.Dir = oracleBundle
	out, err := os.Create(oracleOut)
	must(t, err)
	defer out.Close()
	errs, err := os.Create(oracleErr)
	must(t, err)
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(t, cmd.Start())
	timer := time.AfterFunc(commandTimeout, func() { cmd.Process.Kill() })
	cmd.Wait()
	if !timer.Stop() {
		t.Errorf("%v: hangs: killed after %v", args, commandTimeout)
	}
	return exitCode(cmd.ProcessState)
}

// look turns what the probe said into facts.
func (o *oracle) look(t *testing.T, c oracleCase, code int) seen {
	t.Helper()
	out, errs := textOf(oracleOut), strings.TrimSpace(textOf(oracleErr))
	if c.terminal {
		out = textOf(oracleOut + ".tty")
	}
	s := seen{"message": errs}
	if !strings.Contains(out, "umask") { // which every probe says
		s["result"] = "refused"
		return s
	}
	s["result"] = fmt.Sprintf("exit %d", code)
	s["warned"] = fmt.Sprint(errs != "")
	s.facts(out, o)
	return s
}

func textOf(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

// prepare makes the bundle anew: a runtime may leave traces in it.
func (o *oracle) prepare(t *testing.T, c oracleCase) {
	t.Helper()
	os.Remove(oracleHooks)
	rootfs := filepath.Join(oracleBundle, "rootfs")
	for _, d := range []string{"bin", "dev", "etc", "proc", "run", "sys", "tmp", "root", "var/deep", "home/user", "locked"} {
		must(t, os.MkdirAll(filepath.Join(rootfs, d), 0o755))
	}
	must(t, unix.Chmod(filepath.Join(rootfs, "tmp"), 0o1777))
	must(t, unix.Chmod(filepath.Join(rootfs, "locked"), 0o711))
	must(t, os.Lchown(filepath.Join(rootfs, "locked"), 3, 4))
	must(t, copyFile(oracleProbe, filepath.Join(rootfs, "probe")))
	for path, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
		"etc/group":  "root:x:0:\nuser:x:1000:\nmore:x:1001:user\n",
		"etc/file":   "of the rootfs\n", "var/deep/file": "deep\n",
	} {
		must(t, os.WriteFile(filepath.Join(rootfs, path), []byte(text), 0o644))
	}
	must(t, os.Symlink("/var/deep", filepath.Join(rootfs, "link")))
	must(t, os.Symlink("../../../../etc", filepath.Join(rootfs, "var/up")))
	must(t, os.Symlink("../probe", filepath.Join(rootfs, "bin/probe")))
	for _, change := range c.rootfs {
		change(t, rootfs)
	}
	b := &bundle{t: t, dir: oracleBundle}
	b.write(func(s *specs.Spec) {
		s.Linux.CgroupsPath = "/oracle/c1"
		s.Process.Args = []string{"/probe", "see"}
		if c.edit != nil {
			c.edit(s)
		}
	})
}

// A divergence is a fact on which husk and a peer differ.
type divergence struct{ peer, bundle, fact, husk, theirs string }

// A difference is an entry of the list. Each of its patterns has to occur.
type difference struct {
	line          int
	peers         []string
	bundles       []string // patterns of path.Match
	facts         []*regexp.Regexp
	husk, theirs  *regexp.Regexp
	right, source string
	chance        bool            // need not occur
	occurred      map[string]bool // of all()
}

func (d *difference) explains(v divergence) bool {
	if !slices.Contains(d.peers, v.peer) || !matches(d.husk, v.husk) || !matches(d.theirs, v.theirs) {
		return false
	}
	b := slices.IndexFunc(d.bundles, func(p string) bool { ok, _ := path.Match(p, v.bundle); return ok })
	f := slices.IndexFunc(d.facts, func(r *regexp.Regexp) bool { return matches(r, v.fact) })
	if b < 0 || f < 0 {
		return false
	}
	d.occurred[v.peer+" in "+d.bundles[b]] = true
	d.occurred[v.peer+" on "+d.facts[f].String()] = true
	return true
}

func matches(r *regexp.Regexp, text string) bool { return r == nil || r.MatchString(text) }

// all lists what of an entry has to occur.
func (d *difference) all() (list []string) {
	if d.chance {
		return nil
	}
	for _, peer := range d.peers {
		for _, b := range d.bundles {
			list = append(list, peer+" in "+b)
		}
		for _, f := range d.facts {
			list = append(list, peer+" on "+f.String())
		}
	}
	return list
}

// readDifferences reads the list; its head explains the form.
func readDifferences(file string) ([]*difference, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []*difference
	var d *difference
	for i, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		if key == "peer" {
			d = &difference{line: i + 1, peers: strings.Fields(value), occurred: map[string]bool{}}
			list = append(list, d)
		} else if key != "" && d == nil {
			return nil, fmt.Errorf("%s:%d: an entry begins with peer", file, i+1)
		}
		if err := d.set(key, value); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
	}
	return list, nil
}

func (d *difference) set(key, value string) (err error) {
	var r *regexp.Regexp
	switch key {
	case "fact", "husk", "theirs":
		r, err = regexp.Compile("^(" + value + ")$")
	}
	switch key {
	case "fact":
		d.facts = append(d.facts, r)
	case "husk":
		d.husk = r
	case "theirs":
		d.theirs = r
	case "bundle":
		d.bundles = append(d.bundles, strings.Fields(value)...)
	case "right":
		d.right = value
	case "by":
		d.source = value
	case "chance":
		d.chance = true
	case "", "peer", "why":
	default:
		err = fmt.Errorf("unknown word %q", key)
	}
	return err
}

// TestOracleSentences checks that the list quotes the specification it names.
func TestOracleSentences(t *testing.T) {
	list, err := readDifferences("testdata/oracle.txt")
	must(t, err)
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Skipf("needs the go command: %v", err)
	}
	texts := map[string]string{}
	for _, d := range list {
		if len(d.peers) == 0 || len(d.bundles) == 0 || len(d.facts) == 0 {
			t.Errorf("testdata/oracle.txt:%d: incomplete", d.line)
		}
		if !slices.Contains([]string{"husk", "theirs", "both"}, d.right) {
			t.Errorf("testdata/oracle.txt:%d: right is %q", d.line, d.right)
		}
		doc, sentence, _ := strings.Cut(d.source, ": ")
		if !strings.HasSuffix(doc, ".md") {
			if !regexp.MustCompile(`^[a-z0-9_]+\([1-8]\)$`).MatchString(doc) {
				t.Errorf("testdata/oracle.txt:%d: %q is neither a document of the specification nor a manual page", d.line, doc)
			}
			continue
		}
		if texts[doc] == "" {
			data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), doc))
			must(t, err)
			texts[doc] = plainText(string(data))
		}
		if len(sentence) < 12 || !strings.Contains(texts[doc], plainText(sentence)) {
			t.Errorf("testdata/oracle.txt:%d: %s does not say %q", d.line, doc, sentence)
		}
	}
}

// TestOracleBundles: a pattern of the list names what there is, and names are unique.
func TestOracleBundles(t *testing.T) {
	var names []string
	for group, cases := range oracleGroups() {
		for _, c := range cases {
			names = append(names, group+"/"+c.name)
		}
	}
	slices.Sort(names)
	if n := len(slices.Compact(slices.Clone(names))); n != len(names) || n < 60 {
		t.Errorf("%d bundles with %d names", len(names), n)
	}
	list, err := readDifferences("testdata/oracle.txt")
	must(t, err)
	for _, d := range list {
		for _, b := range d.bundles {
			if !slices.ContainsFunc(names, func(n string) bool { ok, _ := path.Match(b, n); return ok }) {
				t.Errorf("testdata/oracle.txt:%d: no bundle is called %s", d.line, b)
			}
		}
	}
}

// plainText takes Markdown's links and emphasis away.
func plainText(s string) string {
	s = regexp.MustCompile(`\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])`).ReplaceAllString(s, "$1")
	s = strings.NewReplacer("`", "", "**", "", "*", "").Replace(s)
	return strings.Join(strings.Fields(s), " ")
}
