// Vm runs tests, or any command, in a virtual machine with a distribution's kernel,
// where cgroup v2 is alone and has all controllers:
//
//	go run ./integration/vm                          all packages on the oldest kernel
//	go run ./integration/vm -kernel sid -run TestKernel ./cgroups
//	go run ./integration/vm -- sh -c 'cat /proc/version'
//	go run ./integration/vm -- sh -i                 a shell (without a terminal)
//
// The flow: images.sh makes, once, a Debian root and the directory of a kernel from
// Debian's packages, below the user's cache. Test binaries, husk, the helpers of the
// tests and the source tree become a tar on a raw disk. QEMU boots the kernel with an
// initrd that unpacks it and goes on with guest.sh, which runs the job and writes what
// it prints to a port of its own, so that kernel messages do not mix in. Lines that
// begin with "husk-vm:" are the guest's word to this program (see talk). What the job
// left in /husk/out comes back as a tar on another disk, to .cache/vm-KERNEL/out.
//
// The disks: vda root (changes are thrown away), vdb modules, vdc payload, vdd results,
// vde and vdf 512 MiB of scratch each, vdg swap. All that is written goes to files
// without a name, so that nothing stays when we die.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

type options struct {
	kernel, run string
	packages    []string      // to test
	command     []string      // to run instead
	json        bool          // print test events, as go test -json does
	full        bool          // without -test.short
	systemd     bool          // boot it
	engines     bool          // boot the root that has some
	suite       bool          // bring the official validation suite
	cover       bool          // fetch coverage
	verbose     bool          // print the console
	lsm         string        // the security module instead of Debian's
	bootTime    time.Duration // what a kernel may take to reach our job: three seconds are usual
	timeout     time.Duration
	memory      int
}

func main() {
	runtime.LockOSThread() // the machine is to die with the thread that started it
	o := parse()
	status, err := run(o)
	if err != nil {
		o.fail(err)
		os.Exit(125)
	}
	os.Exit(status)
}

func parse() *options {
	o := &options{bootTime: 3 * time.Minute}
	flag.StringVar(&o.kernel, "kernel", "bookworm", "Debian `suite` whose kernel to boot, with a flavour (sid:amd64) other than cloud-amd64, or the path of a vmlinuz")
	flag.StringVar(&o.run, "run", "", "tests to run, as go test takes it")
	flag.BoolVar(&o.json, "json", false, "print test events")
	flag.BoolVar(&o.full, "full", false, "not only the short tests")
	flag.BoolVar(&o.cover, "cover", false, "bring coverage back, of the tests and of husk, and print it")
	flag.BoolVar(&o.systemd, "systemd", false, "boot systemd and run as its service")
	flag.BoolVar(&o.engines, "engines", false, "boot the root that has container engines")
	flag.BoolVar(&o.suite, "suite", false, "bring the official validation suite, which takes some 200 MB")
	flag.BoolVar(&o.verbose, "v", false, "print the kernel's console, too")
	flag.StringVar(&o.lsm, "lsm", "", "security `module`, such as selinux, instead of AppArmor")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "the whole run's")
	flag.IntVar(&o.memory, "memory", 2048, "`MiB` of memory")
	flag.Parse()
	stage = ".cache/" + o.name()
	if strings.Contains(strings.Join(os.Args[1:], " ")+" ", "-- ") {
		o.command = flag.Args()
	} else {
		o.packages = flag.Args()
	}
	return o
}

// fail says what went wrong, to who reads test events as one of those.
func (o *options) fail(err error) {
	fmt.Fprintln(os.Stderr, "vm:", err)
	if o.json {
		event := map[string]string{"Action": "output", "Package": o.name(), "Output": err.Error() + "\n"}
		json.NewEncoder(os.Stdout).Encode(event)
		event["Action"] = "fail"
		json.NewEncoder(os.Stdout).Encode(event)
	}
}

// name tells this machine's results from those of others.
func (o *options) name() string {
	name := "vm-" + filepath.Base(o.kernel)
	if o.systemd {
		name += "-systemd"
	}
	if o.engines {
		name += "-engines"
	}
	if o.lsm != "" {
		name += "-" + o.lsm
	}
	return name
}

func run(o *options) (int, error) {
	kernel, root, err := o.images()
	if err != nil {
		return 0, err
	}
	p, err := newPayload(o)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return bootOnceOrTwice(o, kernel, root, p)
}

func bootOnceOrTwice(o *options, kernel, root string, p *os.File) (int, error) {
	status, err := boot(o, kernel, root, p)
	if errors.Is(err, errNoBoot) {
		fmt.Fprintln(os.Stderr, "vm: BOOT RETRIED:", err)
		status, err = boot(o, kernel, root, p)
	}
	if err == nil && o.cover {
		err = coverage()
	}
	return status, err
}

// coverage prints what part of each package's statements ran.
func coverage() error {
	out, err := output("go", "tool", "covdata", "percent", "-i="+stage+"/out/cover")
	fmt.Fprint(os.Stderr, out)
	return err
}

// images asks images.sh for the directory of a kernel and for the root.
func (o *options) images() (dir, root string, err error) {
	cmd := exec.Command("integration/vm/images.sh", o.kernel)
	if o.engines {
		cmd.Args = append(cmd.Args, "engines")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("images.sh %s: %w", o.kernel, err)
	}
	dir, root, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	return dir, root, nil
}
