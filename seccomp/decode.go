package seccomp

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"

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
	if err == nil {
		err = missing(text)
	}
	return p, err
}

// missing finds conditions that do not say what they compare, or with what: zero would
// be taken for either, and it means something.
func missing(text []byte) error {
	var p struct {
		Syscalls []struct {
			Args []struct {
				Index *uint   `json:"index"`
				Value *uint64 `json:"value"`
			} `json:"args"`
		} `json:"syscalls"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	var c checker
	for i, s := range p.Syscalls {
		for j, a := range s.Args {
			field := fmt.Sprintf("/syscalls/%d/args/%d", i, j)
			if a.Index == nil {
				c.add(field+"/index", "is missing: it says which argument")
			}
			if a.Value == nil {
				c.add(field+"/value", "is missing: it says what to compare with")
			}
		}
	}
	return errors.Join(c.errs...)
}
