#!/bin/bash
# Builds the root file system of the machines on which Docker Swarm is measured: that of the test lab's machines
# with Debian's docker.io in it. Only "make bench SWARM=1" asks for it; this host gets no Docker.
#
#   swarmroot.sh          build it where it is missing
#   swarmroot.sh --path   print where it is, or would be
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

base=$("$here/../machine/rootimage.sh" --path)
cache=$(dirname "$base")
key=$(cat "${BASH_SOURCE[0]}" <(basename "$base") | sha256sum | cut -c1-12)
root=$cache/swarm-$key

if [ "${1:-}" = --path ]; then
	echo "$root"
	exit 0
fi
[ -e "$root" ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "swarmroot.sh: building the machines' root file system needs root: run it with sudo" >&2
	exit 1
fi

"$here/../machine/rootimage.sh"
exec 9>"$cache/lock" # rootimage.sh's: two builders at once make one root
flock 9
[ -e "$root" ] && exit 0
building=$cache/building.$$
log=$cache/swarm.log
trap 'rm -rf --one-file-system "$building"' EXIT

echo "building the root file system of Docker Swarm's machines (half a minute, once): $root"
cp -a --reflink=auto "$base" "$building"
resolver=$(readlink -f /etc/resolv.conf)
install -m 644 "$resolver" "$building/etc/resolv.conf"
install -m 755 /dev/stdin "$building/usr/sbin/policy-rc.d" <<<$'#!/bin/sh\nexit 101' # nothing is started here
in_root() { chroot "$building" env DEBIAN_FRONTEND=noninteractive "$@" >>"$log" 2>&1; }
: >"$log"
if ! { in_root apt-get update && in_root apt-get install -y --no-install-recommends docker.io; }; then
	tail -n 20 "$log" >&2
	echo "swarmroot.sh: installing docker.io failed, see $log" >&2
	exit 1
fi
rm -rf "$building"/usr/sbin/policy-rc.d "$building"/etc/resolv.conf \
	"$building"/var/cache/apt/*.bin "$building"/var/cache/apt/archives/*.deb "$building"/var/lib/apt/lists/*

# The engine's overlays cannot be on the machine's, but containerd's folder is on a disk proper. The registry of a lab
# (10.77.0.1) speaks plain HTTP.
install -d "$building/etc/docker"
cat >"$building/etc/docker/daemon.json" <<'JSON'
{"data-root": "/var/lib/containerd/docker", "insecure-registries": ["10.77.0.0/24"]}
JSON

mv "$building" "$root"
find "$cache" -maxdepth 1 -name 'swarm-*' -type d ! -path "$root" -mtime +14 -exec rm -rf --one-file-system {} +
echo "built $root ($(du -sh "$root" | cut -f1))"
