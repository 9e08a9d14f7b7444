package sandbox

import (
	"io"
	"os"
	"slices"
	"strings"

	"github.com/huskrun/husk/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// secret is a file that only the job can read. It is never an argument or a variable of
// anything, nor part of the config.json.
type secret struct {
	name string
	data []byte
}

const secretsDir = "/run/secrets"

// maxSecret bounds one: it stays in memory.
const maxSecret = 1 << 20

// readSecrets reads what the flags name.
func (b *builder) readSecrets() error {
	for _, text := range b.o.Secrets {
		name, from, ok := strings.Cut(text, "=")
		if !ok || name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." || len(name) > 200 {
			return bad("secret", "write it as in token=./token or token=env:TOKEN", "%q is not NAME=FILE or NAME=env:VARIABLE", name)
		}
		if slices.ContainsFunc(b.secrets, func(s secret) bool { return s.name == name }) {
			return bad("secret", "leave out one of them", "%s is given twice", name)
		}
		s := secret{name: name}
		if variable, isVariable := strings.CutPrefix(from, "env:"); isVariable {
			value, set := os.LookupEnv(variable)
			if !set {
				return bad("secret", "set it, or leave out the secret", "the variable %s is not set", variable)
			}
			s.data = []byte(value)
		} else {
			var err error
			if s.data, err = b.readSecret(from); err != nil {
				return err
			}
		}
		b.secrets = append(b.secrets, s)
	}
	if len(b.secrets) > 0 {
		b.tmpfs(secretsDir, "mode=500", "size=64k", b.owner())
	}
	return nil
}

func (b *builder) readSecret(name string) ([]byte, error) {
	file, _, err := b.open("secret", name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxSecret) {
		return nil, bad("secret", "show a larger file by --bind", "%s is not a file of at most 1 MiB", name)
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(file, maxSecret))
	}
	if err != nil {
		return nil, bad("secret", "name a file that can be read", "%w", err)
	}
	return data, nil
}

// addSecrets mounts them, from where the container called id will have them.
func (j *Job) addSecrets(r *runtime.Runtime, id string, reader int) (files []runtime.File) {
	for _, s := range j.secrets {
		file := runtime.File{Name: "secret-" + s.name, Data: s.data, UID: reader}
		files = append(files, file)
		j.Spec.Mounts = append(j.Spec.Mounts, specs.Mount{
			Destination: secretsDir + "/" + s.name, Source: r.FilePath(id, file.Name),
			Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
		})
	}
	return files
}
