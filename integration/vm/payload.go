package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// defaultPackages ask the kernel something.
var defaultPackages = []string{"./namespaces", "./rootfs", "./cgroups/...", "./seccomp", "./runtime", "./integration"}

// stage is where the payload is put together and its results are put, within what make
// clean removes. Each kernel has its own, so that results stay.
var stage = ".cache/vm"

// newPayload builds what the guest is to run and packs it as a tar into a file
// without a name.
func newPayload(o *options) (*os.File, error) {
	if err := os.RemoveAll(stage); err != nil {
		return nil, err
	}
	for _, dir := range []string{"bin", "tools", "src", "out/cover"} {
		if err := os.MkdirAll(filepath.Join(stage, dir), 0o755); err != nil {
			return nil, err
		}
	}
	job := "cd /husk/src && exec " + quote(o.command)
	if o.command == nil {
		packages, err := testPackages(o.packages)
		if err != nil {
			return nil, err
		}
		if job, err = buildTests(o, packages); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(buildHusk(o), buildTools(), copySources(), o.buildSuite()); err != nil {
		return nil, err
	}
	guest, err := os.ReadFile("integration/vm/guest.sh")
	if err != nil {
		return nil, err
	}
	environment := "export HUSK=/husk/bin/husk HUSK_TOOLS=/husk/tools CRUN=/usr/bin/crun GOCOVERDIR=/husk/out/cover"
	if !haveKVM() {
		environment += " HUSK_PATIENCE=10"
	}
	if o.systemd {
		environment += " HUSK_DRIVER=systemd"
	}
	if o.engines {
		environment += " ENGINES_ROOT=/ " + quote([]string{"ENGINES_RUNTIMES=" + os.Getenv("ENGINES_RUNTIMES")})
	}
	if o.suite {
		environment += " HUSK_SUITE=/husk/suite"
	}
	job = environment + "\n" + job + "\n"
	if err := os.WriteFile(stage+"/job", []byte(job), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(stage+"/init", guest, 0o755); err != nil {
		return nil, err
	}
	if o.systemd {
		if err := os.WriteFile(stage+"/systemd", nil, 0o644); err != nil {
			return nil, err
		}
	}
	return pack()
}

// testPackages lists, by directory, the packages of patterns that have tests.
func testPackages(patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		patterns = defaultPackages
	}
	const format = `{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}`
	out, err := output("go", append([]string{"list", "-f", format}, patterns...)...)
	if err != nil {
		return nil, err
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	packages := strings.Fields(out)
	for i, dir := range packages {
		if packages[i], err = filepath.Rel(here, dir); err != nil {
			return nil, err
		}
	}
	return packages, nil
}

// buildTests compiles them and returns the script that runs one after the other.
func buildTests(o *options, packages []string) (string, error) {
	build := []string{"test", "-c", "-o", stage + "/bin/"}
	if o.cover {
		build = append(build, "-cover")
	}
	var script strings.Builder
	script.WriteString(`
status=0
t() {
	echo "husk-vm: begin $1"
	cd "/husk/src/$1"
	shift
	"$@"
	s=$?
	[ $s = 0 ] || status=1
	echo
	echo "husk-vm: end $s"
}
`)
	verbose := "-test.v"
	if o.json {
		verbose = "-test.v=test2json"
	}
	for _, p := range packages {
		build = append(build, "./"+p)
		args := []string{"t", p, "/husk/bin/" + path.Base(p) + ".test", verbose, "-test.timeout=" + (o.timeout - time.Minute).String()}
		if o.cover {
			args = append(args, "-test.gocoverdir=/husk/out/cover")
		}
		if !o.full {
			args = append(args, "-test.short")
		}
		if o.run != "" {
			args = append(args, "-test.run="+o.run)
		}
		fmt.Fprintln(&script, quote(args))
	}
	fmt.Fprintln(&script, "exit $status")
	_, err := output("go", build...)
	return script.String(), err
}

// buildHusk takes $HUSK or makes one; to see what is covered it has to be another.
func buildHusk(o *options) error {
	husk := os.Getenv("HUSK")
	if husk == "" {
		if _, err := output("make", "-s", "husk"); err != nil {
			return err
		}
		husk = "husk"
	}
	if o.cover {
		_, err := output("env", "CGO_ENABLED=0", "go", "build", "-cover", "-coverpkg=./...", "-o", stage+"/bin/husk", "./cmd/husk")
		return err
	}
	_, err := output("cp", "-L", husk, stage+"/bin/husk")
	return err
}

// buildTools compiles what the tests run inside and around containers.
func buildTools() error {
	sources, err := filepath.Glob("integration/probe/*.c")
	if err != nil {
		return err
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	for _, source := range sources {
		target := stage + "/tools/" + strings.TrimSuffix(filepath.Base(source), ".c")
		if _, err := output(cc, "-O2", "-static", "-s", "-o", target, source); err != nil {
			return err
		}
	}
	return nil
}

// buildSuite brings the official validation suite.
func (o *options) buildSuite() error {
	if !o.suite {
		return nil
	}
	out, err := output("integration/suite/build.sh")
	if err != nil {
		return err
	}
	dir, _, _ := strings.Cut(out, " ")
	_, err = output("cp", "-r", dir, stage+"/suite")
	return err
}

// copySources copies what git knows or would add: tests read files beside them.
func copySources() error {
	list, err := output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	args := []string{"--parents", "--no-dereference", "--target-directory=" + stage + "/src"}
	for file := range strings.SplitSeq(list, "\x00") {
		if _, err := os.Lstat(file); err == nil {
			args = append(args, file)
		}
	}
	_, err = output("cp", args...)
	return err
}

// pack makes a tar of the stage.
func pack() (*os.File, error) {
	f, err := unnamed(0)
	if err != nil {
		return nil, err
	}
	tar := exec.Command("tar", "-c", "--owner=0", "--group=0", "-C", stage, ".")
	tar.Stdout, tar.Stderr = f, os.Stderr
	if err := tar.Run(); err != nil {
		return nil, fmt.Errorf("pack the payload: %w", err)
	}
	return f, nil
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, stderr.Bytes())
	}
	return string(out), nil
}

// quote makes a shell's words.
func quote(args []string) string {
	var words []string
	for _, a := range args {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// unnamed makes a file that nobody else sees and that goes with its last user.
func unnamed(size int64) (*os.File, error) {
	f, err := os.CreateTemp("", "husk-vm-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	return f, f.Truncate(size)
}
