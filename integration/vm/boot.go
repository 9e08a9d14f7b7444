package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errNoBoot says that nothing of ours ran: the firmware, the kernel or the emulator
// failed. That is worth a second try; whatever comes later is a result.
var errNoBoot = errors.New("the machine died before the tests began")

// boot runs one machine to its end and returns the job's exit status.
func boot(o *options, kernel, root string, payload *os.File) (int, error) {
	console, err := unnamed(0)
	if err != nil {
		return 0, err
	}
	defer console.Close()
	m, err := newMachine(o, kernel, root, payload, console)
	if err != nil {
		return 0, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	in, err := m.cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	// The port would close for both directions if its input ended.
	defer in.Close()
	if o.command != nil {
		go io.Copy(in, os.Stdin)
	}
	if err := m.cmd.Start(); err != nil {
		return 0, err
	}
	timer := time.AfterFunc(o.bootTime, func() { m.cmd.Process.Kill() })
	c := &talk{json: o.json, name: o.name(), status: -1, ready: func() { timer.Reset(o.timeout) }}
	err = c.listen(out)
	waited := m.cmd.Wait()
	hung := !timer.Stop()
	if c.status < 0 {
		copyConsole(console)
	}
	switch {
	case err != nil:
		return 0, err
	case c.status >= 0:
		return c.status, m.fetch()
	case !c.booted:
		return 0, fmt.Errorf("%w: %v", errNoBoot, waited)
	case hung:
		return 0, fmt.Errorf("killed after %v", o.timeout)
	}
	return 0, fmt.Errorf("the machine died while the tests ran: %v", waited)
}

func copyConsole(f *os.File) {
	if _, err := f.Seek(0, io.SeekStart); err == nil {
		io.Copy(os.Stderr, f)
	}
}

type machine struct {
	cmd    *exec.Cmd
	result *os.File
}

const mib = 1 << 20

func newMachine(o *options, kernel, root string, payload, console *os.File) (*machine, error) {
	half := strconv.Itoa(o.memory/2) + "M"
	m := &machine{cmd: exec.Command("qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-smp", "2", "-m", strconv.Itoa(o.memory),
		// Two memory nodes, so that cpuset.mems has a choice.
		"-object", "memory-backend-ram,id=m0,size="+half, "-numa", "node,memdev=m0,cpus=0",
		"-object", "memory-backend-ram,id=m1,size="+half, "-numa", "node,memdev=m1,cpus=1",
		"-kernel", kernel+"/vmlinuz", "-initrd", kernel+"/initrd",
		"-append", "console=ttyS0 panic=-1 tsc=reliable no_timer_check nokaslr norandmaps "+map[bool]string{true: "loglevel=7", false: "quiet"}[o.verbose]+o.module(),
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=job,signal=off", "-device", "virtserialport,chardev=job,name=husk")}
	m.cmd.Args = append(m.cmd.Args, accelerator(kernel)...)
	serial := m.pass(console)
	if o.verbose {
		serial = "/dev/stderr"
	}
	m.cmd.Args = append(m.cmd.Args, "-serial", "file:"+serial)
	m.disk(root, "snapshot=on")
	m.disk(kernel+"/modules.ext4", "readonly=on")
	m.disk(m.pass(payload), "readonly=on")
	for i, size := range []int64{256, 512, 512, 512} {
		f, err := unnamed(size * mib)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			m.result = f
		}
		m.disk(m.pass(f), "cache=unsafe,discard=unmap")
	}
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return m, nil
}

// module makes a security module the one that is on, of which the kernel has the policy to
// get from somebody yet. Debian's choice is AppArmor.
func (o *options) module() string {
	if o.lsm == "" {
		return ""
	}
	return " security=" + o.lsm + " " + o.lsm + "=1"
}

// pass hands a file on and returns its name over there.
func (m *machine) pass(f *os.File) string {
	m.cmd.ExtraFiles = append(m.cmd.ExtraFiles, f)
	return "/proc/self/fd/" + strconv.Itoa(2+len(m.cmd.ExtraFiles))
}

func (m *machine) disk(path, option string) {
	m.cmd.Args = append(m.cmd.Args, "-drive", "if=virtio,format=raw,file="+path+","+option)
}

// haveKVM asks the processor, too: some machines show the device without being able.
func haveKVM() bool {
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	if !bytes.Contains(cpu, []byte(" vmx ")) && !bytes.Contains(cpu, []byte(" svm ")) {
		return false
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// accelerator is emulation where there is no KVM, by one thread per processor for kernels
// that bear it: those from Linux 7 on patch their own code in a way that several threads
// now and then get wrong (Oops: int3).
func accelerator(kernel string) []string {
	if haveKVM() {
		return []string{"-M", "q35", "-accel", "kvm", "-cpu", "host"}
	}
	threads := "single"
	if version, err := os.ReadFile(kernel + "/version"); err == nil && version[0] < '7' {
		threads = "multi"
	}
	return []string{"-M", "q35", "-accel", "tcg,thread=" + threads, "-cpu", "max"}
}

// fetch unpacks what the job left.
func (m *machine) fetch() error {
	tar := exec.Command("tar", "-x", "-C", stage+"/out")
	if _, err := m.result.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tar.Stdin, tar.Stderr = m.result, os.Stderr
	return tar.Run()
}

// A talk is what comes through the port: output, and lines in which the guest tells
// how far it is.
type talk struct {
	json  bool
	name  string
	ready func()

	booted bool
	status int // of the job; -1: none yet
	tests  *exec.Cmd
	sink   io.WriteCloser // where output goes while a package is tested
}

func (c *talk) listen(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if word, ok := strings.CutPrefix(line, "husk-vm: "); ok {
			if err := c.obey(strings.Fields(word)); err != nil {
				return err
			}
		} else if err := c.print(line); err != nil {
			return err
		}
		if err != nil {
			return c.end()
		}
	}
}

func (c *talk) print(line string) error {
	if c.sink == nil {
		if c.booted {
			_, err := io.WriteString(os.Stdout, line)
			return err
		}
		return nil
	}
	_, err := io.WriteString(c.sink, line)
	return err
}

func (c *talk) obey(word []string) error {
	switch word[0] {
	case "ready":
		c.booted = true
		c.ready()
		fmt.Fprintln(os.Stderr, "vm: Linux", word[1])
	case "begin":
		return c.begin(c.name + "/" + word[1])
	case "end":
		return c.end()
	case "exit":
		status, err := strconv.Atoi(word[1])
		c.status = status
		return err
	}
	return nil
}

// begin sends what follows through test2json.
func (c *talk) begin(name string) error {
	if !c.json {
		return nil
	}
	c.tests = exec.Command("go", "tool", "test2json", "-t", "-p", name)
	c.tests.Stdout, c.tests.Stderr = os.Stdout, os.Stderr
	var err error
	if c.sink, err = c.tests.StdinPipe(); err != nil {
		return err
	}
	return c.tests.Start()
}

func (c *talk) end() error {
	if c.sink == nil {
		return nil
	}
	c.sink.Close()
	c.sink = nil
	return c.tests.Wait()
}
