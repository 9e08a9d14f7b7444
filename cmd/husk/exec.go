package main

import (
	"flag"
	"strings"

	"github.com/huskrun/husk/runtime"
)

// execCommand: husk exec [flags] ID COMMAND [ARG...]
func execCommand(fs *flag.FlagSet) action {
	var o runtime.ExecOptions
	execProcessFlags(fs, &o)
	fs.StringVar(&o.ProcessFile, "process", "", "take the process from this `file`, written as in config.json")
	short(fs, "p", "process")
	fs.StringVar(&o.Cgroup, "cgroup", "", "put the process into the cgroup at this `path` below the container's")
	fs.BoolVar(&o.IgnorePaused, "ignore-paused", false, "wait for a paused container to be resumed")
	fs.BoolVar(&o.Detach, "detach", false, "return once the process runs, instead of waiting for it")
	short(fs, "d", "detach")
	fs.StringVar(&o.ConsoleSocket, "console-socket", "", "send the terminal's master to the unix `socket` at this path")
	fs.StringVar(&o.PidfdSocket, "pidfd-socket", "", "send a pidfd of the process to the unix `socket` at this path")
	fs.StringVar(&o.PidFile, "pid-file", "", "write the process's pid to this `file`")
	fs.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass this `number` of descriptors, from 3 on, to the process")
	return func(a *app, args []string) (int, error) {
		if o.Args = args[1:]; len(o.Args) == 0 && o.ProcessFile == "" {
			return 0, usage("usage: husk "+find("exec").usage(), "exec: neither a command nor --process")
		}
		o.Cgroup = withoutController(o.Cgroup)
		if o.Detach {
			return a.runtime().Exec(args[0], o)
		}
		return a.onTerminal(&o.Terminal, func() (int, error) { return a.runtime().Exec(args[0], o) })
	}
}

// execProcessFlags defines those that say what the process is.
func execProcessFlags(fs *flag.FlagSet, o *runtime.ExecOptions) {
	fs.StringVar(&o.Cwd, "cwd", "", "working `directory` of the process")
	fs.Func("env", "set a `variable`, NAME=value; can be repeated", appendTo(&o.Env))
	short(fs, "e", "env")
	fs.BoolVar(&o.TTY, "tty", false, "give the process a terminal")
	short(fs, "t", "tty")
	fs.StringVar(&o.User, "user", "", "numeric `UID[:GID]` of the process")
	short(fs, "u", "user")
	fs.Func("additional-gids", "add supplementary group `ids`, separated by commas; can be repeated", listTo(&o.AdditionalGIDs))
	short(fs, "g", "additional-gids")
	fs.Func("cap", "add `capabilities`, separated by commas; can be repeated", listTo(&o.Caps))
	short(fs, "c", "cap")
	fs.BoolVar(&o.NoNewPrivs, "no-new-privs", false, "do not let the process gain privileges by execve")
	fs.StringVar(&o.ProcessLabel, "process-label", "", "SELinux `label` of the process")
	fs.StringVar(&o.AppArmor, "apparmor", "", "AppArmor `profile` of the process")
}

// withoutController drops the controllers that may stand before a cgroup, as in
// "cpu,memory:/x": with cgroup v2 one path is for all of them.
func withoutController(cgroup string) string {
	if controllers, path, ok := strings.Cut(cgroup, ":"); ok && !strings.Contains(controllers, "/") {
		return path
	}
	return cgroup
}
