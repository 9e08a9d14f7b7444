package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs/image"
	made "github.com/huskrun/husk/rootfs/image/imagetest"
	"github.com/huskrun/husk/rootfs/image/unpack"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The unpacker is this test binary.
func TestMain(m *testing.M) {
	if os.Args[0] == "husk-unpacker" {
		if err := unpack.Serve(namespaces.FromFD(3)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if path := os.Getenv(envOpen); path != "" {
		s := emptyStore()
		s.Dir = os.Getenv(envStore)
		if _, err := s.Open(context.Background(), path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// With these it is a caller that opens an image.
const (
	envOpen  = "HUSK_TEST_OPEN"
	envStore = "HUSK_TEST_STORE"
)

const firstID = 100000

// store is an empty one. With root's rights its files belong to users of a mapping.
func store(t testing.TB) *Images {
	t.Helper()
	s := emptyStore()
	dir := t.TempDir()
	if !attributes(dir) {
		var err error
		if dir, err = os.MkdirTemp("/var/tmp", "images"); err != nil || !attributes(dir) {
			t.Skip("neither the temporary directory nor /var/tmp has user.* attributes, which mark opaque directories: ", err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	s.Dir = filepath.Join(dir, "images")
	return s
}

// attributes says whether files in a directory can have any of their users'.
func attributes(dir string) bool { return unix.Setxattr(dir, "user.husk", []byte("y"), 0) == nil }

func emptyStore() *Images {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	host, size := uint32(os.Geteuid()), uint32(1)
	if host == 0 {
		host, size = firstID, 65536
	}
	maps := []specs.LinuxIDMapping{{HostID: host, Size: size}}
	return &Images{Program: exe, UIDMaps: maps, GIDMaps: maps}
}

// base and top are layers with what is hard about layers.
func base(t testing.TB) []byte {
	return made.Layer(t,
		made.Dir("./", 0o700),
		made.Dir("bin/", 0o755),
		made.File("bin/tool", "tool").Of(1000, 100),
		made.Dir("tmp", 0o1777),
		made.Dir("hidden", 0o755), made.File("hidden/file", "old"),
		made.Dir("opaque", 0o755), made.File("opaque/file", "old"),
		made.Dir("replaced", 0o750), made.File("replaced/file", "old"),
		made.File("gone", "old"),
		made.Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: "bin/same", Linkname: "bin/tool", Mode: 0o644, Uid: 1000, Gid: 100, ModTime: made.When}},
		made.Link(tar.TypeSymlink, "sh", "/bin/tool"),
		made.Link(tar.TypeSymlink, "up", "../../../../../../etc"),
		made.File(strings.Repeat("long/", 40)+strings.Repeat("n", 200), "far"),
		made.File("zeros", strings.Repeat("\x00", 4<<20)+"end"),
		made.File("set", "id").With("user.mine", "yes").With("user.overlay.redirect", "/elsewhere"),
		made.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3, ModTime: made.When}},
		made.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600, ModTime: made.When}},
		made.Link(tar.TypeLink, "null2", "null"),
	)
}

func top(t testing.TB) []byte {
	return made.Layer(t,
		made.File("tmp/new", "new"), // without an entry of its directory
		made.File(".wh.gone", ""), made.File(".wh.hidden", ""),
		made.File("opaque/new", "new"), made.File("opaque/.wh..wh..opq", ""),
		made.File(".wh.replaced", ""), made.Dir("replaced", 0o711), made.File("replaced/new", "new"),
	)
}

var config = v1.ImageConfig{Env: []string{"A=b"}, Entrypoint: []string{"/bin/tool"}, Cmd: []string{"x"}, User: "1000:100", WorkingDir: "/tmp"}

// images are the same image in all forms.
func images(t testing.TB) map[string]string {
	dir := t.TempDir() // nobody else may read it, not even the unpacker
	layers := [][]byte{base(t), top(t)}
	return map[string]string{
		"layout":  made.OCI(t, "v1", config, made.Gzip, layers...).Dir(t, dir+"/layout"),
		"archive": made.OCI(t, "v1", config, made.Zstd, layers...).Archive(t, dir+"/oci.tar") + ":v1",
		"plain":   made.OCI(t, "", config, nil, layers...).Archive(t, dir+"/plain.tar"),
		"docker":  made.Docker(t, "tool:v1", config, layers...).Archive(t, dir+"/docker.tar") + ":tool:v1",
	}
}

// TestImages unpacks, and looks at the layers through an overlay, as a container would.
func TestImages(t *testing.T) {
	for form, path := range images(t) {
		t.Run(form, func(t *testing.T) {
			s := store(t)
			img, err := s.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			want := image.Config{Env: config.Env, Entrypoint: config.Entrypoint, Cmd: config.Cmd, User: config.User, WorkingDir: config.WorkingDir}
			if diff := cmp.Diff(want, img.Config); diff != "" {
				t.Error(diff)
			}
			if len(img.Layers) != 2 || !strings.HasPrefix(img.Digest, "sha256:") {
				t.Fatalf("%+v", img)
			}
			if os.Geteuid() == 0 {
				merged := t.TempDir()
				mount(t, merged, img.Layers)
				look(t, merged)
			}
		})
	}
}

// mount mounts the layers as a container's root.
func mount(t testing.TB, on string, layers []string) {
	t.Helper()
	options := "userxattr,lowerdir=" + strings.Join(layers, ":")
	if err := unix.Mount("overlay", on, "overlay", unix.MS_RDONLY, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(on, unix.MNT_DETACH) })
}

func look(t *testing.T, root string) {
	t.Helper()
	for name, want := range map[string]string{
		"bin/tool": "tool", "bin/same": "tool", "opaque/new": "new", "replaced/new": "new", "tmp/new": "new", "set": "id",
		strings.Repeat("long/", 40) + strings.Repeat("n", 200): "far",
		"gone": "", "hidden": "", "opaque/file": "", "replaced/file": "", "null": "", "null2": "",
	} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if string(b) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for name, want := range map[string]string{"sh": "/bin/tool", "up": "../../../../../../etc"} {
		if to, err := os.Readlink(filepath.Join(root, name)); to != want || err != nil {
			t.Errorf("%s -> %q, %v", name, to, err)
		}
	}
	var st unix.Stat_t
	for name, want := range map[string][3]uint32{
		"": {0o755, firstID, firstID}, "bin/tool": {0o644, firstID + 1000, firstID + 100},
		"tmp": {0o1777, firstID, firstID}, "replaced": {0o711, firstID, firstID}, "fifo": {0o600, firstID, firstID},
	} {
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil || [3]uint32{st.Mode & 0o7777, st.Uid, st.Gid} != want {
			t.Errorf("%s: mode %o, %d:%d, %v, want %o, %d:%d", name, st.Mode, st.Uid, st.Gid, err, want[0], want[1], want[2])
		}
	}
	if err := unix.Stat(filepath.Join(root, "zeros"), &st); err != nil || st.Size != 4<<20+3 || st.Blocks*512 > 1<<20 || st.Mtim.Sec != made.When.Unix() {
		t.Errorf("zeros: %d bytes in %d blocks, of %d: %v", st.Size, st.Blocks, st.Mtim.Sec, err)
	}
	b := make([]byte, 100)
	n, _ := unix.Lgetxattr(filepath.Join(root, "set"), "user.mine", b)
	if string(b[:max(n, 0)]) != "yes" {
		t.Errorf("user.mine: %q", b[:max(n, 0)])
	}
}

// TestImagesKnown: an image is unpacked once, whatever its form, and opened the next time
// without the unpacker.
func TestImagesKnown(t *testing.T) {
	paths := images(t)
	s := store(t)
	time.Sleep(2100 * time.Millisecond) // until a change of the files could be told
	first, err := s.Open(t.Context(), paths["layout"])
	if err != nil {
		t.Fatal(err)
	}
	layers, _ := filepath.Glob(s.Dir + "/*/layers")
	before := inodes(t, layers[0])
	docker, err := s.Open(t.Context(), paths["docker"])
	if err != nil || !cmp.Equal(docker.Layers, first.Layers) {
		t.Fatalf("%v: %v instead of %v", err, docker, first.Layers)
	}
	if diff := cmp.Diff(before, inodes(t, layers[0])); diff != "" {
		t.Errorf("what was there has changed:\n%s", diff)
	}
	without := *s
	without.Program = nil
	again, err := without.Open(t.Context(), paths["layout"])
	if diff := cmp.Diff(first, again); err != nil || diff != "" {
		t.Error(err, diff)
	}
	index := filepath.Join(paths["layout"], "index.json")
	b, _ := os.ReadFile(index)
	if err := os.WriteFile(index, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := without.Open(t.Context(), paths["layout"]); !errors.Is(err, errNoUnpacker) {
		t.Errorf("after a change of the image: %v", err)
	}
}

// clean: nothing of a layer is there, and no process either.
func clean(t testing.TB, dir string) {
	t.Helper()
	for _, pattern := range []string{"/*/layers/*", "/*/new/*", "/*/images/*"} {
		if list, _ := filepath.Glob(dir + pattern); len(list) > 0 {
			t.Errorf("left: %v", list)
		}
	}
}

// TestImagesBad: what is refused, and what is said about it.
func TestImagesBad(t *testing.T) {
	one := func(entries ...made.Entry) made.Files {
		return made.OCI(t, "", config, made.Gzip, made.Layer(t, entries...))
	}
	change := func(f made.Files, contains, from, to string) made.Files {
		for name, b := range f {
			if strings.Contains(name, contains) {
				f[name] = bytes.Replace(b, []byte(from), []byte(to), 1)
			}
		}
		return f
	}
	// largest is the name of the largest blob, the layer.
	largest := func(f made.Files) (name string) {
		for n, b := range f {
			if len(b) > len(f[name]) {
				name = n
			}
		}
		return name
	}
	swap := func(f made.Files, b []byte) made.Files { f[largest(f)] = b; return f }
	random := make([]byte, 64<<10)
	rand.NewChaCha8([32]byte{}).Read(random)
	noise := made.File("noise", string(random)+"the end")
	cut := func(f made.Files) made.Files { return swap(f, f[largest(f)][:len(f[largest(f)])/2]) }
	unpacked := made.OCI(t, "", config, nil, made.Layer(t, noise))
	for name, c := range map[string]struct {
		files      made.Files
		ref        string
		text, hint string
	}{
		"up":             {files: one(made.File("a/../../x", "")), text: "leads out of the image"},
		"hard link":      {files: one(made.Link(tar.TypeLink, "shadow", "../../../../etc/shadow")), text: "no such file"},
		"hard link abs":  {files: one(made.Link(tar.TypeLink, "shadow", "/etc/shadow")), text: "no such file"},
		"whiteout of up": {files: one(made.File("a/.wh...", "")), text: "whiteout"},
		"owner":          {files: one(made.File("x", "").Of(70000, 0)), text: "belongs to user 70000", hint: "/etc/subuid"},
		"lying layer":    {files: change(made.OCI(t, "", config, nil, made.Layer(t, noise)), "blobs", "the end", "The end"), text: "has the digest", hint: "damaged or forged"},
		"cut layer":      {files: cut(made.OCI(t, "", config, nil, made.Layer(t, noise))), text: "unexpected EOF"},
		"cut gzip":       {files: cut(one(noise)), text: "unexpected EOF"},
		"no gzip":        {files: swap(one(noise), append([]byte{0x1f, 0x8b}, make([]byte, 100)...)), text: "gzip"},
		"more than said": {files: swap(one(noise), append(bytes.Clone(one(noise)[largest(one(noise))]), make([]byte, 1<<20)...)), text: "layer sha256"},
		"index":          {files: change(one(noise), "index.json", "{", "["), text: "index.json", hint: "damaged"},
		"manifest":       {files: change(one(noise), "blobs", `"schemaVersion":2`, `"schemaVersion":3`), text: "has the digest"},
		"diff_ids":       {files: change(made.Docker(t, "a", config, made.Layer(t, noise)), ".json", "sha256:", "sha256:0"), text: ""},
		"no layer":       {files: func() made.Files { f := one(noise); delete(f, largest(f)); return f }(), text: "does not exist"},
		"no such name":   {files: made.OCI(t, "v1", config, made.Gzip, made.Layer(t, noise)), ref: ":v2", text: `no image "v2"`, hint: "v1"},
		"nothing":        {files: made.Files{"README": []byte("hello")}, text: "not an image", hint: "OCI layout"},
		"lying config":   {files: change(made.Docker(t, "a", config, made.Layer(t, noise)), ".json", `"A=b"`, `"A=c"`), text: "has the digest"},
		"path of layer":  {files: change(made.Docker(t, "a", config, made.Layer(t, noise)), "manifest.json", `"Layers":["`, `"Layers":["../../../etc/passwd","`), text: "diff_ids"},
		"lying diff_id":  {files: made.OCI(t, "", config, func(t made.TB, b []byte) []byte { return made.Gzip(t, made.Layer(t, noise)) }, unpacked[largest(unpacked)][:512]), text: "has the digest"},
	} {
		for _, form := range []string{"dir", "tar"} {
			if name == "owner" && os.Geteuid() != 0 {
				continue // one id is everybody's
			}
			t.Run(name+"/"+form, func(t *testing.T) {
				path := t.TempDir() + "/image"
				if form == "dir" {
					c.files.Dir(t, path)
				} else {
					c.files.Archive(t, path)
				}
				s := store(t)
				_, err := s.Open(t.Context(), path+c.ref)
				var e *Error
				if !errors.As(err, &e) || !strings.Contains(err.Error(), c.text) || !strings.Contains(e.Hint, c.hint) || !strings.Contains(err.Error(), path) {
					t.Errorf("%v, hint %q, instead of %q, %q", err, e.Hint, c.text, c.hint)
				}
				t.Log(err)
				clean(t, s.Dir)
			})
		}
	}
}

// large is an image that takes a moment.
func large(t testing.TB) string {
	var entries []made.Entry
	for i := range 300 {
		entries = append(entries, made.File(strings.Repeat("d/", i%7)+"f"+strconv.Itoa(i), strings.Repeat("x", 1000)))
	}
	return made.OCI(t, "", config, made.Gzip, base(t), made.Layer(t, entries...), top(t)).Archive(t, t.TempDir()+"/image")
}

// TestImagesKilled ends the caller's patience, and kills the caller, at moments spread over
// the work. Nothing goes on then, and the next one finishes it.
func TestImagesKilled(t *testing.T) {
	path := large(t)
	for name, stop := range map[string]func(s *Images, after time.Duration) error{
		"patience": func(s *Images, after time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			_, err := s.Open(ctx, path)
			if errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		},
		"caller": func(s *Images, after time.Duration) error {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{envOpen + "=" + path, envStore + "=" + s.Dir}
			if err := cmd.Start(); err != nil {
				return err
			}
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			return orphans(5 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			s := store(t)
			for i := range 25 {
				if err := stop(s, time.Duration(i)*4*time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			img, err := s.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if found, _ := filepath.Glob(img.Layers[1] + "/f*"); len(found) < 40 {
				t.Errorf("%d files", len(found))
			}
			if list, _ := filepath.Glob(s.Dir + "/*/new/*"); len(list) > 0 {
				t.Errorf("left: %v", list)
			}
		})
	}
}

// orphans reaps those that a dead child has left, which end by themselves.
func orphans(patience time.Duration) error {
	var late atomic.Bool
	timer := time.AfterFunc(patience, func() { late.Store(true) })
	defer timer.Stop()
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case pid == 0 && late.Load():
			return errors.New("an unpacker outlives its caller")
		case pid == 0:
			time.Sleep(time.Millisecond)
		}
	}
}

// TestImagesUser runs others as an ordinary user, with no id but its own.
func TestImagesUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if list, err := user(t, "^TestImages(|Known|Bad|Crowd)$"); err != nil {
		t.Errorf("%v:\n%s", err, list)
	}
}

// user runs tests as a user that has files and a directory for them.
func user(t *testing.T, tests string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chown(dir, 1234, 1234), os.Chmod(filepath.Dir(dir), 0o711)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", tests)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestImagesCrowd: many want one image at the same time; it is unpacked once.
func TestImagesCrowd(t *testing.T) {
	path := images(t)["docker"]
	s := store(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if img, err := s.Open(t.Context(), path); err != nil || len(img.Layers) != 2 {
				t.Error(img, err)
			}
		})
	}
	wg.Wait()
	if list, _ := filepath.Glob(s.Dir + "/*/*/*"); len(list) > 3 {
		t.Error(list)
	}
}

