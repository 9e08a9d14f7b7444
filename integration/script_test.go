package integration

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/rootfs/image/imagetest"
	"github.com/huskrun/husk/runtime"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestScript runs every behaviour that is written down in testdata, each in a
// box of its own. testdata/README.md explains the commands.
func TestScript(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			box(t, func(t *testing.T) {
				if strings.Contains(file, "/sandbox") {
					onDisk(t)
				}
				runScript(t, file)
			})
		})
	}
}

func runScript(t *testing.T, file string) {
	testscript.RunT(scriptT{t}, testscript.Params{
		Files:              []string{file},
		Setup:              scriptSetup,
		Cmds:               scriptCommands,
		RequireUniqueNames: true,
		Condition:          scriptCondition,
	})
}

// scriptT runs the one script of a box as the body of the box's test, since a
// subtest's name would not be the box's.
type scriptT struct{ *testing.T }

func (s scriptT) Run(_ string, f func(testscript.T)) { f(s) }
func (s scriptT) Parallel()                          {}
func (s scriptT) Verbose() bool                      { return false }

func scriptSetup(e *testscript.Env) error {
	e.Setenv("PATH", toolDir+":"+os.Getenv("PATH"))
	e.Setenv("HUSK", runtimePath())
	e.Setenv("BUNDLE", filepath.Join(e.WorkDir, "bundle"))
	e.Setenv("ROOTFS", filepath.Join(e.WorkDir, "bundle/rootfs"))
	e.Setenv("CGROUP", "/sys/fs/cgroup")
	e.Setenv("DEBIAN", peersRoot())
	cache, _ := os.UserCacheDir()
	e.Setenv("GOCACHE", cmp.Or(os.Getenv("GOCACHE"), cache+"/go-build"))
	home, _ := os.UserHomeDir()
	e.Setenv("GOMODCACHE", cmp.Or(os.Getenv("GOMODCACHE"), home+"/go/pkg/mod"))
	repository, _ := filepath.Abs("..")
	e.Setenv("REPOSITORY", repository)
	// Containers with a user namespace have to get through to their bundle.
	for dir := e.WorkDir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	return nil
}

func scriptCondition(cond string) (bool, error) {
	name, arg, _ := strings.Cut(cond, ":")
	switch name {
	case "controller": // of the cgroup2 hierarchy
		data, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		return slices.Contains(strings.Fields(string(data)), arg), err
	case "capable": // some machines' root lacks capabilities
		return capable(arg), nil
	case "mounted":
		data, err := os.ReadFile("/proc/self/mounts")
		return strings.Contains(string(data), " "+arg+" "), err
	case "kernel": // at least this one
		return kernelIs(arg), nil
	case "lsm": // a security module that is on
		return hasModule(arg), nil
	case "landlock":
		return runtime.HasLandlock(), nil
	case "exists":
		_, err := os.Stat(arg)
		return err == nil, nil
	case "filesystem":
		data, err := os.ReadFile("/proc/filesystems")
		return regexp.MustCompile(`(?m)\t` + regexp.QuoteMeta(arg) + `$`).Match(data), err
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// kernelIs says whether the kernel is of the version MAJOR.MINOR or newer.
func kernelIs(version string) bool {
	var u unix.Utsname
	var have, want [2]int
	if unix.Uname(&u) != nil {
		return false
	}
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &have[0], &have[1])
	fmt.Sscanf(version, "%d.%d", &want[0], &want[1])
	return slices.Compare(have[:], want[:]) >= 0
}

// hasModule says whether a security module is on. SELinux may yet lack a policy.
func hasModule(name string) bool {
	if name == "selinux" {
		_, err := os.Stat("/sys/fs/selinux/load")
		return err == nil
	}
	data, err := os.ReadFile("/sys/module/" + name + "/parameters/enabled")
	return err == nil && strings.HasPrefix(string(data), "Y")
}

// capable says whether this process has a capability, asked of the probe.
func capable(name string) bool {
	out, _ := exec.Command(tool("probe"), "caps").Output()
	return slices.Contains(strings.Fields(parseFacts(string(out)).one("cap.effective")), name)
}

type script = testscript.TestScript

var scriptCommands = map[string]func(ts *script, neg bool, args []string){
	"bundle":   cmdBundle,
	"config":   cmdConfig,
	"husk":     cmdHusk,
	"look":     cmdLook,
	"code":     cmdCode,
	"within":   cmdWithin,
	"json":     cmdJSON,
	"pid":      cmdPid,
	"waitfor":  cmdWaitfor,
	"waitgrep": cmdWaitgrep,
	"capture":  cmdCapture,
	"signal":   cmdSignal,
	"same":     cmdSame,
	"resctrl":  cmdResctrl,
	"image":    cmdImage,
	"waitlink": cmdWaitlink,
	"sameip":   cmdSameIP,
}

// cmdBundle makes $BUNDLE: bundle [-owner UID] [-spec].
func cmdBundle(ts *script, neg bool, args []string) {
	owner, spec := 0, false
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-spec":
			spec = true
		case args[i] == "-owner" && i+1 < len(args):
			i++
			owner, _ = strconv.Atoi(args[i])
		default:
			ts.Fatalf("usage: bundle [-owner UID] [-spec]")
		}
	}
	dir := ts.Getenv("BUNDLE")
	ts.Check(os.RemoveAll(dir))
	ts.Check(makeRootfs(filepath.Join(dir, "rootfs"), owner))
	if spec {
		ts.Check(ts.Exec("husk", "spec", "-b", dir))
		return
	}
	ts.Check(os.WriteFile(filepath.Join(dir, "config.json"), []byte(baseConfig), 0o644))
}

