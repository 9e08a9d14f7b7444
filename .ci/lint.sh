#!/bin/sh
# What the house style and the architecture ask of the source, in about a minute.
set -eu
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto # as in the Makefile, for calls by hand
status=0
fail() {
	echo "lint: $*" >&2
	status=1
}

# tool NAME MODULE VERSION builds a linter once, with the project's own Go.
bin=$PWD/.cache/bin
toolchain=$(sed -n 's/^toolchain //p' go.mod)
tool() {
	[ -x "$bin/$1-$3" ] && return
	echo "lint: building $1 $3" >&2
	GOTOOLCHAIN=$toolchain GOBIN="$bin" go install "$2@$3"
	mv "$bin/$1" "$bin/$1-$3"
}
gofumpt=v0.12.0 shfmt=v3.14.1 staticcheck=v0.8.2
tool gofumpt mvdan.cc/gofumpt $gofumpt
tool shfmt mvdan.cc/sh/v3/cmd/shfmt $shfmt
tool staticcheck honnef.co/go/tools/cmd/staticcheck $staticcheck

# Sources: what git knows or would add.
go_files=$(git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do [ -e "$f" ] && echo "$f"; done)
scripts=$(git ls-files --cached --others --exclude-standard '*.sh' .ci/run | while read -r f; do [ -e "$f" ] && echo "$f"; done)

# shellcheck disable=SC2086 # lists of names without spaces
{
	unformatted=$("$bin/gofumpt-$gofumpt" -l $go_files) || fail 'gofumpt failed'
	[ -z "$unformatted" ] || fail "gofumpt would change: $unformatted"
	"$bin/shfmt-$shfmt" -d $scripts || fail 'shfmt would change scripts'
	if command -v shellcheck >/dev/null; then
		shellcheck -x $scripts || fail 'shellcheck'
	else
		echo 'lint: LEFT OUT: shellcheck is not installed' >&2
	fi
}
{ go vet ./... && go vet .ci/report.go; } || fail 'go vet'
# The kernel's types differ among architectures. Of what goes into husk without cgo: the
# rest takes a C compiler for each.
module=$(go list -m)
# shellcheck disable=SC2046 # a list of names without spaces
for arch in arm64 s390x; do
	CGO_ENABLED=0 GOARCH=$arch go vet $(go list -deps ./cmd/husk ./namespaces/linker ./runtime/unpacker | grep "^$module") || fail "go vet for $arch"
done
# SA1019: the specification's deprecated fields are to be honoured all the same.
"$bin/staticcheck-$staticcheck" -checks inherit,-SA1019 ./... || fail 'staticcheck'

# The leaves import no sibling: cmd → runtime → {namespaces, rootfs, cgroups, seccomp}.
leaves='namespaces rootfs cgroups seccomp'
for leaf in $leaves; do
	# shellcheck disable=SC2016 # a Go template
	go list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}' "./$leaf/..." |
		while read -r from to; do
			case $to in
			"$module/$leaf" | "$module/$leaf/"*) ;;
			"$module/"*) echo "$from imports $to" ;;
			esac
		done
done >.cache/siblings
[ ! -s .cache/siblings ] || fail "leaves import no sibling: $(cat .cache/siblings)"

# The command line needs the kernel for its terminal and for names of signals and errors.
raw=$(grep -l 'golang.org/x/sys/unix' cmd/husk/*.go | grep -vE '/(tty|kill|report)(_test)?\.go$' || true)
[ -z "$raw" ] || fail "system calls belong below cmd: $raw"

# Every package in the binary runs its init at each start; these cost the most, or
# read files that a container may control.
heavy=$(go list -deps ./cmd/husk | grep -E '^(net|net/http|os/user|regexp|text/template|C|runtime/cgo)$|protobuf|cilium/ebpf|spf13|urfave' || true)
[ -z "$heavy" ] || fail "not in the binary: $heavy"

# A path given twice can mean two files: in the rootfs everything goes by descriptor.
paths=$(grep -nE '\bos\.(Open|OpenFile|Create|Mkdir|MkdirAll|Remove|RemoveAll|Rename|Symlink|Link|Chmod|Chown|Lchown|Stat|Lstat|ReadFile|WriteFile|ReadDir|Readlink|Truncate)\(|\bunix\.(Mount|Open|Mknod|Mkdir|Symlink|Chmod|Chown|Unlink)\(' \
	rootfs/*.go | grep -v '_test\.go:' | grep -v '// path:' || true)
[ -z "$paths" ] || fail "path strings in rootfs (by descriptor, or say why in a comment '// path: …'):
$paths"

# Regular expressions compiled at start-up cost every start.
# shellcheck disable=SC2046 # a list of names without spaces
regexps=$(grep -nE '^(var )?.*= regexp\.MustCompile' $(echo "$go_files" | grep -v _test.go) || true)
[ -z "$regexps" ] || fail "package-level regexp: $regexps"

exit $status
