package libseccomp

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"

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
	p, err := decode(profile)
	if err != nil {
		return nil, err
	}
	return Compile(p)
}

// decode reads the profile; json/v2 knows where a value of the wrong type is.
func decode(text []byte) (*specs.LinuxSeccomp, error) {
	p := new(specs.LinuxSeccomp)
	err := json.Unmarshal(text, p)
	var typ *json.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &typ):
		what := errors.New("is of the wrong type: a JSON " + typ.JSONKind.String() + " where " + typ.GoType.String() + " is wanted")
		if typ.Err != nil {
			what = typ.Err
		}
		return nil, &seccomp.FieldError{Field: seccomp.Pointer + string(typ.JSONPointer), Err: what}
	case errors.As(err, &syntax):
		return nil, &seccomp.FieldError{Field: seccomp.Pointer + string(syntax.JSONPointer), Err: syntax.Err}
	}
	return p, err
}
