package main

import (
	"flag"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// killCommand: husk kill [--all] ID [SIGNAL]
func killCommand(fs *flag.FlagSet) action {
	all := fs.Bool("all", false, "signal every process of the container")
	short(fs, "a", "all")
	return func(a *app, args []string) (int, error) {
		sig := syscall.SIGTERM
		if len(args) == 2 {
			var ok bool
			if sig, ok = parseSignal(args[1]); !ok {
				return 0, usage("a number from 0 to 64 or a name such as KILL, SIGKILL or RTMIN+3", "unknown signal %q", args[1])
			}
		}
		return 0, a.runtime().Signal(args[0], sig, *all)
	}
}

// The real-time signals that programs may use: glibc keeps the kernel's first two.
const (
	rtMin syscall.Signal = 34
	rtMax syscall.Signal = 64
)

// parseSignal understands 15, TERM, SIGTERM, rtmin+3 and RTMAX-1.
func parseSignal(s string) (syscall.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return syscall.Signal(n), n >= 0 && n <= int(rtMax)
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if offset, ok := strings.CutPrefix(name, "RTMIN"); ok {
		return realtime(rtMin, offset, '+')
	}
	if offset, ok := strings.CutPrefix(name, "RTMAX"); ok {
		return realtime(rtMax, offset, '-')
	}
	switch name {
	case "IOT":
		name = "ABRT"
	case "CLD":
		name = "CHLD"
	case "POLL":
		name = "IO"
	}
	sig := unix.SignalNum("SIG" + name)
	return sig, sig != 0
}

// realtime applies an offset such as "+3" to one end of the real-time signals.
func realtime(base syscall.Signal, offset string, sign byte) (syscall.Signal, bool) {
	if offset == "" {
		return base, true
	}
	n, err := strconv.ParseInt(offset, 10, 8)
	if err != nil || offset[0] != sign {
		return 0, false
	}
	sig := base + syscall.Signal(n)
	return sig, sig >= rtMin && sig <= rtMax
}
