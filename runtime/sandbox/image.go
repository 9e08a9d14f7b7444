package sandbox

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/huskrun/husk/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// foreign says that the job does not see the host's own root.
func (b *builder) foreign() bool { return b.o.Rootfs != "" || b.o.Image != "" }

// image has the image unpacked, if the store does not have it, and shows its layers in the
// scratch, under names so short that the kernel takes a list of many.
func (b *builder) image() (lower string, err error) {
	if b.o.Rootfs != "" {
		return "", bad("image", "give one of them", "--rootfs is given too")
	}
	dir := b.o.Store
	if dir != "" {
		if dir, err = b.real("store", dir); err != nil {
			return "", err
		}
		if b.shared(dir) {
			return "", bad("store", "name a directory elsewhere", "%s is where jobs may write, who could change what others run", dir)
		}
	}
	store := runtime.Images{Dir: dir, Program: b.o.Unpacker, UIDMaps: b.one(b.inner, b.uid), GIDMaps: b.one(b.innerGID, b.gid)}
	if b.Image, err = store.Open(context.Background(), b.o.Image); err != nil {
		return "", err
	}
	var names []string
	for i, dir := range b.Image.Layers {
		name := shortName(i)
		b.mount(specs.Mount{Destination: "/" + name, Source: dir, Options: []string{"bind", "ro", "nosuid", "nodev"}})
		names = append(names, name)
	}
	return strings.Join(names, ":"), nil
}

// shortName is the one of that number: a to Z, then aa.
func shortName(i int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if i < len(letters) {
		return letters[i : i+1]
	}
	return shortName(i/len(letters)-1) + shortName(i%len(letters))
}

var errNoCommand = errors.New("there is no command")

// command is what the job runs, by default what the image says.
func (b *builder) command() ([]string, error) {
	args := b.o.Args
	if len(args) == 0 && b.Image != nil {
		args = slices.Concat(b.Image.Config.Entrypoint, b.Image.Config.Cmd)
	}
	if len(args) == 0 {
		return nil, &runtime.Error{
			Op: "sandbox", Err: errNoCommand, Hint: "write it behind the flags: husk sandbox -- make test", Exit: StatusFailed,
		}
	}
	return args, nil
}
