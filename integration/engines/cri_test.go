package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// criImages makes the images that critest would pull, and that of the process which holds
// the namespaces of a pod: busybox, which needs no registry. The programs in it are not
// symbolic links, since one of them is masked; some that its users want are scripts.
const criImages = `
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
	tar -C image -c . | store import -q -c 'ENV PATH=/bin' "$@" - $name
	deliver $name
}
make box -c CMD=sh
make user -c USER=1000
make pause -c 'CMD ["sh", "-c", "trap exit TERM; tail -f /dev/null & wait"]'
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

// The images are made by Podman: for containerd in a place of its own, from which they are
// copied; CRI-O and Podman share theirs.
const (
	criLoad = `
store() { podman --root=/tmp/libpod "$@"; }
deliver() {
	store save -q --format oci-archive -o $1.tar $1
	ctr -n k8s.io image import $1.tar
	rm $1.tar
}
name() { ctr -n k8s.io image tag --force localhost/$1:latest $2; }` + criImages
	crioLoad = `
store() { podman "$@"; }
deliver() { :; }
name() { podman tag localhost/$1:latest $2; }` + criImages
)

// startCRI is containerd as a node of Kubernetes has it, without the node's kubelet: the
// plugin with which the kubelet speaks, and a network for its pods.
func startCRI(t *testing.T, s setting) *service {
	startNode(t, "/run/containerd/containerd.sock")
	const file = "/etc/containerd/config.toml"
	config := handler(t, file, s)
	if s.driver == "systemd" {
		config += "SystemdCgroup = true\n"
	}
	write(t, file, config)
	return serve(t, "crictl info", "/usr/bin/containerd")
}

// startCRIO is the other one that a node has.
func startCRIO(t *testing.T, s setting) *service {
	startNode(t, "/run/crio/crio.sock")
	startPodman(t, s)
	const file = "/etc/crio/crio.conf.d/10-husk.conf"
	write(t, file, handler(t, file, s))
	write(t, "/etc/crio/crio.conf.d/20-box.conf", `[crio.runtime]
cgroup_manager = "`+s.driver+`"
[crio.image]
pause_image = "registry.k8s.io/pause:3.10"
pause_command = ""
[crio.network]
plugin_dirs = ["/usr/lib/cni"]
`)
	write(t, "/etc/containers/registries.conf", "unqualified-search-registries = [\"localhost\"]\n")
	return serve(t, "crictl info", "/usr/local/bin/crio")
}

// startNode configures what is said to either, and the network of pods.
func startNode(t *testing.T, socket string) {
	write(t, "/etc/crictl.yaml", "runtime-endpoint: unix://"+socket+"\ntimeout: 30\n")
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
}

// handler makes README.md's configuration of a node that of a runtime, here.
func handler(t *testing.T, file string, s setting) string {
	configure(t, file, s.runtime)
	config, err := os.ReadFile(file)
	must(t, err)
	binary, err := exec.LookPath(s.runtime)
	must(t, err)
	if edits := impossible(); edits != nil {
		binary = without(t, binary, edits)
	}
	return strings.NewReplacer(".runtimes.husk", ".runtimes."+s.runtime, "/usr/local/bin/husk", binary, "/run/husk", "/run/"+s.runtime).Replace(string(config))
}

// impossible is what an engine wants for every pod without asking whether anybody can, and
// none can here: sed(1) takes it out of a config.json.
func impossible() (edits []string) {
	if !hasController("cpu") {
		edits = append(edits, `s/"shares": *2\b/"shares":0/`)
	}
	// Processes that are spared when memory runs out.
	if may, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err == nil && may == 0 {
		edits = append(edits, `s/"oomScoreAdj": *-998/"oomScoreAdj":0/`)
	}
	return edits
}

// without wraps a runtime, which then gets an edited config.json.
func without(t *testing.T, binary string, edits []string) (path string) {
	path = "/usr/local/bin/" + filepath.Base(binary) + "-without"
	write(t, path, `#!/bin/sh
for arg; do
	[ "$last" != --bundle ] || sed -i '`+strings.Join(edits, ";")+`' "$arg/config.json"
	last=$arg
done
exec `+binary+` "$@"
`)
	must(t, os.Chmod(path, 0o755))
	return path
}
