package unpack

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/huskrun/husk/rootfs/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// manifest is one image, checked as far as it can be without its layers.
type manifest struct {
	found  image.Found
	layers []layer // bottom first
}

const (
	maxJSON   = 8 << 20 // of an index, a manifest or a configuration
	maxLayers = 100     // of which the names fit into one option of a mount
	maxDepth  = 4       // of an index in an index
)

// inspect reads all of the image but its layers.
func inspect(src source, want *image.Request) (*manifest, error) {
	index, err := read(src, v1.ImageIndexFile, maxJSON)
	if absent(err) {
		return inspectDocker(src, want)
	}
	if err != nil {
		return nil, err
	}
	var list v1.Index
	if err := json.Unmarshal(index, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", v1.ImageIndexFile, err)
	}
	d, err := choose(list.Manifests, want.Ref)
	if err != nil {
		return nil, err
	}
	return follow(src, d, want, maxDepth)
}

// Where tools write what an image of a layout is called.
var refs = []string{v1.AnnotationRefName, "io.containerd.image.name"}

// choose picks the image of the name, or the only one.
func choose(list []v1.Descriptor, ref string) (*v1.Descriptor, error) {
	var names []string
	var found *v1.Descriptor
	for i := range list {
		for _, key := range refs {
			switch name := list[i].Annotations[key]; {
			case name == "":
			case name == ref:
				return &list[i], nil
			case !slices.Contains(names, name):
				names = append(names, name)
			}
		}
		found = &list[i]
	}
	return found, several(ref, len(list), names)
}

// several says that an image is not the only one, or not there.
func several(ref string, n int, names []string) error {
	switch {
	case n == 0:
		return errors.New("there is no image in it")
	case ref != "":
		return hinted{fmt.Errorf("there is no image %q in it", ref), "there are: " + quoted(names)}
	case n > 1:
		return hinted{fmt.Errorf("there are %d images in it", n), "write PATH:NAME; there are: " + quoted(names)}
	}
	return nil
}

// follow goes from a descriptor to the image of this machine's platform.
func follow(src source, d *v1.Descriptor, want *image.Request, depth int) (*manifest, error) {
	b, err := blob(src, d)
	if err != nil {
		return nil, err
	}
	var doc struct {
		v1.Manifest
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	switch {
	case len(doc.Manifests) > 0 && depth == 0:
		return nil, fmt.Errorf("%s: an index in more than %d others", d.Digest, maxDepth)
	case len(doc.Manifests) > 0:
		next, err := platform(doc.Manifests, want.Arch)
		if err != nil {
			return nil, err
		}
		return follow(src, next, want, depth-1)
	}
	config, err := blob(src, &doc.Config)
	if err != nil {
		return nil, err
	}
	m := &manifest{found: image.Found{Digest: d.Digest.String()}}
	for _, l := range doc.Layers {
		if err := l.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%s: digest %q of a layer: %w", d.Digest, l.Digest, err)
		}
		m.layers = append(m.layers, layer{src: src, name: blobName(l.Digest), digest: l.Digest, size: l.Size})
	}
	return m, m.configure(config)
}

// platform picks the image for the machine from those of an index.
func platform(list []v1.Descriptor, arch string) (*v1.Descriptor, error) {
	var others []string
	for i := range list {
		p := list[i].Platform
		if p == nil && len(list) == 1 || p != nil && p.OS == "linux" && p.Architecture == arch {
			return &list[i], nil
		}
		if p != nil && p.OS != "unknown" { // that is an attestation
			others = append(others, p.OS+"/"+p.Architecture)
		}
	}
	return nil, hinted{fmt.Errorf("no image for linux/%s", arch), "there are: " + quoted(others)}
}

func blobName(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// blob reads one that is small, and checks that it is what it is called.
func blob(src source, d *v1.Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 || d.Size > maxJSON {
		return nil, fmt.Errorf("%s: size %d: %w", d.Digest, d.Size, unix.EFBIG)
	}
	b, err := read(src, blobName(d.Digest), d.Size)
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, lie(d.Digest, got)
	}
	return b, nil
}

func lie(want, got digest.Digest) error {
	return fmt.Errorf("what is called %s has the digest %s", want, got)
}

// configure takes over the configuration: what the layers unpack to, and what to run.
func (m *manifest) configure(config []byte) error {
	var c v1.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	switch n := len(m.layers); {
	case c.OS != "" && c.OS != "linux":
		return fmt.Errorf("an image for %q", c.OS)
	case len(c.RootFS.DiffIDs) != n:
		return fmt.Errorf("%d layers, but the configuration has %d diff_ids", n, len(c.RootFS.DiffIDs))
	case n == 0:
		return errors.New("it has no layers")
	case n > maxLayers:
		return hinted{fmt.Errorf("%d layers, and no more than %d can be mounted", n, maxLayers), "build it with fewer: squash them"}
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("configuration: diff_ids: %q: %w", d, err)
		}
		m.layers[i].diff = d
	}
	for _, d := range identity.ChainIDs(slices.Clone(c.RootFS.DiffIDs)) {
		m.found.Chains = append(m.found.Chains, d.String())
	}
	p := c.Config
	m.found.Config = image.Config{Env: p.Env, Entrypoint: p.Entrypoint, Cmd: p.Cmd, User: p.User, WorkingDir: p.WorkingDir}
	return nil
}

// inspectDocker reads what docker save writes.
func inspectDocker(src source, want *image.Request) (*manifest, error) {
	const file = "manifest.json"
	b, err := read(src, file, maxJSON)
	if absent(err) {
		return nil, hinted{
			fmt.Errorf("not an image: neither %s nor %s is in it", v1.ImageIndexFile, file),
			"an image is an OCI layout directory, an archive of one, or what docker save writes",
		}
	}
	var list []dockerImage
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	d, err := chooseDocker(list, want.Ref)
	if err != nil {
		return nil, err
	}
	config, err := read(src, d.Config, maxJSON)
	if err != nil {
		return nil, err
	}
	id := digest.FromBytes(config)
	// Its name is its digest, where docker has written it.
	name := strings.TrimSuffix(d.Config[strings.LastIndexByte(d.Config, '/')+1:], ".json")
	if said := digest.NewDigestFromEncoded(digest.SHA256, name); said.Validate() == nil && said != id {
		return nil, lie(said, id)
	}
	m := &manifest{found: image.Found{Digest: id.String()}}
	for _, name := range d.Layers {
		m.layers = append(m.layers, layer{src: src, name: name})
	}
	return m, m.configure(config)
}

type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func chooseDocker(list []dockerImage, ref string) (*dockerImage, error) {
	var names []string
	var found *dockerImage
	for i := range list {
		found = &list[i]
		if ref != "" && slices.Contains(found.RepoTags, ref) {
			return found, nil
		}
		names = append(names, found.RepoTags...)
	}
	return found, several(ref, len(list), names)
}
