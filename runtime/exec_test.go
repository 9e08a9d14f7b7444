package runtime

import (
	"encoding/json/jsontext"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/cgroups"
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
		"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}]}`)}
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
	if p.Capabilities.Bounding[0] != "CAP_KILL" || *p.OOMScoreAdj != 5 || len(p.Rlimits) != 1 {
		t.Errorf("not the container's: %+v", p)
	}
	for text, want := range map[string]string{
		``:                                     "/process: is empty",
		`[]`:                                   "/process: is an array",
		`{"args":["x"],"cwd":"/"} {}`:          "/process: has something after",
		`{"args":["x"],"cwd":1}`:               "/process/cwd: is a number",
		`{"args":["x"],"cwd":"/","env":["A"]}`: "/process/env/0",
		`{"args":["x"],"cwd":"/","apparmorProfile":"p"}`: "/process/apparmorProfile: is not supported",
	} {
		write(text)
		if _, err := own().process(&ExecOptions{ProcessFile: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Which process is the payload, and where its maker is, decides what others can reach.
func TestDivide(t *testing.T) {
	const own, user = unix.CLONE_NEWPID | unix.CLONE_NEWNS, unix.CLONE_NEWUSER
	allow := &Step{Args: []string{"\x06\x00\x00\x00\x00\x00\xff\x7f"}}
	deny := &Step{Args: []string{"\x06\x00\x00\x00\x01\x00\x05\x00"}}
	for name, test := range map[string]struct {
		k                     kept
		nnp                   bool
		last, apart, filtered bool
	}{
		"plain":                       {kept{Namespaces: own}, false, true, true, false},
		"no pid namespace":            {kept{Namespaces: unix.CLONE_NEWNS}, false, false, false, false},
		"user namespace":              {kept{Namespaces: own | user}, false, true, false, false},
		"user namespace, pod's pids":  {kept{Namespaces: own | user, Joined: unix.CLONE_NEWPID}, false, false, false, false},
		"pod's pids":                  {kept{Namespaces: own, Joined: unix.CLONE_NEWPID}, false, true, true, false},
		"filter":                      {kept{Namespaces: own, Filter: allow}, false, true, false, true},
		"filter that denies":          {kept{Namespaces: own, Filter: deny}, false, false, false, false},
		"late filter":                 {kept{Namespaces: own, Filter: allow}, true, true, true, false},
		"late filter that denies":     {kept{Namespaces: own, Filter: deny}, true, true, true, false},
		"late filter, tracers":        {kept{Namespaces: own, Filter: allow, Tracers: true}, true, true, false, true},
		"late filter denies, tracers": {kept{Namespaces: own, Filter: deny, Tracers: true}, true, true, true, false},
	} {
		j := &joining{group: &cgroups.Group{}}
		j.divide(&test.k, &specs.Process{NoNewPrivileges: test.nnp})
		if (j.last != nil) != test.last || j.apart != test.apart || test.last && (j.last.Nums[1] == 1) != test.filtered {
			t.Errorf("%s: last %v, apart %v", name, j.last, j.apart)
		}
	}
}