// TestImagesBomb: neither a large layer, nor large files that take no room in it, nor a
// full disk.
func TestImagesBomb(t *testing.T) {
	zeros := make([]byte, 16<<20)
	for name, c := range map[string]struct {
		layers [][]byte
		text   string
	}{
		"file":     {[][]byte{made.Layer(t, made.File("huge", string(zeros[:10<<20])))}, "huge: no room"},
		"stream":   {[][]byte{append(made.Layer(t, made.File("x", "x")), zeros...)}, "more than"},
		"files":    {[][]byte{made.Layer(t, slices.Repeat([]made.Entry{made.File("huge", string(zeros[:1<<20]))}, 12)...)}, "more than"},
		"together": {[][]byte{made.Layer(t, made.File("a", strings.Repeat("x", 5<<20))), made.Layer(t, made.File("b", strings.Repeat("y", 5<<20)))}, "no room"},
		"inodes":   {[][]byte{made.Layer(t, many(2000)...)}, "no room"},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			path := made.OCI(t, "", config, made.Gzip, c.layers...).Archive(t, t.TempDir()+"/image")
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,nr_inodes=1000,mode=711"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
			s := store(t)
			s.Dir = dir + "/images"
			s.Limit = 12 << 20
			_, err := s.Open(t.Context(), path)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.text) || e.Hint == "" {
				t.Errorf("%v instead of %q", err, c.text)
			}
			t.Log(err)
			clean(t, s.Dir)
		})
	}
}

