package image

import (
	"context"
	"encoding/hex"
	"encoding/json/v2"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shelf is the part of a store for one mapping.
type shelf struct {
	path, images, layers, unfinished string
	root                             [2]int // user and group of the containers' root
}

// open makes what is missing of the part for the store's mapping. Root of the containers
// may walk through it to the layers, and change nothing.
func (s *Store) open() (*shelf, error) {
	d := &shelf{path: filepath.Join(s.Dir, short(s.UIDMaps, s.GIDMaps))}
	d.images, d.layers, d.unfinished = d.path+"/images", d.path+"/layers", d.path+"/new"
	for i, maps := range [][]specs.LinuxIDMapping{s.UIDMaps, s.GIDMaps} {
		if d.root[i] = rootOf(maps); d.root[i] < 0 {
			return nil, &Failure{"the id mapping has no root", "map user and group 0"}
		}
	}
	if err := os.MkdirAll(filepath.Dir(s.Dir), 0o755); err != nil {
		return nil, err
	}
	mode := os.FileMode(0o710)
	if d.root[0] == os.Geteuid() {
		mode = 0o700 // what is set-user-ID there makes others us
	}
	return d, errors.Join(
		own(s.Dir, 0o711, -1), own(d.path, mode, d.root[1]), own(d.images, 0o700, -1),
		own(d.layers, 0o711, -1), own(d.unfinished, 0o700, -1),
	)
}

// rootOf is who id 0 is outside.
func rootOf(maps []specs.LinuxIDMapping) int {
	if len(maps) == 0 {
		return 0
	}
	i := slices.IndexFunc(maps, func(m specs.LinuxIDMapping) bool { return m.ContainerID == 0 && m.Size > 0 })
	if i < 0 {
		return -1
	}
	return int(maps[i].HostID)
}

// own makes a directory, or makes sure that it is ours alone: whoever can put layers there
// decides what runs in containers.
func own(path string, mode os.FileMode, group int) error {
	err := os.Mkdir(path, mode)
	if err == nil {
		return errors.Join(os.Chown(path, -1, group), os.Chmod(path, mode))
	}
	var st unix.Stat_t
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return &Failure{
			fmt.Sprintf("%s is no directory of ours alone: mode %o, owner %d", path, st.Mode, st.Uid),
			"it must belong to who runs husk, and be writable for nobody else",
		}
	}
	return nil
}

// lock waits until nobody else unpacks here, or nobody wants the image any more.
func (d *shelf) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(d.path+"/lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		_, err := retry(func() (struct{}, error) { return struct{}{}, unix.Flock(int(f.Fd()), unix.LOCK_EX) })
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		go func() { <-done; f.Close() }()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return f, nil
}

// layer is the directory of a chain, which was checked to be a digest.
func (d *shelf) layer(chain string) string {
	return d.layers + "/" + strings.Replace(chain, ":", "-", 1) + "/fs"
}

func (d *shelf) has(chain string) bool {
	st, err := os.Lstat(d.layer(chain))
	return err == nil && st.IsDir()
}

// image is what was found, with the layers on the disk.
func (d *shelf) image(f *Found) *Image {
	img := &Image{Digest: f.Digest, Config: f.Config}
	for _, chain := range slices.Backward(f.Chains) {
		img.Layers = append(img.Layers, d.layer(chain))
	}
	return img
}

// settled is how old the last change of a file must be for its time to tell it from the
// next one: clocks of filesystems are coarse.
const settled = 2 * time.Second

// key names a file and its contents, as long as nobody writes to it: the time of the last
// change cannot be set. It is "" for one that was changed a moment ago.
func key(st *unix.Stat_t, ref string) string {
	if age := time.Since(time.Unix(st.Ctim.Unix())); age < settled {
		return ""
	}
	return short(st.Dev, st.Ino, st.Size, st.Ctim, st.Mtim, ref)
}

// short makes a name of what nobody chooses who could gain by two being the same. Package
// crypto would cost every start of husk.
func short(values ...any) string {
	h := fnv.New128a()
	fmt.Fprint(h, values...)
	return hex.EncodeToString(h.Sum(nil))
}

// known returns the image behind a key if all of it is there.
func (d *shelf) known(key string) *Image {
	if key == "" {
		return nil
	}
	b, err := os.ReadFile(d.images + "/" + key)
	if err != nil {
		return nil
	}
	var f Found
	if json.Unmarshal(b, &f) != nil || !isDigests(f.Chains) || slices.ContainsFunc(f.Chains, func(c string) bool { return !d.has(c) }) {
		return nil
	}
	return d.image(&f)
}

// remember notes what was found behind a key.
func (d *shelf) remember(key string, f *Found) error {
	if key == "" {
		return nil
	}
	temporary := d.unfinished + "/image"
	if err := os.WriteFile(temporary, Encode(f), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, d.images+"/"+key)
}

// isDigests: what the unpacker says becomes names.
func isDigests(list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool {
		algorithm, sum, _ := strings.Cut(s, ":")
		b, err := hex.DecodeString(sum)
		return err != nil || hex.EncodeToString(b) != sum || map[string]int{"sha256": 32, "sha512": 64}[algorithm] != len(b)
	})
}
