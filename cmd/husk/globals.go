package main

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/huskrun/husk/runtime"
)

// globals defines the flags that come before the command, those of runc. The
// result says whether --version was given.
func (a *app) globals(fs *flag.FlagSet) *bool {
	fs.BoolVar(&a.debug, "debug", false, "write debug entries to the log too")
	fs.StringVar(&a.log, "log", "", "append errors to this `file`, besides standard error, and warnings instead")
	fs.StringVar(&a.logFormat, "log-format", "text", "`format` of the log: text or json")
	fs.StringVar(&a.root, "root", "", "`directory` for the state of containers (default "+defaultRoot()+")")
	fs.StringVar(&a.cgroups, "cgroup-manager", "", "`who` makes cgroups: cgroupfs (the default), systemd, or disabled: then none are made, and no limit is enforced")
	fs.BoolFunc("systemd-cgroup", "as --cgroup-manager systemd", a.systemdCgroup)
	fs.StringVar(&a.properties, "allow-systemd-property", "", "`names`, separated by commas, that annotations org.systemd.property.NAME may set in the container's unit")
	fs.BoolVar(&a.netAnnotations, "allow-net-annotations", false, "let create heed annotations run.husk.net.NAME, which may come with an image; run always does")
	fs.StringVar(&a.rootless, "rootless", "auto", "accepted for compatibility: husk sees for itself what it may do; `when` is true, false or auto")
	version := fs.Bool("version", false, "print the version")
	short(fs, "v", "version")
	return version
}

// check looks at the values of the global flags.
func (a *app) check() error {
	switch a.logFormat {
	case "text", "json":
	default:
		bad := a.logFormat
		a.logFormat = "text"
		return usage("give --log-format text or json", "unknown log format %q", bad)
	}
	switch a.rootless {
	case "true", "false", "auto":
	default:
		return usage("give --rootless true, false or auto", "unknown value %q of --rootless", a.rootless)
	}
	switch runtime.CgroupManager(a.cgroups) {
	case "", runtime.Cgroupfs, runtime.Systemd, runtime.Disabled:
	default:
		return usage("give --cgroup-manager cgroupfs, systemd or disabled", "unknown cgroup manager %q", a.cgroups)
	}
	return a.checkLog()
}

// checkLog makes sure that an error which comes later can be written where its reader
// looks for it.
func (a *app) checkLog() error {
	if a.log == "" {
		return nil
	}
	f, err := openLog(a.log)
	if err != nil {
		a.log = ""
		return usage("--log needs the name of a file that husk may append to", "log: %v", err)
	}
	return f.Close()
}

// runtime returns the library with the global flags applied.
func (a *app) runtime() *runtime.Runtime {
	root := a.root
	if root == "" {
		root = defaultRoot()
	}
	return &runtime.Runtime{
		Root: root, Seccomp: seccompCompiler(), Links: helper("network-helper"), Log: slog.New(warner{a}),
		Cgroups: runtime.CgroupManager(a.cgroups), UnitProperties: strings.Split(a.properties, ","),
		NetAnnotations: a.netAnnotations,
	}
}

// systemdCgroup is the flag that runc has for it, of which =false means the default.
func (a *app) systemdCgroup(value string) error {
	on, err := strconv.ParseBool(value)
	if on {
		a.cgroups = string(runtime.Systemd)
	}
	return err
}

// defaultRoot is /run/husk, or a directory of the user's where that is not ours.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && !hostRoot() {
		return filepath.Join(dir, "husk")
	}
	return "/run/husk"
}

// hostRoot reports whether this is root outside of any user namespace. The first
// user namespace has a fixed inode (PROC_USER_INIT_INO, include/linux/proc_ns.h).
func hostRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	ns, err := os.Readlink("/proc/self/ns/user")
	return err != nil || ns == "user:[4026531837]" || os.Getenv("USER") == "root"
}
