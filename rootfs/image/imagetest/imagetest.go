// Package imagetest makes images for tests, good ones and bad ones.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// TB is what tests of any kind have.
type TB interface {
	Helper()
	Fatal(args ...any)
}

// Entry is one of a layer.
type Entry struct {
	tar.Header
	Body string
}

// When is the time of all files.
var When = time.Unix(1e9, 0)

// File, Dir and the others are entries of root's, to be changed as needed.
func File(name, body string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: When}, body}
}

func Dir(name string, mode int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, ModTime: When}}
}

func Link(kind byte, name, to string) Entry {
	return Entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777, ModTime: When}}
}

// Tree are the files of a directory, as root's.
func Tree(t TB, dir string) (list []Entry) {
	t.Helper()
	must(t, filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		to, _ := os.Readlink(path)
		h, err := tar.FileInfoHeader(st, to)
		if err != nil {
			return err
		}
		body := ""
		if st.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			body = string(b)
		}
		h.Name, _ = filepath.Rel(dir, path)
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		list = append(list, Entry{*h, body})
		return nil
	}))
	return list
}

// Of changes the owner.
func (e Entry) Of(uid, gid int) Entry {
	e.Uid, e.Gid = uid, gid
	return e
}

// With adds an extended attribute.
func (e Entry) With(name, value string) Entry {
	records := map[string]string{"SCHILY.xattr." + name: value}
	maps.Copy(records, e.PAXRecords)
	e.PAXRecords = records
	e.Format = tar.FormatPAX
	return e
}

// Layer makes an archive.
func Layer(t TB, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Size == 0 {
			e.Size = int64(len(e.Body))
		}
		must(t, w.WriteHeader(&e.Header))
		_, err := w.Write([]byte(e.Body))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// Gzip and Zstd compress a layer.
func Gzip(t TB, layer []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(layer)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func Zstd(t TB, layer []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	must(t, err)
	return w.EncodeAll(layer, nil)
}

// Files are the parts of an image, by name.
type Files map[string][]byte

// OCI makes the files of a layout. The layers, bottom first, are stored as pack returns
// them.
func OCI(t TB, ref string, config v1.ImageConfig, pack func(TB, []byte) []byte, layers ...[]byte) Files {
	t.Helper()
	f := Files{v1.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, l := range layers {
		if pack != nil {
			l = pack(t, l)
		}
		m.Layers = append(m.Layers, f.blob(v1.MediaTypeImageLayer, l))
	}
	m.Config = f.blob(v1.MediaTypeImageConfig, configuration(t, config, layers))
	d := f.blob(v1.MediaTypeImageManifest, marshal(t, m))
	if ref != "" {
		d.Annotations = map[string]string{v1.AnnotationRefName: ref}
	}
	f[v1.ImageIndexFile] = marshal(t, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{d}})
	return f
}

// Docker makes the files of an archive as docker save wrote them for long.
func Docker(t TB, tag string, config v1.ImageConfig, layers ...[]byte) Files {
	t.Helper()
	c := configuration(t, config, layers)
	name := digest.FromBytes(c).Encoded() + ".json"
	f := Files{name: c}
	var names []string
	for _, l := range layers {
		at := digest.FromBytes(l).Encoded() + "/layer.tar"
		f[at] = l
		names = append(names, at)
	}
	f["manifest.json"] = marshal(t, []map[string]any{{"Config": name, "RepoTags": []string{tag}, "Layers": names}})
	return f
}

func configuration(t TB, config v1.ImageConfig, layers [][]byte) []byte {
	c := v1.Image{Config: config, Platform: v1.Platform{OS: "linux"}, RootFS: v1.RootFS{Type: "layers"}}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	return marshal(t, c)
}

func (f Files) blob(kind string, b []byte) v1.Descriptor {
	d := digest.FromBytes(b)
	f[BlobName(d)] = b
	return v1.Descriptor{MediaType: kind, Digest: d, Size: int64(len(b))}
}

// BlobName is where a layout has a blob.
func BlobName(d digest.Digest) string { return "blobs/" + string(d.Algorithm()) + "/" + d.Encoded() }

// Dir writes the files into a directory, which it returns.
func (f Files) Dir(t TB, dir string) string {
	t.Helper()
	for name, b := range f {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	return dir
}

// Archive writes them into a tar archive, the path of which it returns.
func (f Files) Archive(t TB, path string) string {
	t.Helper()
	must(t, os.WriteFile(path, f.Bytes(t), 0o644))
	return path
}

// Bytes is the archive of the files and whatever else is to be in it.
func (f Files) Bytes(t TB, more ...Entry) []byte {
	t.Helper()
	for name, b := range f {
		more = append(more, File(name, string(b)))
	}
	slices.SortFunc(more, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return Layer(t, more...)
}

func marshal(t TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}

func must(t TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