// TestImagesMemory: what the unpacker has to keep in mind of a layer, as here the headers
// of directories, is bounded.
func TestImagesMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := made.Dir("d", 0o755)
	dir.PAXRecords = map[string]string{"comment": strings.Repeat("x", 1<<19)}
	piece := made.Layer(t, slices.Repeat([]made.Entry{dir}, 32)...)
	// gzip members may follow each other, and so do the entries in them.
	pack := func(t made.TB, b []byte) []byte {
		return slices.Concat(bytes.Repeat(made.Gzip(t, b[:len(b)-1024]), 60), made.Gzip(t, b[len(b)-1024:]))
	}
	path := made.OCI(t, "", config, pack, piece).Archive(t, t.TempDir()+"/image")
	s := store(t)
	if _, err := s.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "bytes of memory") {
		t.Error(err)
	}
	if _, err := s.Open(t.Context(), images(t)["layout"]); err != nil {
		t.Error(err)
	}
}

// TestImagesPrivate: where the files of an image are the caller's own, nobody else gets at
// what is set-user-ID among them.
func TestImagesPrivate(t *testing.T) {
	s := store(t)
	s.UIDMaps = []specs.LinuxIDMapping{{ContainerID: 5, HostID: uint32(os.Geteuid()), Size: 1}}
	s.GIDMaps = []specs.LinuxIDMapping{{ContainerID: 5, HostID: uint32(os.Getegid()), Size: 1}}
	if _, err := s.Open(t.Context(), images(t)["layout"]); err != nil {
		t.Fatal(err)
	}
	list, _ := filepath.Glob(s.Dir + "/*")
	if st, err := os.Stat(list[0]); err != nil || st.Mode().Perm() != 0o700 {
		t.Error(st, err)
	}
}

