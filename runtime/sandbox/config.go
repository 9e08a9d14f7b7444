package sandbox

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ConfigFile is read from the workspace unless another file is named. What is in a
// workspace may be somebody else's, or a job has written it: so it cannot loosen anything.
const ConfigFile = ".husk.toml"

// harmless are the keys that the file in the workspace may have.
var harmless = []string{
	"cpus", "env", "idle-timeout", "io", "memory", "nofile", "output-limit", "pids", "progress", "ro", "size", "summary", "timeout", "tmpfs",
}

// ReadConfig sets the flags that the command line does not from a file: of TOML, keys
// that are called like flags, with strings, numbers, booleans or arrays of them.
func (o *Options) ReadConfig(flags *flag.FlagSet, file string) error {
	named := file != ""
	if !named {
		file = filepath.Join(o.Workspace, ConfigFile)
	}
	text, err := readConfig(file, named)
	if !named && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)) {
		return nil
	}
	if err != nil {
		return bad("config", "name a file of lines KEY = VALUE; the workspace's own may be removed", "%w", err)
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	seen := map[string]bool{}
	for n, line := range strings.Split(string(text), "\n") {
		fail := func(hint, format string, args ...any) error {
			return bad("config", hint, "%s, line %d: "+format, append([]any{file, n + 1}, args...)...)
		}
		key, values, err := parseLine(line)
		switch {
		case err != nil:
			return fail("write KEY = VALUE, with strings in quotes", "%w", err)
		case key == "":
			continue
		case flags.Lookup(key) == nil || key == "config" || key == "print-config":
			return fail("keys are called like the flags that husk help sandbox lists", "unknown key %q", key)
		case seen[key]:
			return fail("write one array", "%q is given twice", key)
		case !named && !slices.Contains(harmless, key):
			return fail("trust the file by --config "+file+", or give the flag", "%q could loosen the sandbox, and the workspace is not trusted to", key)
		}
		seen[key] = true
		for _, v := range values {
			if key == "env" && !named && !strings.Contains(v, "=") {
				return fail("write NAME=VALUE, or trust the file by --config "+file, "%q asks for a variable of the caller's", v)
			}
			if given[key] {
				break // the command line wins
			}
			if err := flags.Set(key, v); err != nil {
				return fail("", "%s: %w", key, err)
			}
		}
	}
	return nil
}

const maxConfig = 64 << 10

// readConfig reads the file. In a workspace it may be anything: a link to a file of the
// caller's, whose text an error would print, or a FIFO.
func readConfig(file string, named bool) ([]byte, error) {
	flags := unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	if !named {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(file, flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxConfig {
		return nil, fmt.Errorf("%s is not a file of at most %d KiB", file, maxConfig>>10)
	}
	return io.ReadAll(io.LimitReader(f, maxConfig))
}

// parseLine reads one line; there is no key in an empty one.
func parseLine(line string) (key string, values []string, err error) {
	if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
		return "", nil, nil
	}
	key, rest, ok := strings.Cut(line, "=")
	key, rest = strings.TrimSpace(key), strings.TrimSpace(rest)
	if !ok || key == "" || strings.HasPrefix(key, "[") {
		return "", nil, fmt.Errorf("%q is not KEY = VALUE", line)
	}
	if !strings.HasPrefix(rest, "[") {
		var v string
		if v, rest, err = parseValue(rest); err == nil {
			err = atEnd(rest)
		}
		return key, []string{v}, err
	}
	for rest = strings.TrimSpace(rest[1:]); !strings.HasPrefix(rest, "]"); {
		var v string
		if v, rest, err = parseValue(rest); err != nil {
			return "", nil, err
		}
		values = append(values, v)
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, ",") {
			rest = strings.TrimSpace(rest[1:])
		} else if !strings.HasPrefix(rest, "]") {
			return "", nil, fmt.Errorf("an array ends in %q, not in ]", rest)
		}
	}
	return key, values, atEnd(rest[1:])
}

// parseValue reads a string, a number or a boolean, and returns what follows it.
func parseValue(s string) (value, rest string, err error) {
	switch {
	case strings.HasPrefix(s, "'"):
		value, rest, ok := strings.Cut(s[1:], "'")
		if !ok {
			return "", "", fmt.Errorf("%s has no end", s)
		}
		return value, rest, nil
	case strings.HasPrefix(s, `"`):
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", fmt.Errorf("%s is not a string", s)
		}
		value, err = strconv.Unquote(quoted)
		return value, s[len(quoted):], err
	}
	end := strings.IndexAny(s, " \t,]#")
	if end < 0 {
		end = len(s)
	}
	value, rest = s[:end], s[end:]
	if _, err := strconv.ParseFloat(value, 64); err != nil && value != "true" && value != "false" {
		return "", "", fmt.Errorf("%q is not a number, true or false; strings are in quotes", value)
	}
	return value, rest, nil
}

func atEnd(rest string) error {
	if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '#' {
		return fmt.Errorf("%q follows the value", rest)
	}
	return nil
}
