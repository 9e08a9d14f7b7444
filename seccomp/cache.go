package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The cache is a directory of files, one for each pair of compiler and profile,
// named by a hash of both that nobody trusts: the file holds compiler ID and
// profile in full, and is used only if both are equal byte for byte. A file
// appears under its name by rename(2), complete; a sum over its content turns
// what a crash or a bad disk left behind into a miss. Nothing is locked, nothing
// is synced: the worst that can happen to an entry is to be made again.
const (
	cacheDir   = "@seccomp" // not a container id
	cacheMagic = "huskseccomp1"
	tempPrefix = ".tmp-"

	maxEntry   = 2 << 20 // bytes; larger profiles are compiled each time
	maxEntries = 64
	maxTotal   = 8 << 20
	tempAge    = time.Minute // after which a temporary file has lost its writer
)

// Load returns the filter for profile, the JSON text of /linux/seccomp, from the
// cache in stateRoot or else from c. It is nil if the profile is null. With
// stateRoot "" nothing is read or written. Trouble with the cache never fails
// Load; it is one of the filter's Warnings.
func Load(stateRoot string, profile []byte, c Compiler) (*Filter, error) {
	if p := bytes.TrimSpace(profile); len(p) == 0 || string(p) == "null" {
		return nil, nil
	}
	if c == nil {
		return nil, ErrNoCompiler
	}
	id := c.ID()
	if stateRoot == "" || id == "" || len(id)+len(profile) > maxEntry {
		return c.Compile(profile)
	}
	dir, err := openCache(stateRoot)
	if err != nil {
		return compileUncached(c, profile, err)
	}
	defer unix.Close(dir)
	name := entryName(id, profile)
	f, err := readEntry(dir, name, id, profile)
	if err == nil {
		return f, nil
	}
	return compileAndKeep(dir, name, id, profile, c)
}

func compileUncached(c Compiler, profile []byte, why error) (*Filter, error) {
	f, err := c.Compile(profile)
	if err == nil {
		f.Warnings = append(f.Warnings, "the compiled seccomp filter is not cached: "+why.Error())
	}
	return f, err
}

func compileAndKeep(dir int, name, id string, profile []byte, c Compiler) (*Filter, error) {
	f, err := c.Compile(profile)
	if err != nil {
		return nil, err
	}
	entry, err := encodeEntry(id, profile, f)
	if err == nil && len(entry) <= maxEntry {
		shrink(dir, len(entry))
		err = writeEntry(dir, name, entry)
	}
	if err != nil {
		f.Warnings = append(f.Warnings, "the compiled seccomp filter is not cached: "+err.Error())
	}
	return f, nil
}

// openCache opens the cache directory, making it if need be. What others could
// write to is not a cache but an attack.
func openCache(stateRoot string) (int, error) {
	path := filepath.Join(stateRoot, cacheDir)
	const how = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_RDONLY
	fd, err := retry(func() (int, error) { return unix.Open(path, how, 0) })
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkdir(path, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, &os.PathError{Op: "mkdir", Path: path, Err: err}
		}
		fd, err = retry(func() (int, error) { return unix.Open(path, how, 0) })
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || !private(&st) {
		unix.Close(fd)
		return -1, fmt.Errorf("%s is not ours alone: mode %04o, owner %d", path, st.Mode&0o7777, st.Uid)
	}
	return fd, nil
}

// private: ours, and writable by nobody else.
func private(st *unix.Stat_t) bool {
	return int(st.Uid) == os.Geteuid() && st.Mode&0o022 == 0
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

var errMiss = errors.New("no such entry")

func readEntry(dir int, name, id string, profile []byte) (*Filter, error) {
	// NONBLOCK: a FIFO of that name must not make us wait.
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !private(&st) || st.Size > maxEntry {
		return nil, errMiss
	}
	b := make([]byte, st.Size)
	if err := readFull(fd, b); err != nil {
		return nil, err
	}
	return decodeEntry(b, id, profile)
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Read(fd, b) })
		if err != nil {
			return err
		}
		if n == 0 {
			return errMiss
		}
		b = b[n:]
	}
	return nil
}