func many(n int) (list []made.Entry) {
	for i := range n {
		list = append(list, made.File("f"+strconv.Itoa(i), ""))
	}
	return list
}

// TestImagesAttack: whatever links say, nothing outside of the layer is written, read,
// linked or removed. Each attack may fail, or hit something in the layer.
func TestImagesAttack(t *testing.T) {
	can := t.TempDir()
	secret := can + "/secret"
	up := strings.Repeat("../", 20) + can[1:]
	chain := []made.Entry{made.Link(tar.TypeSymlink, "l0", can)}
	for i := range 50 {
		chain = append(chain, made.Link(tar.TypeSymlink, "l"+strconv.Itoa(i+1), "l"+strconv.Itoa(i)))
	}
	in := func(to string) made.Entry { return made.Link(tar.TypeSymlink, "d", to) }
	for name, entries := range map[string][]made.Entry{
		"write":        {in(can), made.File("d/secret", "overwritten")},
		"write up":     {in(up), made.File("d/secret", "overwritten")},
		"write slash":  {made.File(secret, "overwritten")},
		"through file": {made.Link(tar.TypeSymlink, "f", secret), made.File("f", "overwritten")},
		"chain":        append(chain, made.File("l50/secret", "overwritten")),
		"hard link":    {in(can), made.Link(tar.TypeLink, "stolen", "d/secret")},
		"link of link": {made.Link(tar.TypeSymlink, "f", secret), made.Link(tar.TypeLink, "g", "f"), made.File("g", "overwritten")},
		"whiteout":     {in(can), made.File("d/.wh.secret", "")},
		"opaque":       {in(can), made.File("d/.wh..wh..opq", "")},
		"directory":    {in(can), made.Dir("d", 0o777), made.Dir("d/new", 0o777)},
		"link":         {in(can), made.Link(tar.TypeSymlink, "d/secret", "x")},
		"replace":      {made.Dir("d", 0o755), in(can), made.File("d/new", "new")},
		"process":      {in("/proc/self/root" + can), made.File("d/secret", "overwritten")},
		"descriptor":   {in("/proc/self/fd/3"), made.File("d/secret", "overwritten")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := inodes(t, can)
			s := store(t)
			path := made.OCI(t, "", config, nil, base(t), made.Layer(t, entries...)).Archive(t, t.TempDir()+"/image")
			img, err := s.Open(t.Context(), path)
			t.Log(err)
			if diff := cmp.Diff(before, inodes(t, can)); diff != "" {
				t.Errorf("changed:\n%s", diff)
			}
			if err == nil {
				if b, err := os.ReadFile(img.Layers[0] + "/stolen"); err == nil {
					t.Errorf("stolen: %s", b)
				}
			}
		})
	}
}

// inodes describes a directory and all that is in it.
func inodes(t testing.TB, dir string) (list []string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		list = append(list, fmt.Sprint(path, st.Ino, st.Mode, st.Uid, st.Nlink, st.Size, st.Ctim))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
