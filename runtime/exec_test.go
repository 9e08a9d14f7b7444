package runtime

import (
	"encoding/binary"
	"encoding/json/jsontext"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Only what can be read in one way is a number, and it is never 0 by accident.
func TestParseID(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "1": 1, "65534": 65534, "4294967294": 4294967294} {
		if got, err := parseID(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "00", "01", "+1", "-0", "-1", " 1", "1 ", "1\n", "1e3", "0x1", "0b1", "1_000", "１", "root",
		"4294967295", "4294967296", "18446744073709551616", "1.0",
	} {
		if got, err := parseID(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func own() *kept {
	return &kept{Process: jsontext.Value(`{"terminal":true,"consoleSize":{"height":1,"width":2},"user":{"uid":1,"gid":2,"additionalGids":[3]},
		"args":["init"],"env":["A=1"],"cwd":"/home","capabilities":{"bounding":["CAP_KILL"],"inheritable":["CAP_CHOWN"]},"oomScoreAdj":5,
		"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}],"scheduler":{"policy":"SCHED_IDLE"},
		"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":1},"execCPUAffinity":{"final":"0"}}`)}
}

func TestExecProcess(t *testing.T) {
	oom := 5
	want := &specs.Process{
		User: specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{3, 9}}, Args: []string{"true"}, Env: []string{"A=1", "B=2"}, Cwd: "/tmp",
		Capabilities: &specs.LinuxCapabilities{
			Bounding: []string{"CAP_KILL", "CAP_CHOWN", "CAP_SYS_TIME"}, Effective: []string{"CAP_CHOWN", "CAP_SYS_TIME"},
			Permitted: []string{"CAP_CHOWN", "CAP_SYS_TIME"}, Inheritable: []string{"CAP_CHOWN"}, Ambient: []string{"CAP_CHOWN"},
		},
		OOMScoreAdj: &oom, NoNewPrivileges: true, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 1}},
		Scheduler: &specs.Scheduler{Policy: specs.SchedIdle}, IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE, Priority: 1},
		ExecCPUAffinity: &specs.CPUAffinity{Final: "0"},
	}
	got, err := own().process(&ExecOptions{
		Args: []string{"true"}, Env: []string{"B=2"}, Cwd: "/tmp", User: "7:8", AdditionalGIDs: []string{"9"},
		Caps: []string{"CAP_CHOWN", "CAP_SYS_TIME"}, NoNewPrivs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestExecProcessFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.json")
	write := func(text string) { _ = os.WriteFile(path, []byte(text), 0o600) }
	write(`{"args":["x"],"cwd":"/","user":{"uid":4}}`)
	p, err := own().process(&ExecOptions{ProcessFile: path, User: "9", Args: []string{"y"}})
	if err != nil || p.Args[0] != "x" || p.User.UID != 4 || p.Terminal || len(p.Env) != 0 || len(p.User.AdditionalGids) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if p.Capabilities.Bounding[0] != "CAP_KILL" || *p.OOMScoreAdj != 5 || len(p.Rlimits) != 1 ||
		p.Scheduler == nil || p.IOPriority == nil || p.ExecCPUAffinity == nil {
		t.Errorf("not the container's: %+v", p)
	}
	for text, want := range map[string]string{
		``:                                     "/process: is empty",
		`[]`:                                   "/process: is an array",
		`{"args":["x"],"cwd":"/"} {}`:          "/process: has something after",
		`{"args":["x"],"cwd":1}`:               "/process/cwd: is a number",
		`{"args":["x"],"cwd":"/","env":["A"]}`: "/process/env/0",
		`{"args":["x"],"cwd":"/","apparmorProfile":"a\nb"}`: "/process/apparmorProfile: ",
	} {
		write(text)
		if _, err := own().process(&ExecOptions{ProcessFile: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Which process is the payload, and when it gets its filter, decides what others can reach.
func TestDivide(t *testing.T) {
	const allowing = "\x06\x00\x00\x00\x00\x00\xff\x7f"
	allow := filterStep(&seccomp.Filter{BPF: []byte(allowing)})
	deny := filterStep(&seccomp.Filter{BPF: []byte("\x06\x00\x00\x00\x01\x00\x05\x00")})
	listening := filterStep(&seccomp.Filter{BPF: []byte(allowing), Flags: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER})
	asking := filterStep(&seccomp.Filter{BPF: []byte("\x06\x00\x00\x00\x00\x00\xc0\x7f"), Flags: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER})
	const admin = 1 << unix.CAP_SYS_ADMIN
	for name, test := range map[string]struct {
		k        kept
		nnp      bool
		policy   specs.LinuxSchedulerPolicy
		filtered bool
		extra    int64
	}{
		"plain":                   {kept{}, false, "", false, 0},
		"filter":                  {kept{Filter: allow}, false, "", true, 0},
		"filter, nnp":             {kept{Filter: allow}, true, "", true, 0},
		"filter that denies":      {kept{Filter: deny}, false, "", false, admin},
		"filter that denies, nnp": {kept{Filter: deny}, true, "", false, 0},
		"real time":               {kept{Filter: allow}, false, specs.SchedFIFO, true, 0},
		"deadline":                {kept{Filter: deny}, false, specs.SchedDeadline, false, admin | 1<<unix.CAP_SYS_NICE},
		// Its filter is the last thing that comes before the payload is born.
		"listener":                         {kept{Filter: listening}, false, "", true, admin},
		"listener, nnp":                    {kept{Filter: listening}, true, "", true, 0},
		"listener that reports everything": {kept{Filter: asking}, false, "", false, admin},
	} {
		p := &specs.Process{NoNewPrivileges: test.nnp}
		if test.policy != "" {
			p.Scheduler = &specs.Scheduler{Policy: test.policy}
		}
		j := &joining{}
		j.divide(&test.k, p, true)
		if (j.last.Nums[1] == 1) != test.filtered || j.last.Nums[2] != test.extra {
			t.Errorf("%s: %v", name, j.last.Nums)
		}
		j = &joining{}
		if j.divide(&test.k, &specs.Process{}, false); j.last != nil {
			t.Errorf("%s: not hidden, but divided", name)
		}
	}
}

// What is not due, or is about others than our children, ends the conversation.
func TestExecHears(t *testing.T) {
	stranger := []byte{1, 0, 0, 0}
	plain, terminal := joining{}, joining{terminal: true}
	listening, own := joining{agent: &listening{}}, joining{agent: &listening{}, last: &Step{}}
	for name, test := range map[string]struct {
		due     []byte
		kind    byte
		payload []byte
	}{
		"ready without a terminal": {plain.script(), msgReady, nil},
		"exec before ready":        {terminal.script(), msgExec, stranger},
		"exec again":               {nil, msgExec, stranger},
		"a stranger":               {plain.script(), msgExec, stranger},
		"ourselves":                {plain.script(), msgExec, binary.LittleEndian.AppendUint32(nil, uint32(os.Getpid()))},
		"nobody":                   {plain.script(), msgExec, []byte{0, 0, 0, 0}},
		"no pid":                   {plain.script(), msgExec, []byte{1}},
		"a message of ours":        {plain.script(), msgGo, nil},
		"a listener of no filter":  {plain.script(), msgListener, stranger},
		"a listener too early":     {listening.script(), msgListener, stranger},
		"exec before the listener": {own.script(), msgExec, stranger},
		"a stranger's listener":    {own.script(), msgListener, stranger},
	} {
		conn := namespaces.FromFD(-1)
		conn.Sender = 1
		j := &joining{due: test.due, last: &Step{}, child: &namespaces.Process{PID: 7}, conn: conn}
		if err := j.hear(test.kind, test.payload, nil); err == nil || j.proc != nil {
			t.Errorf("%s was believed", name)
		}
	}
}
