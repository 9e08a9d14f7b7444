package runtime

import (
	"bytes"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The files below /proc/thread-self/attr by which a thread tells a security module what
// its next execve, or the next key that it makes, shall be labelled with. AppArmor has a
// directory of its own since Linux 5.8; the names beside it are those of whichever module
// comes first, and are left to SELinux, which has no others.
const (
	attrExec     = "exec"
	attrKey      = "keycreate"
	attrAppArmor = "apparmor/exec"
)

// unconfined is the profile of AppArmor that stands for none.
const unconfined = "unconfined"

// labels adds what the process is labelled with when it is executed, and startContainer
// hooks with it, which are programs of the image too. Nothing else may be executed after
// that: so create asks for it last of all.
func (p *Plan) labels(proc *specs.Process) {
	if name := proc.ApparmorProfile; name != "" && (name != unconfined || hasAppArmor()) {
		p.add(opLabel, "/process/apparmorProfile", attrAppArmor, "exec "+name)
	}
	if proc.SelinuxLabel != "" {
		p.add(opLabel, "/process/selinuxLabel", attrExec, proc.SelinuxLabel)
	}
}

// keyring adds the session keyring, with the label of the process that is to use it.
func (p *Plan) keyring(id string, proc *specs.Process) {
	label := ""
	if proc != nil {
		label = proc.SelinuxLabel
	}
	if label != "" {
		p.add(opLabel, "/process/selinuxLabel", attrKey, label)
	}
	p.add(opKeyring, "", "_ses."+id)
	if label != "" {
		p.add(opLabel, "/process/selinuxLabel", attrKey, "\n") // no longer
	}
}

// setLabel writes through the procfs of our own: a label written to what the container
// has on /proc instead would be lost (CVE-2019-16884) or do something else (CVE-2025-52881).
func (i *initer) setLabel(s *Step) error {
	return i.root.Proc().Write("thread-self/attr/"+s.Args[0], s.Args[1])
}

func (s *Step) labelText() string {
	label := strings.TrimSpace(s.Args[1])
	switch {
	case s.Args[0] == attrAppArmor:
		return "confine the process by AppArmor profile " + strings.TrimPrefix(label, "exec ")
	case s.Args[0] == attrExec:
		return "label the process " + label
	case label == "":
		return "label no more keys"
	}
	return "label keys " + label
}

// maxLabel is what one write(2) to a file of attr takes, without AppArmor's command.
const maxLabel = 4096 - len("exec ")

// labels reports a module that is off: a process that was to be confined must not run free.
func (v *validator) labels(p *specs.Process) {
	for _, l := range []label{
		{"/process/apparmorProfile", p.ApparmorProfile, "AppArmor", "apparmor=1 security=apparmor", hasAppArmor},
		{"/process/selinuxLabel", p.SelinuxLabel, "SELinux", bootSELinux, hasSELinux},
	} {
		v.label(l)
	}
}

// mountLabel is that of the files of what is mounted anew.
func (v *validator) mountLabel() {
	const field = "/linux/mountLabel"
	l := v.linux.MountLabel
	v.label(label{field, l, "SELinux", bootSELinux, hasSELinux})
	if l != "" && hasSELinux() && !isContext(l) {
		v.bad(field, quote(l)+" is not a context of the SELinux policy", "write it as in \"system_u:object_r:container_file_t:s0\"")
	}
}

// isContext asks the kernel whether the policy has a context. Who may not ask is told
// when something is mounted.
func isContext(label string) bool {
	fd, err := openPath("/sys/fs/selinux/context", unix.O_RDWR)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	_, err = retry(func() (int, error) { return unix.Write(fd, append([]byte(label), 0)) })
	return err != unix.EINVAL
}

const bootSELinux = "selinux=1 security=selinux and with a policy"

// label is a label, and what it needs.
type label struct {
	field, label, module, boot string
	on                         func() bool
}

func (v *validator) label(l label) {
	switch {
	case l.label == "" || l.label == unconfined && l.module == "AppArmor":
	case len(l.label) > maxLabel || strings.Contains(l.label, "\n"):
		v.bad(l.field, quote(l.label)+" is not a label", "write one line of at most 4091 bytes")
	case !l.on():
		v.bad(l.field, "needs "+l.module+", which is off here", "remove it, or boot the host with "+l.boot)
	}
}

func hasAppArmor() bool {
	b, err := readFile("/sys/module/apparmor/parameters/enabled", 4096)
	return err == nil && bytes.HasPrefix(b, []byte("Y"))
}

// hasSELinux: without a policy the kernel takes any label, and gives them no meaning.
func hasSELinux() bool {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/selinux", &st) != nil || st.Type != unix.SELINUX_MAGIC {
		return false
	}
	b, err := readFile("/proc/thread-self/attr/current", 4096)
	return err == nil && string(bytes.TrimRight(b, "\x00\n")) != "kernel"
}

func readFile(path string, limit int) ([]byte, error) {
	fd, err := openPath(path, unix.O_RDONLY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return readAll(fd, limit)
}
