package main

import (
	"syscall"
	"testing"
)

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]syscall.Signal{
		"TERM": 15, "SIGTERM": 15, "term": 15, "sigterm": 15, "15": 15, "9": 9, "KILL": 9, "HUP": 1, "0": 0, "64": 64,
		"SIGIOT": 6, "ABRT": 6, "CLD": 17, "CHLD": 17, "POLL": 29, "IO": 29, "WINCH": 28, "SYS": 31, "USR1": 10, "STKFLT": 16,
		"RTMIN": 34, "SIGRTMIN": 34, "RTMIN+3": 37, "sigrtmin+15": 49, "RTMIN+30": 64, "RTMAX": 64, "RTMAX-1": 63, "SIGRTMAX-30": 34, "34": 34,
	} {
		if got, ok := parseSignal(s); !ok || got != want {
			t.Errorf("%s: %d, %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "SIG", "FOO", "65", "-1", "-9", "1e3", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "RTMIN+", "RTMIN++1", "RTMIN+ 1", "99999999999999999999", "SIGSIGTERM"} {
		if got, ok := parseSignal(s); ok {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
}
