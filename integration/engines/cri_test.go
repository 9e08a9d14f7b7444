package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// criLoad makes the images that critest would pull, and that of the process which holds
// the namespaces of a pod: busybox, which needs no registry. The programs in it are not
// symbolic links, since one of them is masked; some that its users want are scripts.
const criLoad = `
find image/bin -type l -delete
chroot image /bin/busybox --install /bin
echo 'nobody:x:65534:65534:nobody:/:/bin/sh
default-user:x:1000:1000::/:/bin/sh' >image/etc/passwd
echo 'root:x:0:
group-defined-in-image:x:50000:default-user' >image/etc/group
mkdir image/run image/var
ln -s ../run image/var/run
echo page >image/etc/index.html
program() { cat >image/bin/$1; chmod 755 image/bin/$1; }
program ipcs <<'end'
#!/bin/sh
cat /proc/sysvipc/shm
end
program pgrep <<'end'
#!/bin/sh
ps -o pid,comm | awk -v name="$1" '$2 == name { print $1 }'
end
program nginx <<'end'
#!/bin/sh
echo $$ >/run/nginx.pid
echo httpd
httpd -f -p $1 -h /etc
end
make() {
	name=$1
	shift
	tar -C image -c . | podman --root=/tmp/libpod import -q -c 'ENV PATH=/bin' "$@" - $name
	podman --root=/tmp/libpod save -q --format oci-archive -o $name.tar $name
	ctr -n k8s.io image import $name.tar
	rm $name.tar
}
name() { ctr -n k8s.io image tag --force localhost/$1:latest $2; }
make box -c CMD=sh
make user -c USER=1000
make pause -c 'CMD ["tail", "-f", "/dev/null"]'
make web -c 'CMD ["nginx", "80", "master process"]'
make hostweb -c 'CMD ["nginx", "12003"]'
name box docker.io/library/box:latest
name web docker.io/library/web:latest
name pause registry.k8s.io/pause:3.10
name box registry.k8s.io/e2e-test-images/busybox:1.29-2
name web registry.k8s.io/e2e-test-images/nginx:1.14-2
name web registry.k8s.io/e2e-test-images/httpd:2.4.39-4
name user gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest
name hostweb gcr.io/k8s-staging-cri-tools/hostnet-nginx-$(dpkg --print-architecture):latest`

// startCRI is containerd as a node of Kubernetes has it, without the node's kubelet: the
// plugin with which the kubelet speaks, and a network for its pods.
func startCRI(t *testing.T, s setting) *service {
	write(t, "/etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\ntimeout: 30\n")
	write(t, "/etc/cni/net.d/10-box.conflist", `{
	"cniVersion": "1.0.0",
	"name": "box",
	"plugins": [
		{
			"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
		},
		{"type": "portmap", "capabilities": {"portMappings": true}}
	]
}
`)
	const file = "/etc/containerd/config.toml"
	configure(t, file, s.runtime)
	config, err := os.ReadFile(file)
	must(t, err)
	write(t, file, handler(t, string(config), s))
	return serve(t, "crictl info", "/usr/bin/containerd")
}

// handler makes README.md's configuration of containerd that of a runtime, here.
func handler(t *testing.T, config string, s setting) string {
	binary, err := exec.LookPath(s.runtime)
	must(t, err)
	if !hasController("cpu") {
		binary = withoutShares(t, binary)
	}
	config = strings.NewReplacer(".runtimes.husk", ".runtimes."+s.runtime, "/usr/local/bin/husk", binary).Replace(config)
	if s.driver == "systemd" {
		config += "SystemdCgroup = true\n"
	}
	// A pod's processes are to be spared when memory runs out, which not every root may.
	if may, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err == nil && may == 0 {
		config += "\n[plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n"
	}
	return config
}

// withoutShares wraps a runtime for a box whose cgroups have no cpu: containerd limits the
// shares of every pod without asking whether anybody can, and none can then.
func withoutShares(t *testing.T, binary string) (path string) {
	path = "/usr/local/bin/" + filepath.Base(binary) + "-without-shares"
	write(t, path, `#!/bin/sh
for arg; do
	[ "$last" != --bundle ] || sed -i 's/"cpu":{"shares":2}/"cpu":{}/' "$arg/config.json"
	last=$arg
done
exec `+binary+` "$@"
`)
	must(t, os.Chmod(path, 0o755))
	return path
}