// cmdImage makes an image of directories, the lowest layer first: image FORM PATH DIR...
func cmdImage(ts *script, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: image layout|archive|docker PATH DIR...")
	}
	t := scriptTB{ts}
	var layers [][]byte
	for _, dir := range args[2:] {
		layers = append(layers, imagetest.Layer(t, imagetest.Tree(t, ts.MkAbs(dir))...))
	}
	config := v1.ImageConfig{Env: []string{"PATH=/bin", "IMAGE=yes"}, Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"echo what the image says"}}
	switch path := ts.MkAbs(args[1]); args[0] {
	case "layout":
		imagetest.OCI(t, "v1", config, imagetest.Gzip, layers...).Dir(t, path)
	case "archive":
		imagetest.OCI(t, "v1", config, imagetest.Zstd, layers...).Archive(t, path)
	case "docker":
		imagetest.Docker(t, "image:v1", config, layers...).Archive(t, path)
	default:
		ts.Fatalf("image: no form %s", args[0])
	}
}

// scriptTB lets a script make images.
type scriptTB struct{ *script }

func (scriptTB) Helper()             {}
func (t scriptTB) Fatal(args ...any) { t.Fatalf("%s", fmt.Sprint(args...)) }

// cmdConfig edits $BUNDLE/config.json; see testdata/README.md.
func cmdConfig(ts *script, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: config VERB ARGS...")
	}
	path := filepath.Join(ts.Getenv("BUNDLE"), "config.json")
	doc, err := os.ReadFile(path)
	ts.Check(err)
	for _, e := range configEdits(ts, args[0], args[1:]) {
		doc, err = editJSON(doc, e.verb, e.pointer, e.value)
		ts.Check(err)
	}
	ts.Check(os.WriteFile(path, doc, 0o644))
}

type configEdit struct{ verb, pointer, value string }