func encodeEntry(id string, profile []byte, f *Filter) ([]byte, error) {
	filter, err := f.MarshalBinary()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(cacheMagic)+16+len(id)+len(profile)+len(filter))
	b = append(b, cacheMagic...)
	b = append(b, make([]byte, 8)...) // the sum
	b = appendBlob(b, id)
	b = appendBlob(b, profile)
	b = append(b, filter...)
	fixSum(b)
	return b, nil
}

func fixSum(entry []byte) {
	b := entry[len(cacheMagic):]
	binary.LittleEndian.PutUint64(b, sum(0, b[8:]))
}

func decodeEntry(b []byte, id string, profile []byte) (*Filter, error) {
	b, ok := cutMagic(b, cacheMagic)
	if !ok || len(b) < 8 || binary.LittleEndian.Uint64(b) != sum(0, b[8:]) {
		return nil, errMiss
	}
	gotID, rest, ok := cutBlob(b[8:])
	if !ok || string(gotID) != id {
		return nil, errMiss
	}
	gotProfile, rest, ok := cutBlob(rest)
	if !ok || !bytes.Equal(gotProfile, profile) {
		return nil, errMiss
	}
	f := new(Filter)
	return f, f.UnmarshalBinary(rest)
}

func writeEntry(dir int, name string, entry []byte) error {
	temp := tempPrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	err = writeFull(fd, entry)
	// Some filesystems report a full disk only here.
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Renameat(dir, temp, dir, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temp, 0)
		return os.NewSyscallError("write", err)
	}
	return nil
}

func writeFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Write(fd, b) })
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// file is a cache file seen by shrink.
type file struct {
	name string
	size int64
	age  time.Duration
}

// shrink makes room for an entry of size bytes: abandoned temporary files go,
// then the oldest entries until number and bytes are within bounds. It runs only
// when an entry is added, so hits stay free of writes; and the first to go being
// the oldest means that a profile in steady use costs one compilation per round.
func shrink(dir, size int) {
	files := list(dir)
	n, total := 1, int64(size)
	for _, f := range files {
		n++
		total += f.size
	}
	for len(files) > 0 {
		i := oldest(files)
		f := files[i]
		if n <= maxEntries && total <= maxTotal {
			return
		}
		_ = unix.Unlinkat(dir, f.name, 0)
		n--
		total -= f.size
		files[i] = files[len(files)-1]
		files = files[:len(files)-1]
	}
}

func oldest(files []file) int {
	at := 0
	for i := range files {
		if files[i].age > files[at].age {
			at = i
		}
	}
	return at
}

// list returns the cache's files, and removes temporary ones whose writer died.
func list(dir int) (files []file) {
	// A descriptor of its own: reading a directory moves its offset.
	fd, err := retry(func() (int, error) { return unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil
	}
	d := os.NewFile(uintptr(fd), cacheDir)
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	now := time.Now()
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		f := file{name, st.Size, now.Sub(time.Unix(st.Mtim.Unix()))}
		if strings.HasPrefix(name, tempPrefix) && f.age > tempAge {
			_ = unix.Unlinkat(dir, name, 0)
			continue
		}
		files = append(files, f)
	}
	return files
}

func entryName(id string, profile []byte) string {
	h := sum(0, []byte(id))
	return strconv.FormatUint(sum(h, profile), 16)
}

// sum folds eight bytes at a time by a multiplication of 128 bits, the way wyhash
// does: a page takes less than a microsecond, and packages hash/crc32 and crypto
// would cost every start of husk their initialisation. It guards against
// accidents only; the mode of the directory keeps others out.
func sum(h uint64, b []byte) uint64 {
	h = fold(h, uint64(len(b)))
	for len(b) >= 8 {
		h = fold(h, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	return fold(h, binary.LittleEndian.Uint64(tail[:]))
}

func fold(h, word uint64) uint64 {
	const k0, k1 = 0xa0761d6478bd642f, 0xe7037ed1a0b428db
	hi, lo := bits.Mul64(h^word^k0, k1)
	return hi ^ lo
}
