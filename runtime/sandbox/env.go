package sandbox

import (
	"os"
	"slices"
	"strings"
)

// Kept are the variables of the caller that a job has too. Whatever else there is may be
// a password.
var Kept = []string{
	"CI", "COLUMNS", "FORCE_COLOR", "LANG", "LANGUAGE", "LINES", "LOGNAME", "NO_COLOR", "PATH",
	"SOURCE_DATE_EPOCH", "TERM", "TZ", "USER",
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment sets the variables, and reads the secrets.
func (b *builder) environment() error {
	env := []string{defaultPath}
	if b.Image != nil {
		env = append(env, b.Image.Config.Env...)
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if name == "PATH" && b.foreign() {
			continue // it is about the host's programs
		}
		if slices.Contains(Kept, name) || strings.HasPrefix(name, "LC_") {
			env = append(env, kv)
		}
	}
	env = append(env, "HOME="+b.home)
	for _, file := range b.o.EnvFile {
		text, err := os.ReadFile(file)
		if err != nil {
			return bad("env-file", "name a file of lines NAME=VALUE", "%w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			if env, err = setVariable(env, "env-file", line); err != nil {
				return err
			}
		}
	}
	for _, kv := range b.o.Env {
		var err error
		if env, err = setVariable(env, "env", kv); err != nil {
			return err
		}
	}
	b.spec.Process.Env = env
	return b.readSecrets()
}

// setVariable appends one, of which the last counts. A name alone means the caller's.
func setVariable(env []string, flag, text string) ([]string, error) {
	name, _, given := strings.Cut(text, "=")
	if name == "" || strings.Contains(text, "\x00") {
		return nil, bad(flag, "write NAME=VALUE, or NAME for the caller's value", "%q is not the name of a variable", name)
	}
	if !given {
		value, ok := os.LookupEnv(name)
		if !ok {
			return env, nil
		}
		text = name + "=" + value
	}
	return append(env, text), nil
}