func quoteJSON(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

// configEdits turns the short forms into edits by pointer.
func configEdits(ts *script, verb string, args []string) []configEdit {
	switch verb {
	case "set", "add":
		if len(args) != 2 {
			ts.Fatalf("usage: config %s POINTER JSON", verb)
		}
		return []configEdit{{verb, args[0], args[1]}}
	case "file":
		return []configEdit{{"set", args[0], ts.ReadFile(args[1])}}
	case "del":
		return []configEdit{{verb, args[0], ""}}
	case "args":
		return []configEdit{{"set", "/process/args", quoteJSON(args)}}
	case "sh":
		return []configEdit{{"set", "/process/args", quoteJSON([]string{"/bin/sh", "-c", strings.Join(args, " ")})}}
	case "probe":
		return []configEdit{{"set", "/process/args", quoteJSON(append([]string{"/probe"}, args...))}}
	case "env":
		var edits []configEdit
		for _, a := range args {
			edits = append(edits, configEdit{"add", "/process/env", quoteJSON(a)})
		}
		return edits
	case "mount":
		return []configEdit{{"add", "/mounts", mountJSON(args)}}
	case "hook":
		h := map[string]any{"path": args[1], "args": args[1:]}
		return []configEdit{{"add", "/hooks/" + args[0], quoteJSON(h)}}
	case "ns":
		return namespaceEdits(ts, args)
	case "userns":
		return usernsEdits(args)
	}
	ts.Fatalf("config: no verb %s", verb)
	return nil
}

// mountJSON: TYPE SOURCE DESTINATION [OPTION,OPTION...]
func mountJSON(args []string) string {
	m := map[string]any{"type": args[0], "source": args[1], "destination": args[2]}
	if len(args) > 3 {
		m["options"] = strings.Split(args[3], ",")
	}
	return quoteJSON(m)
}

// namespaceEdits: TYPE for a new one, TYPE - for none, TYPE PATH to join one.
func namespaceEdits(ts *script, args []string) []configEdit {
	doc, err := os.ReadFile(filepath.Join(ts.Getenv("BUNDLE"), "config.json"))
	ts.Check(err)
	var c struct {
		Linux struct{ Namespaces []map[string]string }
	}
	ts.Check(json.Unmarshal(doc, &c))
	list := slices.DeleteFunc(c.Linux.Namespaces, func(n map[string]string) bool { return n["type"] == args[0] })
	switch {
	case len(args) == 1:
		list = append(list, map[string]string{"type": args[0]})
	case args[1] != "-":
		list = append(list, map[string]string{"type": args[0], "path": args[1]})
	}
	return []configEdit{{"set", "/linux/namespaces", quoteJSON(list)}}
}

// usernsEdits: CONTAINER:HOST:SIZE... as both uid and gid mappings.
func usernsEdits(args []string) []configEdit {
	edits := []configEdit{{"add", "/linux/namespaces", `{"type":"user"}`}}
	for _, a := range args {
		p := strings.Split(a, ":")
		m := fmt.Sprintf(`{"containerID":%s,"hostID":%s,"size":%s}`, p[0], p[1], p[2])
		edits = append(edits, configEdit{"add", "/linux/uidMappings", m}, configEdit{"add", "/linux/gidMappings", m})
	}
	return edits
}

// withBundle inserts --bundle for the commands that want one.
func withBundle(ts *script, args []string) []string {
	for i, a := range args {
		if a == "help" {
			return args
		}
		if a != "create" && a != "run" {
			continue
		}
		if slices.ContainsFunc(args, func(s string) bool { return s == "-b" || s == "--bundle" }) {
			return args
		}
		return slices.Concat(args[:i+1], []string{"--bundle", ts.Getenv("BUNDLE")}, args[i+1:])
	}
	return args
}

// execHusk runs husk and returns its exit code.
func execHusk(ts *script, args []string) int {
	start := time.Now()
	err := ts.Exec("husk", withBundle(ts, args)...)
	if took := time.Since(start); took > 2*commandTimeout { // the longest trace every call of a database
		ts.Fatalf("husk took %v", took)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// cmdHusk runs husk, which must succeed, or fail when negated.
func cmdHusk(ts *script, neg bool, args []string) {
	switch code := execHusk(ts, args); {
	case code == 0 && neg:
		ts.Fatalf("husk succeeded")
	case code != 0 && !neg:
		ts.Fatalf("husk: exit status %d", code)
	case code == 2 || code > 127 || code == 125:
		// 2 is a Go panic, 125 the shim's, above 127 a signal's.
		ts.Fatalf("husk: exit status %d is not a clean error", code)
	}
}

// cmdLook runs $BUNDLE with the probe: look TOPIC...
func cmdLook(ts *script, neg bool, args []string) {
	cmdConfig(ts, false, append([]string{"probe"}, args...))
	cmdHusk(ts, neg, []string{"run", "c1"})
}

// cmdCode checks an exit code: code N husk ARGS...
func cmdCode(ts *script, neg bool, args []string) {
	if len(args) < 2 || args[1] != "husk" {
		ts.Fatalf("usage: code N husk ARGS...")
	}
	if code := execHusk(ts, args[2:]); itoa(code) != args[0] {
		ts.Fatalf("exit status %d, not %s", code, args[0])
	}
}

// cmdWithin bounds a husk command: within MILLISECONDS husk ARGS...
func cmdWithin(ts *script, neg bool, args []string) {
	limit, err := strconv.Atoi(args[0])
	ts.Check(err)
	start := time.Now()
	cmdHusk(ts, neg, args[2:])
	if took := time.Since(start); took > patience(time.Duration(limit)*time.Millisecond) {
		ts.Fatalf("took %v", took)
	}
}

// cmdJSON compares a part of a JSON file: json FILE POINTER VALUE, where VALUE is
// JSON or /REGEXP/ on the part's JSON. Negated: the part does not exist.
func cmdJSON(ts *script, neg bool, args []string) {
	got, err := lookupJSON([]byte(ts.ReadFile(args[0])), args[1])
	if neg {
		if err == nil {
			ts.Fatalf("%s is there: %s", args[1], got)
		}
		return
	}
	ts.Check(err)
	want := args[2]
	if len(want) > 1 && want[0] == '/' && want[len(want)-1] == '/' {
		if !regexp.MustCompile(want[1 : len(want)-1]).MatchString(got) {
			ts.Fatalf("%s is %s, not like %s", args[1], got, want)
		}
		return
	}
	canonical, err := lookupJSON([]byte(want), "")
	ts.Check(err)
	if got != canonical {
		ts.Fatalf("%s is %s, not %s", args[1], got, canonical)
	}
}

func containerState(ts *script, id string) (status string, pid int) {
	var s struct {
		Status string
		Pid    int
	}
	out, err := exec.Command(runtimePath(), "state", id).Output()
	if err == nil {
		ts.Check(json.Unmarshal(out, &s))
	}
	return s.Status, s.Pid
}

// cmdPid sets a variable to a container's pid: pid ID [VARIABLE]
func cmdPid(ts *script, neg bool, args []string) {
	_, pid := containerState(ts, args[0])
	if pid == 0 {
		ts.Fatalf("container %s has no pid", args[0])
	}
	name := "PID"
	if len(args) > 1 {
		name = args[1]
	}
	ts.Setenv(name, itoa(pid))
}

// waitPatience is how long the commands that poll do so.
var waitPatience = patience(15 * time.Second)

// cmdWaitfor polls: waitfor STATUS ID, or waitfor file PATH, or waitfor gone PID.
func cmdWaitfor(ts *script, neg bool, args []string) {
	deadline := time.Now().Add(waitPatience)
	for !reached(ts, args[0], args[1]) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited too long")
		}
		time.Sleep(3 * time.Millisecond)
	}
}

func reached(ts *script, what, arg string) bool {
	switch what {
	case "file":
		_, err := os.Lstat(ts.MkAbs(arg))
		return err == nil
	case "gone":
		_, err := os.Lstat("/proc/" + arg)
		return err != nil
	}
	status, _ := containerState(ts, arg)
	return status == what
}

// cmdWaitgrep polls a file for a line: waitgrep PATTERN FILE
func cmdWaitgrep(ts *script, neg bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	deadline := time.Now().Add(waitPatience)
	for {
		data, _ := os.ReadFile(ts.MkAbs(args[1]))
		if pattern.Match(data) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no %q in %s:\n%s", args[0], args[1], data)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// cmdCapture sets a variable to what a group matches in the last output or in a
// file: capture VARIABLE REGEXP [FILE]
func cmdCapture(ts *script, neg bool, args []string) {
	file := "stdout"
	if len(args) > 2 {
		file = args[2]
	}
	m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile(file))
	if m == nil {
		ts.Fatalf("no match")
	}
	ts.Setenv(args[0], m[len(m)-1])
}

// cmdSignal sends a signal to a process of the box: signal NAME PID
func cmdSignal(ts *script, neg bool, args []string) {
	ts.Check(ts.Exec("kill", "-"+args[0], args[1]))
}

// cmdSame compares two values: same A B
func cmdSame(ts *script, neg bool, args []string) {
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q and %q", args[0], args[1])
	}
}

// cmdWaitlink waits until links are gone: waitlink gone NAME... The kernel takes its time
// to end a network namespace.
func cmdWaitlink(ts *script, neg bool, args []string) {
	deadline := time.Now().Add(waitPatience)
	for _, name := range args[1:] {
		for slices.Contains(linkNames(), name) {
			if time.Now().After(deadline) {
				ts.Fatalf("link %s is still there", name)
			}
			time.Sleep(3 * time.Millisecond)
		}
	}
}

// cmdSameIP compares two outputs of ip addr, without what changes by itself: link-local
// addresses come when the kernel has made sure of them, and a link is up when its other
// end has noticed.
func cmdSameIP(ts *script, neg bool, args []string) {
	clean := func(file string) string {
		text := regexp.MustCompile(`(?m)^ *inet6 fe80:.*\n.*\n`).ReplaceAllString(ts.ReadFile(file), "")
		return regexp.MustCompile(`<.*>|state \w+`).ReplaceAllStringFunc(text, func(s string) string {
			if strings.Contains(s, ",UP") {
				return "<UP>"
			}
			return ""
		})
	}
	if a, b := clean(args[0]), clean(args[1]); a != b {
		ts.Fatalf("now\n%s\nwas\n%s", a, b)
	}
}
