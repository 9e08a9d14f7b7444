package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A contender is one of the runtimes that the README compares, with a bundle.
type contender struct {
	*bundle
	command []string
}

func (c *contender) call(args ...string) result {
	c.t.Helper()
	return c.with(c.command[0], slices.Concat(c.command[1:], []string{"--root", filepath.Join(c.dir, "state")}, args)...)
}

// runs says whether the container exits with 0.
func (c *contender) runs() bool {
	c.t.Helper()
	return c.call("run", "c1").code == 0
}

func (c *contender) left(name string) bool {
	_, err := os.Stat(filepath.Join(c.dir, name))
	return err == nil
}

// comparison is the README's table: each row's answer is seen by running the runtime.
var comparison = []struct {
	what string
	yes  func(c *contender) bool
}{
	{"`start` fails, with the reason, when the program cannot be executed", func(c *contender) bool {
		c.write(func(s *specs.Spec) { s.Process.Args = []string{"/script"} })
		must(c.t, os.WriteFile(c.rootfs("script"), []byte("#!/missing\n"), 0o755))
		return c.call("create", "c1").code == 0 && c.call("start", "c1").code != 0
	}},
	{"`start` fails when a startContainer hook does", func(c *contender) bool {
		c.write(func(s *specs.Spec) {
			shell("true")(s)
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/false"}}}
		})
		return c.call("create", "c1").code == 0 && c.call("start", "c1").code != 0
	}},
	{"poststart hooks run at start, not at create", func(c *contender) bool {
		c.write(func(s *specs.Spec) {
			shell("sleep 100")(s)
			s.Hooks = &specs.Hooks{Poststart: touch(c, "poststart")}
		})
		c.call("create", "c1")
		early := c.left("poststart")
		return c.call("start", "c1").code == 0 && !early && c.left("poststart")
	}},
	{"all poststop hooks run when one fails", func(c *contender) bool {
		c.write(func(s *specs.Spec) {
			shell("true")(s)
			s.Hooks = &specs.Hooks{Poststop: slices.Concat([]specs.Hook{{Path: "/bin/false"}}, touch(c, "poststop"))}
		})
		c.call("run", "c1")
		return c.left("poststop")
	}},
	{"a FIFO as the image's `/etc/passwd` cannot hang `run`", func(c *contender) bool {
		c.write(shell("true"))
		must(c.t, os.MkdirAll(c.rootfs("etc"), 0o755))
		os.Remove(c.rootfs("etc/passwd"))
		must(c.t, unix.Mkfifo(c.rootfs("etc/passwd"), 0o644))
		defer os.Remove(c.rootfs("etc/passwd"))
		cmd := exec.Command(c.command[0], slices.Concat(c.command[1:], []string{"--root", filepath.Join(c.dir, "state"), "run", "c1"})...)
		cmd.Dir = c.dir
		must(c.t, cmd.Start())
		opened := time.AfterFunc(patience(5*time.Second), func() { // lets who waits there go on
			if f, err := os.OpenFile(c.rootfs("etc/passwd"), os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				f.Close()
			}
		})
		cmd.Wait()
		return opened.Stop()
	}},
	{"recursive mount options on any mount (`rro` on a tmpfs)", func(c *contender) bool {
		c.write(func(s *specs.Spec) {
			shell("! (: >/tmp/file)")(s)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"rro"}})
		})
		return c.runs()
	}},
	{"a device rule that denies `w` also denies opening read-write", func(c *contender) bool {
		c.write(func(s *specs.Spec) {
			s.Process.Args = []string{"/probe", "open", "rw", "/dev/one"}
			withDevice(s, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}, specs.LinuxDeviceCgroup{Type: "c", Major: new(int64(240)), Minor: new(int64(1)), Access: "w"})
		})
		return strings.Contains(c.call("run", "c1").stdout, "EPERM")
	}},
	{"`update` changes device rules", func(c *contender) bool {
		c.write(func(s *specs.Spec) {
			shell("sleep 100")(s)
			withDevice(s, specs.LinuxDeviceCgroup{Access: "rwm"})
		})
		must(c.t, os.WriteFile(filepath.Join(c.dir, "rules"), []byte(`{"devices":[{"allow":true,"type":"c","major":240,"minor":1,"access":"rwm"}]}`), 0o644))
		return c.call("run", "--detach", "c1").code == 0 && c.call("update", "--resources", "rules", "c1").code == 0 &&
			strings.Contains(c.call("exec", "c1", "/probe", "open", "r", "/dev/one").stdout, "ENXIO")
	}},
	{"prints its plan", func(c *contender) bool {
		c.write(shell("true"))
		return c.call("plan").code == 0
	}},
	{"a report of what a container has used when it ends", func(c *contender) bool {
		c.write(shell("true"))
		return c.call("run", "--report", "report", "c1").code == 0 && c.left("report")
	}},
	{"checkpoint and restore", func(c *contender) bool {
		return c.call("checkpoint", "--help").code == 0 && strings.Contains(c.call("--help").stdout, "checkpoint")
	}},
}

// touch is a hook of the runtime's that leaves a file in the bundle.
func touch(c *contender, name string) []specs.Hook {
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", ": >" + filepath.Join(c.dir, name)}}}
}

// withDevice adds a device that has no driver, and rules.
func withDevice(s *specs.Spec, rules ...specs.LinuxDeviceCgroup) {
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/one", Type: "c", Major: 240, Minor: 1}}
	s.Linux.Resources = &specs.LinuxResources{Devices: rules}
}

// The comparison in the README is what comes out here; `make peers` writes it anew.
func TestREADMEPeers(t *testing.T) {
	if patience(1) > 1 {
		t.Skip("the README is about this machine; natively this is a part of make test")
	}
	box(t, func(t *testing.T) {
		contenders := []*contender{{newBundle(t, nil), []string{runtimePath()}}}
		head, line := "| | husk |", "|---|---|"
		for _, name := range peerNames {
			c := &contender{newBundle(t, nil), referenceOf(t, name)}
			version := strings.Fields(c.call("--version").stdout)
			head += fmt.Sprintf(" %s %s |", name, version[slices.Index(version, "version")+1])
			line += "---|"
			contenders = append(contenders, c)
		}
		table := head + "\n" + line + "\n"
		for _, row := range comparison {
			table += "| " + row.what + " |"
			for _, c := range contenders {
				table += map[bool]string{true: " yes |", false: " no |"}[row.yes(c)]
				c.call("delete", "--force", "c1")
			}
			table += "\n"
		}
		compareREADME(t, "| | husk |", head, table)
	})
}

// compareREADME compares the README's table that begins with mark, or writes it anew.
func compareREADME(t *testing.T, mark, head, table string) {
	t.Helper()
	const page = "../README.md"
	text := string(read(t, page))
	begin := strings.Index(text, "\n"+mark) + 1
	end := begin + strings.Index(text[begin:], "\n\n") + 1
	switch {
	case os.Getenv("HUSK_UPDATE") != "":
		must(t, os.WriteFile(page, []byte(text[:begin]+table+text[end:]), 0o644))
	case !strings.HasPrefix(text[begin:], head):
		t.Skipf("the README is about other versions than %s; make peers writes it anew", head)
	case text[begin:end] != table:
		t.Errorf("the README's comparison is not what comes out: make peers\n%s", table)
	}
}
