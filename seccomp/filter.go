// Package seccomp turns the seccomp profile of an OCI config into a classic BPF
// filter, keeps compiled filters, and installs them.
//
// Three parts, so that starting a container pays only for what it needs:
//
//   - Load answers from a cache in the state directory. A hit costs one file
//     read: the profile is compared as bytes and never decoded.
//   - A miss asks a Compiler. The husk program uses External: a small static C
//     program (package compiler, built on libseccomp) that is embedded in husk
//     and run from a sealed memory file. So husk itself carries no cgo, which
//     would cost every start of it more than installing a filter does. Programs
//     that use cgo anyway can pass libseccomp.Compiler instead.
//   - Install is one raw seccomp(2) in the container's init.
//
// What the cache answers must not depend on the profile's decoding, so a Filter
// also carries what the caller would otherwise look up: the listener's address
// and the warnings found while compiling.
package seccomp

import (
	"encoding/binary"
	"errors"
)

// Filter is a compiled profile.
type Filter struct {
	// BPF is an array of struct sock_filter in the machine's byte order.
	BPF []byte
	// Flags are the SECCOMP_FILTER_FLAG_* to install it with.
	Flags uint32
	// ListenerPath and ListenerMetadata are the profile's own.
	ListenerPath, ListenerMetadata string
	// Warnings are the parts of the profile that have no effect and would have forbidden
	// something; Notes are the others, of which profiles for every machine have many.
	Warnings, Notes []string
}

// The kernel's limit (BPF_MAXINSNS) and the size of a struct sock_filter.
const (
	maxInstructions = 4096
	instructionSize = 8
)

// Listener reports whether installing the filter yields a descriptor that
// somebody has to answer: without that, the container hangs.
func (f *Filter) Listener() bool {
	return f.Flags&flagNewListener != 0
}

// filterMagic starts an encoded filter. Its last digit counts changes of the
// encoding and of what compiling means (see package libseccomp).
const filterMagic = "huskbpf2"

var errEncoding = errors.New("not an encoded seccomp filter")

// MarshalBinary encodes the filter for the cache and for the pipe from the
// external compiler.
func (f *Filter) MarshalBinary() ([]byte, error) {
	b := append([]byte(nil), filterMagic...)
	b = binary.LittleEndian.AppendUint32(b, f.Flags)
	b = appendBlob(b, f.BPF)
	b = appendBlob(b, f.ListenerPath)
	b = appendBlob(b, f.ListenerMetadata)
	for _, w := range f.Warnings {
		b = appendBlob(b, "w"+w)
	}
	for _, n := range f.Notes {
		b = appendBlob(b, "n"+n)
	}
	return b, nil
}

// UnmarshalBinary decodes what MarshalBinary made. It keeps referring to b.
func (f *Filter) UnmarshalBinary(b []byte) error {
	rest, ok := cutMagic(b, filterMagic)
	if !ok || len(rest) < 4 {
		return errEncoding
	}
	out := Filter{Flags: binary.LittleEndian.Uint32(rest)}
	rest = rest[4:]
	var path, metadata []byte
	for _, blob := range []*[]byte{&out.BPF, &path, &metadata} {
		if *blob, rest, ok = cutBlob(rest); !ok {
			return errEncoding
		}
	}
	out.ListenerPath, out.ListenerMetadata = string(path), string(metadata)
	for len(rest) > 0 {
		var w []byte
		w, rest, ok = cutBlob(rest)
		switch {
		case ok && len(w) > 1 && w[0] == 'n':
			out.Notes = append(out.Notes, string(w[1:]))
		case ok && len(w) > 1 && w[0] == 'w' && out.Notes == nil:
			out.Warnings = append(out.Warnings, string(w[1:]))
		default:
			return errEncoding
		}
	}
	if len(out.BPF) == 0 || len(out.BPF)%instructionSize != 0 || len(out.BPF) > maxInstructions*instructionSize {
		return errEncoding
	}
	*f = out
	return nil
}

func cutMagic(b []byte, magic string) ([]byte, bool) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, false
	}
	return b[len(magic):], true
}

func appendBlob[T []byte | string](b []byte, blob T) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(blob)))
	return append(b, blob...)
}

func cutBlob(b []byte) (blob, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	b = b[4:]
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
