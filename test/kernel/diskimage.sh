#!/bin/bash
# Builds the machine that test/kernel boots in QEMU: a disk with the root file system of the test
# machines and Debian's kernel in it, and beside the disk that kernel and its initial RAM disk, which
# QEMU loads itself.
#
# Like the root file system it is built once and kept outside the checkout, under a name that carries
# the hash of what it is made by.
#
#   diskimage.sh          build it where it is missing; the root file system must be there
#   diskimage.sh --path   print in which directory it is, or would be
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "$(uname -m)" != x86_64 ]; then
	echo "diskimage.sh: the machine is an amd64 one and runs the programs built here: build them on amd64" >&2
	exit 1
fi
cache=${WARREN_TEST_CACHE:-/var/cache/warren-test}
root=$("$here/../machine/rootimage.sh" --path)
key=$({ echo "$root" && cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-12)
image=$cache/kernel-$key

if [ "${1:-}" = --path ]; then
	echo "$image"
	exit 0
fi
[ -e "$image" ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "diskimage.sh: building the disk of the machine with a kernel of its own needs root: run it with sudo" >&2
	exit 1
fi

exec 9>"$cache/kernel.lock"
flock 9
[ -e "$image" ] && exit 0

rm -rf --one-file-system "$cache"/kernel-building.*
building=$cache/kernel-building.$$
log=$cache/kernel.log
trap 'rm -rf --one-file-system "$building"' EXIT
mkdir "$building" "$building/image"
disk=$building/root

echo "building the disk of the machine with a kernel of its own (half a minute, once): $image"
cp -a "$root" "$disk"

# The initial RAM disk need not find out what the disk hangs on.
install -d "$disk/etc/initramfs-tools/conf.d" "$disk/usr/share/initramfs-tools/modules.d"
echo 'MODULES=list' >"$disk/etc/initramfs-tools/conf.d/kernel-test"
printf '%s\n' virtio_pci virtio_blk ext4 >"$disk/usr/share/initramfs-tools/modules.d/kernel-test"

# The cloud kernel is the ordinary one without the drivers of hardware that QEMU does not have.
cp /etc/resolv.conf "$disk/etc/resolv.conf"
in_disk() { DEBIAN_FRONTEND=noninteractive chroot "$disk" "$@" >>"$log" 2>&1; }
: >"$log"
if ! { in_disk apt-get update && in_disk apt-get install -y --no-install-recommends linux-image-cloud-amd64; }; then
	tail -n 20 "$log" >&2
	echo "diskimage.sh: Debian's kernel could not be installed, see $log" >&2
	exit 1
fi
in_disk apt-get clean
rm -rf "$disk"/var/lib/apt/lists/* "$disk/etc/resolv.conf"
mv "$disk"/boot/vmlinuz-* "$building/image/vmlinuz"
mv "$disk"/boot/initrd.img-* "$building/image/initrd.img"
rm -f "$disk"/vmlinuz* "$disk"/initrd.img*

# In a machine whose hardware is its own the devices are its own to name.
in_disk systemctl unmask systemd-udevd.service systemd-udev-trigger.service
echo kernel >"$disk/etc/hostname"
echo '127.0.0.1 localhost kernel' >"$disk/etc/hosts"

# The second drive is a tar file of what is to be run here.
cat >"$disk/etc/systemd/system/second-drive.service" <<'UNIT'
[Unit]
Description=What is on the second drive
After=containerd.service

[Service]
Type=exec
StateDirectory=second-drive
WorkingDirectory=/var/lib/second-drive
ExecStart=/bin/sh -ec 'tar -xf /dev/vdb; exec sh run.sh'
TimeoutStopSec=5

[Install]
WantedBy=multi-user.target
UNIT
in_disk systemctl enable second-drive.service

mkfs.ext4 -q -F -d "$disk" "$building/image/disk.img" 3G >>"$log" 2>&1
mv "$building/image" "$image"

# Images of older scripts are dropped once nobody can be using them.
find "$cache" -maxdepth 1 -name 'kernel-*' -type d ! -path "$image" ! -path "$building" -mtime +14 -exec rm -rf --one-file-system {} +
echo "built $image ($(du -sh "$image" | cut -f1))"
