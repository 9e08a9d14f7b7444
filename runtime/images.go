package runtime

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs/image"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Images is a store of the layers of images, unpacked for containers with these id
// mappings. See package image.
type Images struct {
	Dir              string      // "": /var/cache/husk/images, or husk/images below an ordinary user's XDG_CACHE_HOME
	Program          io.ReaderAt // the unpacker
	UIDMaps, GIDMaps []specs.LinuxIDMapping
	Limit            int64 // bytes that one layer may unpack to, 0: image.DefaultLimit
}

var errNoUnpacker = errors.New("this program was built without its unpacker")

// Open finds the image in a file, PATH or PATH:NAME, and unpacks what the store does not
// have of it. Overlay takes the layers with the option userxattr.
func (s *Images) Open(ctx context.Context, name string) (*image.Image, error) {
	dir := s.Dir
	if dir == "" {
		var err error
		if dir, err = imageDir(); err != nil {
			return nil, &Error{Op: "open image", Err: err, Hint: "set HOME, or name a directory for images (husk sandbox --store)"}
		}
	}
	store := &image.Store{Dir: dir, UIDMaps: rooted(s.UIDMaps), GIDMaps: rooted(s.GIDMaps), Limit: s.Limit}
	store.Start = func(ctx context.Context) (image.Peer, error) {
		return startConfined(ctx, s.Program, store.UIDMaps, store.GIDMaps)
	}
	img, err := store.Open(ctx, name)
	if e, ok := errors.AsType[*image.Error](err); ok {
		err = &Error{Path: e.Path, Err: e, Hint: e.Hint}
	}
	return img, wrap("open image", "", err)
}

// rooted is a mapping of one id as root would have it: files of a container that has no
// other belong to it, whatever its number there, and only root unpacks.
func rooted(maps []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	if len(maps) != 1 || maps[0].Size != 1 {
		return maps
	}
	return []specs.LinuxIDMapping{{HostID: maps[0].HostID, Size: 1}}
}

// imageDir is a place that may be removed at any time.
func imageDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/husk/images", nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "husk/images"), err
}

// confined is a helper program that is running.
type confined struct {
	*namespaces.Conn
	proc *namespaces.Process
	stop func() bool
}

// startConfined starts the program that reads images where it can reach nothing but what
// it is handed.
func startConfined(ctx context.Context, program io.ReaderAt, uids, gids []specs.LinuxIDMapping, args ...string) (*confined, error) {
	if program == nil {
		return nil, errNoUnpacker
	}
	exe, err := namespaces.SealedProgram("husk-unpacker", program)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	u := new(confined)
	c := &namespaces.Config{
		New:     unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UIDMaps: uids, GIDMaps: gids, Cgroup: -1,
		Exe: exe, Args: append([]string{"husk-unpacker"}, args...), Env: []string{"GOTRACEBACK=none"},
	}
	if len(uids)+len(gids) > 0 {
		c.New |= unix.CLONE_NEWUSER
	}
	if u.Conn, c.Child, err = namespaces.Pair(); err != nil {
		return nil, err
	}
	if u.proc, err = namespaces.Spawn(c); err != nil {
		_ = u.Conn.Close()
		return nil, err
	}
	u.stop = context.AfterFunc(ctx, u.kill)
	return u, nil
}

func (u *confined) kill() { _ = unix.PidfdSendSignal(int(u.proc.FD.Fd()), unix.SIGKILL, nil, 0) }

// Close ends it, whatever it is doing.
func (u *confined) Close() error {
	u.stop()
	u.kill()
	err := u.Conn.Close()
	_, reaped := reap(u.proc)
	return errors.Join(err, reaped)
}
