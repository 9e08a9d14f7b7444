package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Hidden are the paths of the host that a job does not see, where they exist: homes, what
// runs, other file systems, and files of services and tools that keep keys, passwords and
// tokens, or what others have written. Most of them only root can read anyway, and then
// the job cannot; the rest is for those whose modes are wrong.
var Hidden = []string{
	"/boot", "/home", "/lost+found", "/media", "/mnt", "/root", "/run",
	"/etc/.pwd.lock", "/etc/NetworkManager/system-connections", "/etc/actions-runner", "/etc/apt/auth.conf",
	"/etc/apt/auth.conf.d", "/etc/boto.cfg", "/etc/containers/auth.json", "/etc/crypttab", "/etc/default/jenkins",
	"/etc/docker", "/etc/environment", "/etc/fstab", "/etc/gitlab-runner", "/etc/google", "/etc/gshadow",
	"/etc/gshadow-", "/etc/ipsec.secrets", "/etc/krb5.keytab", "/etc/kubernetes", "/etc/letsencrypt",
	"/etc/machine-id", "/etc/mysql/debian.cnf", "/etc/netplan", "/etc/openvpn", "/etc/pki/tls/private", "/etc/ppp",
	"/etc/rancher", "/etc/samba", "/etc/security/opasswd", "/etc/shadow", "/etc/shadow-", "/etc/ssh",
	"/etc/ssl/private", "/etc/sudoers", "/etc/sudoers.d", "/etc/waagent.conf", "/etc/wireguard",
	"/etc/wpa_supplicant",
	"/opt/actions-runner", "/srv/jenkins",
	"/var/backups", "/var/cache/debconf", "/var/cache/husk", "/var/crash", "/var/jenkins_home",
	"/var/lib/NetworkManager", "/var/lib/amazon", "/var/lib/buildkit", "/var/lib/buildkite-agent", "/var/lib/cloud",
	"/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/etcd", "/var/lib/gitlab-runner",
	"/var/lib/google", "/var/lib/incus", "/var/lib/jenkins", "/var/lib/kubelet", "/var/lib/libvirt", "/var/lib/lxd",
	"/var/lib/mysql", "/var/lib/postgresql", "/var/lib/private", "/var/lib/rancher", "/var/lib/redis",
	"/var/lib/sudo", "/var/lib/waagent", "/var/log", "/var/mail", "/var/snap", "/var/spool",
}

// ours are directories of "/" that a job has its own of.
var ours = []string{"dev", "proc", "sys", "tmp"}

// secret lists what is hidden, which includes where GitLab and Jenkins keep the secrets of
// jobs: beside their workspaces.
func (b *builder) secret() []string { return append(slices.Clip(Hidden), b.beside()...) }

func (b *builder) beside() []string { return []string{b.workspace + ".tmp", b.workspace + "@tmp"} }

// hidden says whether a path of the host, or one above it, is hidden.
func (b *builder) hidden(path string) bool {
	hides := func(h string) bool { return below(path, h) && !slices.Contains(b.o.Show, h) }
	return slices.ContainsFunc(Hidden, hides) || slices.ContainsFunc(b.beside(), hides)
}

// below says whether path is dir, or in it.
func below(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// root begins the mounts with the scratch and what the job sees as "/".
func (b *builder) root() error {
	// Whatever is named here is covered at once, so it does not have to be opened.
	b.spec.Root = &specs.Root{Path: "/"}
	rest := b.spec.Mounts
	b.spec.Mounts = nil
	b.mount(specs.Mount{Destination: "/", Type: "tmpfs", Source: "scratch", Options: []string{"mode=755", sizeOption(b.o.Size), "nosuid", "nodev"}})
	lower, err := b.lower()
	if err != nil {
		return err
	}
	b.overlay("/", lower)
	if !b.foreign() {
		if err := b.host(); err != nil {
			return err
		}
	}
	b.spec.Mounts = append(b.spec.Mounts, rest...)
	return nil
}

// lower mounts what is below the job's "/" in the scratch, and names it.
func (b *builder) lower() (string, error) {
	switch {
	case b.foreign() && len(b.o.Show) > 0:
		return "", bad("show", "leave it out", "nothing of the host is hidden in another root")
	case b.o.Image != "":
		return b.image()
	case b.o.Rootfs != "":
		return b.rootfs()
	}
	b.mount(specs.Mount{Destination: "/lower", Type: "tmpfs", Source: "empty", Options: []string{"mode=755", "size=4k"}})
	return "lower", nil
}

// mapped adds that root's ids on the disk are those of the job's root.
func (b *builder) mapped(options []string) []string {
	if b.uid == 0 {
		options = append(options, "idmap")
	}
	return options
}

func (b *builder) overlay(on, lower string) {
	b.overlays = append(b.overlays, on)
	b.mount(specs.Mount{Destination: on, Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + lower, "scratch", "nosuid", "nodev"}})
}

// host shows the directories of the host's "/", one by one: an overlay of "/" itself is
// something that the kernel refuses to a user namespace, because of all that is mounted
// below. The same goes for a directory with mounts below; it is shown as it is, and can
// then only be read.
func (b *builder) host() error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return bad("rootfs", "", "%w", err)
	}
	mounts, err := mountPoints()
	if err != nil {
		return bad("rootfs", "is /proc mounted?", "%w", err)
	}
	for _, e := range entries {
		path := "/" + e.Name()
		switch {
		case slices.Contains(ours, e.Name()) || b.hidden(path):
		case e.Type()&os.ModeSymlink != 0:
			b.mount(specs.Mount{Destination: path, Source: path, Options: []string{"bind", "copy-symlink"}})
		case !e.IsDir(): // files in "/" are nobody's business
		case strings.ContainsAny(path, `:,\"`) || slices.ContainsFunc(mounts, func(m string) bool { return m != path && below(m, path) }):
			b.mount(specs.Mount{Destination: path, Source: path, Options: []string{"rbind", "rro", "rnosuid", "rnodev"}})
		default:
			b.overlay(path, path)
		}
	}
	return b.hide()
}

// hide masks what is hidden below the directories that are shown. A mask is the last
// thing to be mounted, so what something else is mounted below gets an empty tmpfs.
func (b *builder) hide() error {
	for _, path := range b.o.Show {
		if !slices.Contains(Hidden, path) {
			return bad("show", "husk help sandbox lists what is hidden", "%s is not hidden", path)
		}
		b.loose("--show " + path)
	}
	targets := b.targets()
	for _, path := range b.secret() {
		if filepath.Dir(path) == "/" || !b.hidden(path) {
			continue
		}
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if slices.ContainsFunc(targets, func(t string) bool { return below(t, path) }) {
			b.mount(specs.Mount{Destination: path, Type: "tmpfs", Source: "hidden", Options: []string{"mode=755", "size=64k", "nosuid", "nodev"}})
			continue
		}
		b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, path)
	}
	return nil
}

// mountPoints lists those of this process.
func mountPoints() (list []string, err error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(table)) {
		if field := strings.Fields(line); len(field) > 4 {
			list = append(list, field[4])
		}
	}
	return list, err
}
