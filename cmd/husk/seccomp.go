package main

import "flag"

const seccompDetails = `husk seccomp check CONFIG prints what the profile of a config.json, or a bare
profile, does with every system call that has a name, as the compiled filter
decides it, and what in it has no effect.

husk seccomp record BUNDLE runs the container of a bundle without its profile,
notes every system call that it makes, and writes a profile that allows these
and refuses others (EPERM). The order in it is that of the names. Run all that
the container shall be able to do: what is not done is not allowed. With --base
the result is that profile and what was called beyond it. Disk space for it is
kept from the beginning; a profile that cannot be written is printed.

A recorded call takes some 5 to 20 microseconds longer: it waits until husk has
seen it. Not seen are
  - calls that the container's own filters answer, and of what they refuse;
    a program that wants a listener of its own (EBUSY) cannot be recorded;
  - calls in the moments before the filter is loaded, which need no permission;
  - calls that the vDSO answers here, but not on every machine, that end a
    process or come back from a signal, or that the kernel makes itself to
    continue one it has interrupted: they are always allowed;
  - arguments: a call is allowed with all of them, unless the base knows better;
  - processes that husk exec adds: it is refused meanwhile.
If husk is killed while it records, every call of the container fails (ENOSYS).
`

// seccompCommand: husk seccomp check CONFIG; husk seccomp record BUNDLE [-o FILE]
func seccompCommand(fs *flag.FlagSet) action {
	output := fs.String("output", "profile.json", "record: write the profile to this `file` (default profile.json), - for standard output")
	short(fs, "o", "output")
	base := fs.String("base", "", "record: add to the profile in this `file`, which may be a config.json")
	return func(a *app, args []string) (int, error) {
		switch args[0] {
		case "check":
			if fs.NFlag() > 0 {
				return 0, usage("usage: husk seccomp check CONFIG", "seccomp check takes no flags: they are those of record")
			}
			return 0, a.checkProfile(args[1])
		case "record":
			return a.recordProfile(args[1], *base, *output)
		}
		return 0, usage("husk help seccomp explains check and record", "seccomp: neither check nor record: %q", args[0])
	}
}
