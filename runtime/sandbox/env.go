package sandbox

import (
	"io"
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
		var err error
		if env, err = b.readVariables(env, file); err != nil {
			return err
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

// readVariables appends those of a file. One that a job may have written cannot ask for the
// caller's.
func (b *builder) readVariables(env []string, name string) ([]string, error) {
	file, shared, err := b.open("env-file", name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, bad("env-file", "name a file of lines NAME=VALUE", "%w", err)
	}
	for line := range strings.Lines(string(text)) {
		switch line = strings.TrimSpace(line); {
		case line == "" || line[0] == '#':
			continue
		case shared && !strings.Contains(line, "="):
			return nil, bad("env-file", "write NAME=VALUE, or give it by --env", "%s, where jobs may write: %q asks for a variable of the caller's", name, line)
		}
		if env, err = setVariable(env, "env-file", line); err != nil {
			return nil, err
		}
	}
	return env, nil
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
