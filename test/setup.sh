#!/bin/bash
# Installs what tests and the demo need on a Debian machine that has Go, git and make, and builds the
# root file system of the test machines. What is there is left alone, so a second run takes no time.
#
#   setup.sh            what all tests but those of test/kernel need
#   setup.sh --kernel   what those need too: QEMU, and a disk with Debian's kernel
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

packages=()
want() { # command, packages that bring it
	command -v "$1" >/dev/null || packages+=("${@:2}")
}
want_file() {
	[ -e "$1" ] || packages+=("$2")
}
# Asked for by command, not by package: Docker's own package of containerd, say, will do.
want containerd containerd
want runc runc
want systemd-nspawn systemd-container
want debootstrap debootstrap
want gpgv gpgv
want_file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
want ip iproute2
want iptables iptables
want nft nftables
want nsenter util-linux
want lintian lintian
want rpm rpm
want rpmlint rpmlint
want apt-ftparchive apt-utils
want gpg gnupg
want gcc gcc # the race detector's
want_file /usr/include/stdlib.h libc6-dev
want_file /etc/ssl/certs/ca-certificates.crt ca-certificates

root=$("$here/machine/rootimage.sh" --path)
kernel=
if [ "${1:-}" = --kernel ]; then
	want qemu-system-x86_64 qemu-system-x86
	want mkfs.ext4 e2fsprogs
	kernel=$("$here/kernel/diskimage.sh" --path)
fi
if [ ${#packages[@]} = 0 ] && [ -e "$root" ] && [ -e "${kernel:-$root}" ]; then
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "setup: installing packages needs root, and there is no sudo: run \"make setup\" as root" >&2
		exit 1
	fi
	echo "setup: not root, so asking sudo to install what is missing"
	exec sudo -E "$0" "$@"
fi

if [ ${#packages[@]} -gt 0 ]; then
	if ! command -v apt-get >/dev/null; then
		echo "setup: this is not Debian; install what brings these Debian packages here: ${packages[*]}" >&2
		exit 1
	fi
	echo "setup: installing ${packages[*]}"
	log=$(mktemp)
	export DEBIAN_FRONTEND=noninteractive
	if ! { apt-get -o DPkg::Lock::Timeout=300 update &&
		apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		echo "setup: apt-get failed; all it said is in $log" >&2
		exit 1
	fi
	rm -f "$log"
fi

# A machine in a container cannot load modules into the host's kernel. One that is missing is either
# built in or will be missed by name.
modprobe --all --quiet overlay bridge br_netfilter veth tun nf_tables wireguard 2>/dev/null || true

"$here/machine/rootimage.sh"
[ -z "$kernel" ] || "$here/kernel/diskimage.sh"
