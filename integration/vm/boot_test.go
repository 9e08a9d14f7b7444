package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// emulate puts a script in the emulator's place. It counts its calls in $COUNT.
func emulate(t *testing.T, script string) (calls func() int) {
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	if err := os.WriteFile(dir+"/qemu-system-x86_64", []byte("#!/bin/sh\necho >>"+count+"\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Chdir(dir)
	if err := os.MkdirAll(stage+"/out", 0o755); err != nil {
		t.Fatal(err)
	}
	return func() int {
		data, _ := os.ReadFile(count)
		return len(data)
	}
}

// What the machine says decides: only one that never came to us gets a second try.
func TestBoot(t *testing.T) {
	const ready = "echo 'husk-vm: ready 6.1'\n"
	for name, test := range map[string]struct {
		script        string
		status, calls int
		err           string
	}{
		"passes":                {ready + "echo out; echo 'husk-vm: exit 0'", 0, 1, ""},
		"fails":                 {ready + "echo 'husk-vm: exit 3'", 3, 1, ""},
		"dies in the firmware":  {"exit 1", 0, 2, "before the tests began"},
		"boots the second time": {`[ $(wc -l <"$(dirname "$0")"/count) = 2 ] || exit 1;` + ready + "echo 'husk-vm: exit 4'", 4, 2, ""},
		"hangs in the firmware": {"exec sleep 60", 0, 2, "before the tests began"},
		"panics in a test":      {ready + "echo 'husk-vm: begin a'; echo out", 0, 1, "while the tests ran"},
		"hangs in a test":       {ready + "exec sleep 60", 0, 1, "killed after 500ms"},
		"talks nonsense":        {ready + "echo 'husk-vm: exit maybe'; exit 0", 0, 1, "invalid syntax"},
	} {
		t.Run(name, func(t *testing.T) {
			calls := emulate(t, test.script)
			payload, err := unnamed(0)
			if err != nil {
				t.Fatal(err)
			}
			defer payload.Close()
			o := &options{kernel: "test", memory: 64, bootTime: 500 * time.Millisecond, timeout: 500 * time.Millisecond, packages: []string{"a"}}
			status, err := bootOnceOrTwice(o, "kernel", "root", payload)
			if status != test.status || calls() != test.calls {
				t.Errorf("status %d after %d boots, want %d after %d", status, calls(), test.status, test.calls)
			}
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if errors.Is(err, errNoBoot) != strings.Contains(test.err, "before") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	out, err := output("sh", "-c", "printf '%s.' "+quote([]string{"a b", "it's", "$x|y", ""}))
	if err != nil || out != "a b.it's.$x|y.." {
		t.Errorf("%q, %v", out, err)
	}
}
