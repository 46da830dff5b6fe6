#!/bin/sh
# Makes gomod/<component>/<version>/{go.mod,go.sum}: the modules that `slipway artifacts build` compiles from.
#
#   ./generate.sh kubernetes v1.36.4        (also: etcd, containerd, runc, cni, coredns)
#
# Never edit what it writes by hand. Each component and version has a module of its own: in a shared one, minimal version
# selection would build etcd with Kubernetes' gRPC. `tool` lines keep the main packages through `go mod tidy`.
set -eu
component=$1 version=$2
export GOTOOLCHAIN=local GOWORK=off GOFLAGS=-mod=mod

# field MODULE JSON-FIELD: what the go command says about a downloaded module.
field() { go mod download -json "$1@$version" | sed -n "s/^\t\"$2\": \"\(.*\)\",\{0,1\}$/\1/p"; }
go_line() { sed -n 's/^go //p' "$1"; }

cd "$(dirname "$0")"
mkdir -p "$component/$version"
cd "$component/$version"
rm -f go.mod go.sum

# start MODULE: a go.mod that asks for the Go version the component asks for, and sets its run-time defaults
# (`godebug` counts in the main module only).
start() {
  upstream=$(field "$1" GoMod)
  {
    echo "module slipway.dev/build/$component"
    echo
    echo "go $(go_line "$upstream")"
    sed -n 's/^godebug default=/\ngodebug default=/p' "$upstream"
  } >go.mod
}

case $component in
kubernetes)
  start k8s.io/kubernetes
  # Its go.mod points the staging modules at directories, which a consumer has not got: v1.36.4 is published as v0.36.4.
  sed -n 's|^[[:space:]]*\(k8s.io/[^ ]*\) => ./staging/.*|\1|p' "$upstream" | while read -r staging; do
    go mod edit -replace "$staging=$staging@v0.${version#v1.}"
  done
  go mod edit -require "k8s.io/kubernetes@$version"
  for command in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    go mod edit -tool "k8s.io/kubernetes/cmd/$command"
  done
  ;;
etcd)
  start go.etcd.io/etcd/server/v3
  for module in server etcdctl etcdutl; do
    go mod edit -require "go.etcd.io/etcd/$module/v3@$version" -tool "go.etcd.io/etcd/$module/v3"
  done
  ;;
containerd)
  start github.com/containerd/containerd/v2
  go mod edit -require "github.com/containerd/containerd/v2@$version"
  for command in containerd containerd-shim-runc-v2 ctr; do
    go mod edit -tool "github.com/containerd/containerd/v2/cmd/$command"
  done
  ;;
runc)
  start github.com/opencontainers/runc
  go mod edit -require "github.com/opencontainers/runc@$version" -tool github.com/opencontainers/runc
  ;;
cni)
  start github.com/containernetworking/plugins
  go mod edit -require "github.com/containernetworking/plugins@$version"
  for plugin in main/bridge main/loopback ipam/host-local meta/portmap; do
    go mod edit -tool "github.com/containernetworking/plugins/plugins/$plugin"
  done
  ;;
coredns)
  start github.com/coredns/coredns
  go mod edit -require "github.com/coredns/coredns@$version" -tool github.com/coredns/coredns
  ;;
*)
  echo "generate.sh: no component $component; use kubernetes, etcd, containerd, runc, cni or coredns" >&2
  exit 2
  ;;
esac

go mod tidy
