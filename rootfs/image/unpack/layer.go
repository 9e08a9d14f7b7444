package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	apply "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/huskrun/husk/rootfs/image"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// layer is a tar archive of changes.
type layer struct {
	src    source
	name   string
	digest digest.Digest // of what is stored, "": not known
	size   int64
	diff   digest.Digest // of it uncompressed
}

// extract writes the layer into a directory, which becomes the root of this process. It
// is verified only at the end: until then nobody may use what was written.
func (l *layer) extract(x *extraction, into *os.File, below []*os.File) error {
	p, err := l.src.open(l.name)
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	defer p.close()
	stored := newHashed(p, l.digest)
	if l.digest != "" {
		stored.limit = l.size
	}
	plain, err := decompress(stored)
	if err != nil {
		return err
	}
	defer plain.Close()
	x.input = newHashed(plain, l.diff)
	x.input.limit = x.order.Limit
	x.input.busy = x.busy
	if err := enter(into); err != nil {
		return err
	}
	if err := x.run(below); err != nil {
		return err
	}
	// A tar archive may end before its file does.
	if err := errors.Join(x.input.finish(), stored.finish()); err != nil {
		return err
	}
	return os.NewSyscallError("syncfs", unix.Syncfs(int(into.Fd())))
}

// decompress finds out by the first bytes how the layer is compressed.
func decompress(r io.Reader) (io.ReadCloser, error) {
	var head [4]byte
	n, err := io.ReadFull(r, head[:])
	if n == 0 && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	switch {
	case bytes.HasPrefix(head[:n], []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.Equal(head[:n], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

// hashed is a stream that is to have a digest.
type hashed struct {
	r     io.Reader
	want  digest.Digest
	hash  digest.Digester
	n     int64
	limit int64 // 0: none
	busy  func() error
	told  time.Time
}

func newHashed(r io.Reader, want digest.Digest) *hashed {
	h := &hashed{r: r, want: want}
	if want != "" {
		h.hash = want.Algorithm().Digester()
	}
	return h
}

// busyEvery is how often the caller hears that there is progress.
const busyEvery = 5 * time.Second

func (h *hashed) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	if h.hash != nil {
		h.hash.Hash().Write(b[:n])
	}
	if h.n += int64(n); h.limit > 0 && h.n > h.limit {
		return n, tooLarge(h.limit)
	}
	if h.busy != nil && time.Since(h.told) > busyEvery {
		h.told = time.Now()
		if err := h.busy(); err != nil {
			return n, err
		}
	}
	return n, err
}

func tooLarge(limit int64) error {
	return hinted{fmt.Errorf("has more than %d bytes: %w", limit, unix.EFBIG), "it is damaged, forged, or a decompression bomb"}
}

// finish reads what is left and compares.
func (h *hashed) finish() error {
	if _, err := io.Copy(io.Discard, h); err != nil {
		return err
	}
	if h.hash == nil {
		return nil
	}
	if got := h.hash.Digest(); got != h.want {
		return lie(h.want, got)
	}
	return nil
}

// extraction is the writing of one layer.
type extraction struct {
	order   *image.Layer
	busy    func() error
	input   *hashed
	holes   int64           // bytes of files that are not in the stream
	left    map[string]bool // devices that were left out
	entries int             // so far
	last    *tar.Header     // of a large file, perhaps with holes
	dirs    map[string]bool // those met so far, and whether they have an entry of their own
}

// run has the archive written below "/".
func (x *extraction) run(below []*os.File) error {
	x.left, x.dirs = map[string]bool{}, map[string]bool{".": true}
	_, err := apply.Apply(context.Background(), "/", x.input,
		apply.WithFilter(x.filter), apply.WithConvertWhiteout(convert))
	if err == nil {
		err = x.dig()
	}
	if err == nil {
		err = x.inherit(below)
	}
	return err
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	xattr    = "SCHILY.xattr."
)

// filter sees each entry before it is written, and the file before it when it is.
func (x *extraction) filter(h *tar.Header) (bool, error) {
	if err := errors.Join(x.dig(), x.memory()); err != nil {
		return false, err
	}
	if name := strings.TrimLeft(h.Name, "/"); name != "" && !filepath.IsLocal(name) {
		return false, fmt.Errorf("%q leads out of the image", h.Name)
	}
	name := path.Clean("/" + h.Name)[1:]
	switch h.Typeflag {
	case tar.TypeChar, tar.TypeBlock:
		// Whoever needs one gets it from the runtime. And 0:0 would be a whiteout.
		x.left[name] = true
		return false, nil
	case tar.TypeXGlobalHeader:
		return false, nil
	case tar.TypeLink:
		if x.left[path.Clean("/" + h.Linkname)[1:]] {
			return false, nil
		}
	case tar.TypeGNUSparse:
		h.Typeflag = tar.TypeReg // it reads as one
		x.holes += h.Size
	}
	if base := path.Base(name); strings.HasPrefix(base, whiteout+whiteout) && base != opaque {
		return false, nil // what AUFS keeps for itself
	}
	x.pass(name, h.Typeflag == tar.TypeDir)
	delete(x.left, name)
	if err := x.owner(h); err != nil {
		return false, err
	}
	for key := range h.PAXRecords {
		if k, ok := strings.CutPrefix(key, xattr); ok && !permitted(k) {
			delete(h.PAXRecords, key)
		}
		if strings.HasPrefix(key, "GNU.sparse.realsize") || strings.HasPrefix(key, "GNU.sparse.size") {
			x.holes += h.Size
		}
	}
	return true, x.room(h)
}

// permitted are attributes that belong to the file itself, not to the host's policy or to
// a filesystem that it was once on.
func permitted(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// owner makes sure that there is such a user. Where there is only one, everything is that
// one's.
func (x *extraction) owner(h *tar.Header) error {
	for i, id := range [...]*int{&h.Uid, &h.Gid} {
		ids := x.order.IDs[i]
		if len(ids) == 1 && ids[0].Size == 1 {
			*id = int(ids[0].First)
		}
		if len(ids) > 0 && !slices.ContainsFunc(ids, func(r image.Range) bool { return *id >= int(r.First) && *id-int(r.First) < int(r.Size) }) {
			return hinted{
				fmt.Errorf("%s belongs to %s %d, which the id mapping does not have: %w", h.Name, [...]string{"user", "group"}[i], *id, unix.EINVAL),
				"map more ids; an ordinary user's come from /etc/subuid and /etc/subgid",
			}
		}
	}
	return nil
}

// pass notes the directories above an entry, which may have none of their own.
func (x *extraction) pass(name string, dir bool) {
	if dir {
		x.dirs[name] = true
	}
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		if _, met := x.dirs[above]; met {
			return
		}
		x.dirs[above] = false
	}
}

const (
	keepBytes = 1 << 30 // free, or a twentieth of a small filesystem
	largeFile = 1 << 20 // of which holes are worth looking for
)

// room refuses what would fill the filesystem, with bytes or with files, or goes beyond
// the limit in files that take less room in the archive than they say.
func (x *extraction) room(h *tar.Header) error {
	if h.Typeflag != tar.TypeReg {
		h.Size = 0
	}
	if x.order.Limit > 0 && (x.holes > x.order.Limit || h.Size > x.order.Limit) {
		return tooLarge(x.order.Limit)
	}
	if h.Size >= largeFile {
		x.last = h
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	free, keep := fs.Bavail*uint64(fs.Bsize), min(keepBytes, fs.Blocks*uint64(fs.Bsize)/20)
	if free < keep+uint64(h.Size) || fs.Files > 0 && fs.Ffree < fs.Files/20 {
		return hinted{
			fmt.Errorf("%s: no room for %d bytes: %d bytes and %d inodes are free, of which %d and %d are to stay so: %w",
				h.Name, h.Size, free, fs.Ffree, keep, fs.Files/20, unix.ENOSPC),
			"free some space, or keep images on another filesystem",
		}
	}
	return nil
}

// maxMemory is what names and headers may take, of which a small archive can have very many.
const maxMemory = 512 << 20

// memory looks after every so many entries, which have at most a megabyte each.
func (x *extraction) memory() error {
	if x.entries++; x.entries%128 != 0 {
		return nil
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > maxMemory {
		return hinted{fmt.Errorf("its list of files takes more than %d bytes of memory: %w", maxMemory, unix.ENOMEM), damaged}
	}
	return nil
}

// convert writes what hides a file of the layers below as overlay wants it.
func convert(h *tar.Header, p string) (write bool, err error) {
	dir, base := filepath.Split(p)
	hidden, ok := strings.CutPrefix(base, whiteout)
	switch {
	case base == opaque:
		return false, hide(dir)
	case ok:
		err = os.NewSyscallError("mknod", unix.Mknod(dir+hidden, unix.S_IFCHR, 0))
		if errors.Is(err, unix.EEXIST) {
			// The layer has something in its place, which hides it already but for a directory.
			if st, e := os.Lstat(dir + hidden); e != nil || !st.IsDir() {
				return false, e
			}
			return false, hide(dir + hidden)
		}
		return false, err
	case h.Typeflag != tar.TypeDir:
		return true, nil
	}
	if st, err := os.Lstat(p); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return true, nil
	}
	// A directory in the place of one that was hidden before must not show what that had.
	return true, errors.Join(os.Remove(p), os.Mkdir(p, 0o755), hide(p))
}

// hide makes a directory opaque.
func hide(dir string) error {
	err := unix.Lsetxattr(dir, "user.overlay.opaque", []byte{'y'}, 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return hinted{fmt.Errorf("%s: setxattr: %w", dir, err), "keep images on a filesystem with user.* attributes, which tmpfs has since Linux 6.6"}
	}
	return os.NewSyscallError("setxattr", err)
}

// dig makes holes of what is nothing but zeros in the file before: the layers of tools
// that do not know about sparse files are full of them.
func (x *extraction) dig() error {
	h := x.last
	if x.last = nil; h == nil {
		return nil
	}
	f, err := os.OpenFile(path.Clean("/"+h.Name), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if absent(err) {
		return nil // it was a whiteout
	}
	if err != nil {
		return err
	}
	defer f.Close()
	const step = 64 << 10
	var zero, buf [step]byte
	dug := false
	for at := int64(0); ; at += step {
		n, err := f.ReadAt(buf[:], at)
		if n == step && bytes.Equal(buf[:], zero[:]) {
			err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, step)
			if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				return os.NewSyscallError("fallocate", err)
			}
			dug = true
		}
		if err != nil || n < step {
			break
		}
	}
	if !dug || h.ModTime.IsZero() {
		return nil
	}
	at := unix.NsecToTimespec(h.ModTime.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// inherit gives the directories that the layer only passes through the owner and the mode
// that they have below it: they are no changes.
func (x *extraction) inherit(below []*os.File) error {
	for name, own := range x.dirs {
		if own {
			continue
		}
		for _, dir := range below {
			var st unix.Stat_t
			fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
				Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
			})
			if err != nil {
				continue // it is not in this one
			}
			err = unix.Fstat(fd, &st)
			unix.Close(fd)
			if err != nil {
				return os.NewSyscallError("fstat", err)
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				if err := adopt("/"+name, &st); err != nil {
					return err
				}
			}
			break
		}
	}
	return nil
}

func adopt(name string, st *unix.Stat_t) error {
	if now, err := os.Lstat(name); err != nil || !now.IsDir() {
		return nil // something else by now
	}
	if err := unix.Lchown(name, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	if err := unix.Chmod(name, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
