package unpack

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/huskrun/husk/rootfs/image"
	made "github.com/huskrun/husk/rootfs/image/imagetest"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// find inspects an archive of the files.
func find(t testing.TB, files made.Files, ref string, more ...made.Entry) (*manifest, error) {
	t.Helper()
	src, err := openArchive(bytes.NewReader(files.Bytes(t, more...)))
	if err != nil {
		return nil, err
	}
	return inspect(src, &image.Request{Ref: ref, Arch: "amd64"})
}

// one is an image whose only variable says which it is.
func one(t testing.TB, which string) made.Files {
	return made.OCI(t, which, v1.ImageConfig{Env: []string{"WHICH=" + which}}, nil, made.Layer(t, made.File(which, which)))
}

// together puts images into one layout. change may change their descriptors.
func together(t testing.TB, change func(i int, d *v1.Descriptor), all ...made.Files) made.Files {
	t.Helper()
	f := made.Files{}
	var index v1.Index
	for i, files := range all {
		var single v1.Index
		if err := json.Unmarshal(files[v1.ImageIndexFile], &single); err != nil {
			t.Fatal(err)
		}
		change(i, &single.Manifests[0])
		index.Manifests = append(index.Manifests, single.Manifests...)
		maps.Copy(f, files)
	}
	b, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	f[v1.ImageIndexFile] = b
	return f
}

// nested makes the index a blob of another one.
func nested(t testing.TB, f made.Files) made.Files {
	t.Helper()
	inner := f[v1.ImageIndexFile]
	d := digest.FromBytes(inner)
	f[made.BlobName(d)] = inner
	b, err := json.Marshal(v1.Index{Manifests: []v1.Descriptor{{MediaType: v1.MediaTypeImageIndex, Digest: d, Size: int64(len(inner))}}})
	if err != nil {
		t.Fatal(err)
	}
	f[v1.ImageIndexFile] = b
	return f
}

func keep(int, *v1.Descriptor) {}

// platforms are those of the images, in their order.
func platforms(list ...v1.Platform) func(int, *v1.Descriptor) {
	return func(i int, d *v1.Descriptor) { d.Platform, d.Annotations = &list[i], nil }
}

func TestInspect(t *testing.T) {
	arm, amd, none := v1.Platform{OS: "linux", Architecture: "arm64"}, v1.Platform{OS: "linux", Architecture: "amd64"}, v1.Platform{OS: "unknown", Architecture: "unknown"}
	deep := together(t, platforms(amd), one(t, "a"))
	for range maxDepth + 1 {
		deep = nested(t, deep)
	}
	for name, c := range map[string]struct {
		files      made.Files
		ref        string
		want, fail string // the variable, or the error
	}{
		"one":              {files: one(t, "a"), want: "a"},
		"by its name":      {files: together(t, keep, one(t, "a"), one(t, "b")), ref: "b", want: "b"},
		"which":            {files: together(t, keep, one(t, "a"), one(t, "b")), fail: "2 images"},
		"none of them":     {files: together(t, keep, one(t, "a"), one(t, "b")), ref: "c", fail: `no image "c"`},
		"empty":            {files: together(t, keep), fail: "no image"},
		"platform":         {files: nested(t, together(t, platforms(arm, none, amd), one(t, "a"), one(t, "x"), one(t, "b"))), want: "b"},
		"other platform":   {files: nested(t, together(t, platforms(arm), one(t, "a"))), fail: "linux/amd64"},
		"too deep":         {files: deep, fail: "index in more than"},
		"as containerd":    {files: together(t, func(_ int, d *v1.Descriptor) { d.Annotations = map[string]string{refs[1]: "docker.io/a:1"} }, one(t, "a")), ref: "docker.io/a:1", want: "a"},
		"digest with path": {files: together(t, func(_ int, d *v1.Descriptor) { d.Digest = "sha256:../../etc/passwd" }, one(t, "a")), fail: "digest"},
		"negative size":    {files: together(t, func(_ int, d *v1.Descriptor) { d.Size = -1 }, one(t, "a")), fail: "size -1"},
		"smaller":          {files: together(t, func(_ int, d *v1.Descriptor) { d.Size = 10 }, one(t, "a")), fail: "more than 10 bytes"},
		"huge":             {files: together(t, func(_ int, d *v1.Descriptor) { d.Size = 1 << 40 }, one(t, "a")), fail: "size 1099511627776"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := find(t, c.files, c.ref)
			switch {
			case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)):
				t.Errorf("%v instead of %s", err, c.fail)
			case c.fail == "" && err != nil:
				t.Error(err)
			case c.fail == "" && m.found.Config.Env[0] != "WHICH="+c.want:
				t.Errorf("%v instead of %s", m.found.Config.Env, c.want)
			}
		})
	}
}

// Archives of older Dockers have links for layers that are the same, which must lead to
// something in the archive.
func TestInspectLinks(t *testing.T) {
	layer := made.Layer(t, made.File("a", "a"))
	files := made.Docker(t, "a:1", v1.ImageConfig{}, layer)
	name := digest.FromBytes(layer).Encoded() + "/layer.tar"
	delete(files, name)
	for target, ok := range map[string]bool{"../real/layer.tar": true, "../../../../../../../etc/passwd": false, "layer.tar": false} {
		more := []made.Entry{made.File("real/layer.tar", string(layer)), made.Link(tar.TypeSymlink, name, target)}
		m, err := find(t, files, "a:1", more...)
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.layers[0].src.open(m.layers[0].name)
		if (err == nil) != ok || ok && p.Size() != int64(len(layer)) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	for _, files := range []made.Files{one(f, "a"), made.Docker(f, "a:1", v1.ImageConfig{}, made.Layer(f))} {
		f.Add(files.Bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := openArchive(bytes.NewReader(b))
		if err != nil {
			return
		}
		m, err := inspect(src, &image.Request{Arch: "amd64"})
		if err != nil {
			return
		}
		if len(m.layers) == 0 || len(m.found.Chains) != len(m.layers) {
			t.Errorf("%+v", m)
		}
		for _, l := range m.layers {
			if p, err := l.src.open(l.name); err == nil && p.Size() > int64(len(b)) {
				t.Errorf("%s has %d bytes of %d", l.name, p.Size(), len(b))
			}
		}
	})
}
