package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestDefaultSize: a size of 0 would be a tmpfs without a limit.
func TestDefaultSize(t *testing.T) {
	job, err := New(&Options{Args: []string{"true"}, Workspace: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(job.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/" && m.Type == "tmpfs" })
	if i < 0 || !slices.Contains(job.Spec.Mounts[i].Options, "size=1073741824") {
		t.Errorf("the scratch is not limited to 1G: %v", job.Spec.Mounts)
	}
}

// TestBadOptions: what makes no sense is refused with the name of the flag, before
// anything is changed.
func TestBadOptions(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", "/root")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("neither JSON nor a directory"), 0o644); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"--workspace: it cannot be /":                    {Workspace: "/"},
		"--workspace: " + file + " is not one":           {Workspace: file},
		"--rootfs: stat":                                 {Rootfs: dir + "/none"},
		"--rootfs: " + file + " is not one":              {Rootfs: file},
		"--image: --rootfs is given too":                 {Rootfs: dir, Image: dir},
		"--show: nothing of the host is hidden":          {Rootfs: dir, Show: []string{"/etc/ssh"}},
		"--show: /etc/passwd is not hidden":              {Show: []string{"/etc/passwd"}},
		"--bind: stat":                                   {Binds: []string{dir + "/none"}},
		"--bind: x is not an absolute path":              {Binds: []string{dir + ":x"}},
		"--bind: / is not an absolute path below /":      {Binds: []string{dir + ":/"}},
		`--bind: unknown option "suid"`:                  {Binds: []string{dir + ":/x:suid"}},
		"--bind: /x is given twice":                      {Binds: []string{dir + ":/x", file + ":/x"}},
		"--cache: " + file + " is not one":               {Caches: []string{file + ":/x"}},
		`--tmpfs: "/" is not`:                            {Tmpfs: []string{"/"}},
		`--tmpfs: "/x:-1" is not`:                        {Tmpfs: []string{"/x:-1"}},
		"--tmpfs: /y is given twice":                     {Tmpfs: []string{"/y", "/y/:1M"}},
		"--tmpfs: /z is given twice":                     {Tmpfs: []string{"/z"}, Binds: []string{dir + ":/z"}},
		"--swap: there is no limit on memory":            {Swap: 1},
		"--cpus: -1 is not":                              {CPUs: -1},
		"--nofile: 3 are too few":                        {Nofile: 3},
		"--timeout: -1ns is in the past":                 {Timeout: -1},
		"--net: unknown network":                         {Net: "bogus"},
		`--allow: "db" is not HOST:PORT`:                 {Allow: []string{"db:1", "db"}},
		`--allow: "localhost:1" is not of another`:       {Allow: []string{"localhost:1"}},
		"--allow: --net none has no means":               {Allow: []string{"db:1"}, Net: "none"},
		"--allow: --net pasta has no means":              {Allow: []string{"db:1"}, Net: "pasta:mtu=1400"},
		"--cap-add: unknown capability":                  {Caps: []string{"all"}},
		"--seccomp: open":                                {Seccomp: dir + "/none"},
		"--seccomp: " + file + ": ":                      {Seccomp: file},
		"--uid: \"70000\" is not":                        {UID: "70000"},
		"--env: \"\" is not the name":                    {Env: []string{"=x"}},
		"--env-file: open":                               {EnvFile: []string{dir + "/none"}},
		"--secret: \"a/b\" is not":                       {Secrets: []string{"a/b=" + file}},
		"--secret: a is given twice":                     {Secrets: []string{"a=" + file, "a=" + file}},
		"--secret: open":                                 {Secrets: []string{"a=" + dir + "/none"}},
		"--secret: the variable HUSK_TEST_NONE is not":   {Secrets: []string{"a=env:HUSK_TEST_NONE"}},
		"--secret: " + dir + " is not a file of at most": {Secrets: []string{"a=" + dir}},
	} {
		if o.Workspace == "" {
			o.Workspace = t.TempDir()
		}
		o.Args = []string{"true"}
		if _, err := New(&o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want: %s", o, err, want)
		}
	}
}
