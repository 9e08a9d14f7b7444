package libseccomp

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/huskrun/husk/seccomp"
)

// Compiler is the compiler in this process, for programs that use cgo anyway.
func Compiler() seccomp.Compiler { return inProcess{} }

type inProcess struct{}

// ID changes with libseccomp, which may be a shared library. Our own part is
// covered by the version in the encoding of filters.
func (inProcess) ID() string { return "libseccomp " + Version() }

func (inProcess) Compile(profile []byte) (*seccomp.Filter, error) {
	p, err := seccomp.Decode(profile)
	if err != nil {
		return nil, err
	}
	return Compile(p)
}

func (inProcess) Calls(arch specs.Arch) ([]seccomp.Call, error) { return Calls(arch) }
