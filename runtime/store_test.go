package runtime

import (
	"encoding/json/jsontext"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func testRuntime(t *testing.T) *Runtime {
	t.Helper()
	return &Runtime{Root: filepath.Join(t.TempDir(), "root")}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"a", "A-b_c+d.e", "...", "0", strings.Repeat("x", 255)} {
		if err := checkID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a b", "ä", "a\x00", "a\n", "@seccomp", strings.Repeat("x", 256)} {
		if err := checkID(id); err == nil {
			t.Errorf("%q was accepted", id)
		}
	}
}

func TestClaimIsExclusive(t *testing.T) {
	r := testRuntime(t)
	e, err := r.claim("a")
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	me, _ := self()
	if err := e.write(&record{Version: recordVersion, ID: "a", Phase: phaseCreating, Creator: me}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.claim("a"); !errors.Is(err, ErrExist) {
		t.Errorf("second claim: %v", err)
	}
	if s, err := r.State("a"); err != nil || s.Status != "creating" {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestDeadCreatorIsTakenOver(t *testing.T) {
	r := testRuntime(t)
	e, err := r.claim("a")
	if err != nil {
		t.Fatal(err)
	}
	me, _ := self()
	me.Start++ // the same pid, another process
	if err := e.write(&record{Version: recordVersion, ID: "a", Phase: phaseCreating, Creator: me}); err != nil {
		t.Fatal(err)
	}
	e.close()
	if s, err := r.State("a"); err != nil || s.Status != "stopped" || s.PID != 0 {
		t.Errorf("state %+v, %v", s, err)
	}
	e, err = r.claim("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.remove(); err != nil {
		t.Error(err)
	}
	e.close()
}

func TestRemainsOfKilledCreate(t *testing.T) {
	r := testRuntime(t)
	dir := filepath.Join(r.Root, "a")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".state.json.tmp1"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := r.List(); err != nil || len(l) != 0 {
		t.Errorf("list: %v, %v", l, err)
	}
	if err := r.Delete("a", false); !errors.Is(err, ErrNotExist) {
		t.Errorf("delete: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	if err := r.Delete("a", true); err != nil {
		t.Errorf("delete --force of nothing: %v", err)
	}
}

func TestStateIsPrivate(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	r := testRuntime(t)
	e, err := r.claim("a")
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	if err := e.write(&record{Version: recordVersion, ID: "a"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{r.Root: 0o700, r.Root + "/a": 0o700, r.Root + "/a/state.json": 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

func TestHostileStateDirectory(t *testing.T) {
	r := testRuntime(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.MkdirAll(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(r.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, r.Root+"/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.claim("a"); err == nil {
		t.Error("claim followed a symbolic link")
	}
	if err := os.Chmod(r.Root, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := r.claim("b"); err == nil || !strings.Contains(err.Error(), "is not ours alone: mode 0777") {
		t.Errorf("claim in a world-writable root: %v", err)
	}
	if err := os.Chmod(r.Root, 0o1777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := r.claim("b"); err == nil {
		t.Error("claim in a sticky world-writable root")
	}
	if os.Geteuid() != 0 {
		return
	}
	// A record of somebody else would have us run its hooks.
	if err := os.Chmod(r.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.Root+"/c", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.Root+"/c", 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete("c", true); err == nil || !strings.Contains(err.Error(), "owner 65534") {
		t.Errorf("delete of somebody else's: %v", err)
	}
	if _, err := r.claim("c"); err == nil {
		t.Error("claim took over somebody else's directory")
	}
}

func TestBrokenRecords(t *testing.T) {
	r := testRuntime(t)
	dir := filepath.Join(r.Root, "a")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", `{"version":99,"id":"a"}`, `{"version":1,"id":"b"}`, `{"version":1,"id":"a"}x`} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.State("a"); err == nil || errors.Is(err, ErrNotExist) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLockWaits(t *testing.T) {
	r := testRuntime(t)
	e, err := r.claim("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.write(&record{Version: recordVersion, ID: "a"}); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		e.close()
	}()
	other, err := r.openLocked("a", true)
	if err != nil {
		t.Fatal(err)
	}
	other.close()
}

func TestParseStat(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"
	for _, comm := range []string{"sh", "a) S 1 (", "a b", ")", "\n"} {
		start, flags, err := parseStat([]byte("42 (" + comm + ")" + tail))
		if err != nil || start != 4711 || flags != 6 {
			t.Errorf("%q: %d %d %v", comm, start, flags, err)
		}
	}
	for _, text := range []string{"", "42", "42 (sh", "42 (sh) S 1", "42 (sh) SS" + tail} {
		if _, _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) S 1 () S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, _ = parseStat(b)
	})
}

func TestSelfIsAlive(t *testing.T) {
	me, err := self()
	if err != nil || !me.alive() {
		t.Errorf("%+v %v", me, err)
	}
	fd, err := me.handle()
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	other := me
	other.Start--
	if _, err := other.handle(); err != unix.ESRCH {
		t.Errorf("a reused pid: %v", err)
	}
	other = me
	other.NS++
	if _, err := other.handle(); err != errForeign || other.alive() || !other.foreign() {
		t.Errorf("a number of another PID namespace: %v", err)
	}
	if (process{}).alive() {
		t.Error("pid 0 lives")
	}
}

func TestRecordSurvives(t *testing.T) {
	seconds := 5
	want := &record{
		Version: recordVersion, OCIVersion: "1.3.0", ID: "a", Phase: phaseCreated,
		Creator: process{1, 2, 3}, Init: process{3, 1 << 60, 1 << 40}, Bundle: "/b\"\n\x00", Rootfs: "/r",
		Created: time.Unix(1, 5).UTC(), Owner: 1000, Annotations: map[string]string{"k": "v", "": "ü"},
		Cgroup: "/c", CgroupMade: []string{"/c", "/c/d"}, Rdt: &resctrl.Use{Class: "a", Own: true, Made: true, Monitor: "m", Before: "L3:0=f\n"}, NoProcess: true, StartHooks: []int{0, 7},
		Poststart: []specs.Hook{{Path: "/h", Args: []string{"a", ""}, Env: []string{"A=b"}, Timeout: &seconds}, {Path: "/i"}},
		Poststop:  []specs.Hook{{Path: "/p"}},
	}
	want.Bundle = "/b\"\n" // NUL is refused by the config already
	b := want.encode()
	if !jsontext.Value(b).IsValid() {
		t.Fatalf("%s", b)
	}
	got, err := decodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(record{}, resctrl.Use{})); d != "" {
		t.Error(d)
	}
	empty := &record{Created: time.Unix(0, 0).UTC()}
	if got, err := decodeRecord(empty.encode()); err != nil || !cmp.Equal(got, empty, cmp.AllowUnexported(record{})) {
		t.Errorf("%+v %v", got, err)
	}
}

// FuzzRecord: state.json lies in a private directory, but a full disk or a crash of the
// machine may have damaged it.
func FuzzRecord(f *testing.F) {
	f.Add((&record{Created: time.Unix(0, 0)}).encode())
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = decodeRecord(b) })
}
