package seccomp

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Decode reads a profile, the JSON text of /linux/seccomp. Mistakes are *FieldErrors;
// what the profile means is for Check to judge.
func Decode(text []byte) (*specs.LinuxSeccomp, error) {
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
		return nil, &FieldError{Field: Pointer + string(typ.JSONPointer), Err: what}
	case errors.As(err, &syntax):
		return nil, &FieldError{Field: Pointer + string(syntax.JSONPointer), Err: syntax.Err}
	}
	return p, err
}
