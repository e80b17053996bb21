#!/usr/bin/env bash
# The real clients and services that the black-box tests and benchmarks drive: from Debian, and where Debian stable is
# too old (oras, crane, cosign, docker's client) from a newer suite, unpacked into a cache folder with nothing installed on
# the system. So are promtool, which checks alert rules, and docker's engine with its client, in docker-engine/: their packages
# would bring services along. What
# Debian does not have in the version that is wanted (helm, regctl, a newer docker-registry), Go builds into the same folder.
# usage: bash scripts/services/clients.sh      prints the folder that holds the newer clients; a no-op when all is there
# needs: Debian 12 with its own apt configuration; Go; root, where packages have to be installed
set -euo pipefail

packages=(skopeo buildah podman radosgw ceph-mon ceph-osd ceph-common docker-registry wrk nginx-light postgresql-15 spin gcc)
newer=(oras crane cosign docker)
package_of() { case $1 in docker) echo docker-cli ;; *) echo "$1" ;; esac; }
suite=forky
# Program, module and version.
built=(
  "helm helm.sh/helm/v3/cmd/helm v3.22.0"
  "regctl github.com/regclient/regclient/cmd/regctl v0.11.7"
  "registry github.com/distribution/distribution/v3/cmd/registry v3.1.0"
)
dir="${XDG_CACHE_HOME:-$HOME/.cache}/packs-registry/clients"
bin="$dir/root/usr/bin"

mkdir -p "$dir"
exec 9>"$dir/lock" # two test runs at once: the second waits and finds everything there
flock 9

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  # Tests start their own services on free ports: the packages' own must not take port 80 or 5000.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2
  apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >&2
fi

unpack_newer() {
  echo "unpacking ${newer[*]} of $suite" >&2
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' "Release: $(. /etc/os-release; echo "$VERSION_CODENAME")" | head -n 1)
  [ -n "$mirror" ] || { echo "apt names no Debian mirror" >&2; exit 1; }
  work=$(mktemp -d "$dir/work.XXXXXX")
  mkdir -p "$work"/{lists/partial,cache/archives/partial,deb,root}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
  cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
  (
    cd "$work/deb"
    export APT_CONFIG="$work/apt.conf"
    apt-get update -qq >&2
    for client in "${newer[@]}"; do apt-get download -qq "$(package_of "$client")" >&2; done
    for package in *.deb; do dpkg -x "$package" "$work/root"; done
  )
  # One by one, so that a test that runs now always finds its client.
  mkdir -p "$bin"
  for client in "${newer[@]}"; do mv -f "$work/root/usr/bin/$client" "$bin/$client"; done
  rm -rf "$work"
}

unpack_promtool() {
  echo 'unpacking promtool' >&2
  work=$(mktemp -d "$dir/work.XXXXXX")
  (
    cd "$work"
    apt-get update -qq >&2
    apt-get download -qq -o APT::Sandbox::User=root prometheus >&2
    dpkg -x prometheus_*.deb root
  )
  mv "$work/root/usr/bin/promtool" "$bin/promtool"
  rm -rf "$work"
}

unpack_docker() {
  echo 'unpacking the engine of docker' >&2
  work=$(mktemp -d "$dir/work.XXXXXX")
  (
    cd "$work"
    apt-get update -qq >&2
    apt-get download -qq -o APT::Sandbox::User=root docker.io containerd runc >&2
    for package in *.deb; do dpkg -x "$package" root; done
    mv root/usr/sbin/* root/usr/bin/
  )
  mv "$work/root/usr/bin" "$bin/docker-engine"
  rm -rf "$work"
}

for client in "${newer[@]}"; do
  [ -x "$bin/$client" ] || { unpack_newer; break; }
done
for program in "${built[@]}"; do
  read -r name module version <<<"$program"
  own="$dir/go/$name-$version"
  if [ ! -x "$own/$name" ]; then
    echo "building $name $version" >&2
    GOBIN="$own" go install "$module@$version" >&2
  fi
  ln -sfn "$own/$name" "$bin/$name"
done
[ -x "$bin/promtool" ] || unpack_promtool
[ -d "$bin/docker-engine" ] || unpack_docker
echo "$bin"
