package runtime

import (
	"encoding/json/jsontext"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func sampleKept() *kept {
	return &kept{
		Namespaces: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Chroot: true, Keyring: true,
		Filter: filterStep(&seccomp.Filter{
			BPF: []byte("12345678"), Flags: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, ListenerPath: "/run/agent", ListenerMetadata: "m",
		}),
		Box: specs.Linux{
			Personality:  &specs.LinuxPersonality{Domain: specs.PerLinux32},
			MemoryPolicy: &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}},
		},
		Process: jsontext.Value(`{"args":["sh"]}`),
	}
}

func TestKeptSurvives(t *testing.T) {
	for _, want := range []*kept{sampleKept(), {Process: jsontext.Value{}}, {Unmapped: true, Process: jsontext.Value("{}")}} {
		got, err := decodeKept(want.encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(kept{})); d != "" {
			t.Error(d)
		}
	}
	b := sampleKept().encode()
	for n := range b {
		if _, err := decodeKept(b[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(b))
		}
	}
	if _, err := decodeKept(append(b, 0)); err == nil {
		t.Error("a byte too many was accepted")
	}
	if _, err := decodeKept([]byte{keptVersion + 1}); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Error(err)
	}
}

// The layout is that of the version: a container may be older than the husk that joins it.
func TestKeptLayout(t *testing.T) {
	want := "\x05\x80\x80\x88\x80\x02\x01\x00\x00\x01\aLINUX32\tMPOL_BIND\x010\x01\x13MPOL_F_STATIC_NODES\x0812345678\x08\x0a/run/agent\x01m\x0f{\"args\":[\"sh\"]}"
	if got := string(sampleKept().encode()); got != want {
		t.Errorf("%q: raise keptVersion, and this", got)
	}
}

// FuzzDecodeKept: the file is ours, but no content of it may panic.
func FuzzDecodeKept(f *testing.F) {
	f.Add(sampleKept().encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeKept(b)
		if err != nil {
			return
		}
		if _, err := decodeKept(k.encode()); err != nil {
			t.Fatal(err)
		}
	})
}

// The process is kept as it stands in the file, whatever stands around it.
func TestProcessSource(t *testing.T) {
	for config, want := range map[string]string{
		`{"ociVersion":"1.0.0","process" :  {"args": ["a", "}"] } , "root":{}}`: `{"args": ["a", "}"] }`,
		`{"process":{"cwd":"\"/:"}}`: `{"cwd":"\"/:"}`,
		`{"process":null}`:           ``,
		`{}`:                         ``,
	} {
		c, err := decodeConfig([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		if string(c.process) != want {
			t.Errorf("%s: %q", config, c.process)
		}
	}
}
