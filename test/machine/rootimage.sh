#!/bin/bash
# Builds the root file system that every machine of the test lab boots from: a plain Debian with
# systemd, containerd and runc, as a user of Warren would have it.
#
# It is built once and kept outside the checkout, under a name that carries the hash of this script
# and the architecture, so that a changed script makes a new root and an unchanged one costs nothing.
# An interrupted build leaves no half-made root (it is built aside and renamed), and two builders at
# once make one root (the second waits for the first).
#
#   rootimage.sh          build it where it is missing
#   rootimage.sh --path   print where it is, or would be
set -euo pipefail

cache=${WARREN_TEST_CACHE:-/var/cache/warren-test}
mirror=${WARREN_TEST_MIRROR:-http://deb.debian.org/debian}
key=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
root=$cache/root-$key

if [ "${1:-}" = --path ]; then
	echo "$root"
	exit 0
fi
[ -e "$root" ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "rootimage.sh: building the machines' root file system needs root: run it with sudo" >&2
	exit 1
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -e "$root" ] && exit 0

# What an interrupted build left is of no use to anyone: the lock says nobody is at work on it.
rm -rf --one-file-system "$cache"/building.*
building=$cache/building.$$
log=$cache/build.log
trap 'rm -rf --one-file-system "$building"' EXIT

echo "building the test machines' root file system (a minute, once): $root"
base=systemd,systemd-sysv,dbus,udev,kmod,procps,ca-certificates
network=iproute2,iptables,nftables,iputils-ping,wireguard-tools,conntrack,curl
runtime=containerd,runc
if ! debootstrap --variant=minbase --include="$base,$network,$runtime" bookworm "$building" "$mirror" >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "rootimage.sh: debootstrap failed, see $log; another mirror can be given in WARREN_TEST_MIRROR" >&2
	exit 1
fi

# The name of a machine comes from its hypervisor, its identity from its first boot.
rm -f "$building/etc/hostname" "$building/etc/machine-id" "$building/var/lib/dbus/machine-id"
: >"$building/etc/machine-id"
rm -rf "$building"/var/cache/apt/*.bin "$building"/var/cache/apt/archives/*.deb "$building"/var/lib/apt/lists/*

# Nothing that works on a timer of its own, asks for a terminal or waits for hardware.
in_root() { chroot "$building" "$@" >>"$log" 2>&1; }
in_root systemctl mask getty.target console-getty.service getty@tty1.service systemd-udevd.service \
	systemd-udev-trigger.service systemd-networkd.service systemd-resolved.service systemd-timesyncd.service \
	systemd-network-generator.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer systemd-update-utmp.service \
	systemd-update-utmp-runlevel.service systemd-firstboot.service systemd-pstore.service nftables.service
in_root systemctl set-default multi-user.target
in_root systemctl enable containerd.service

# Where the host has cgroup v1, systemd-nspawn mounts the controllers read-only inside the machine.
# They are the machine's own (it has a cgroup namespace), so containers may be made in them.
install -d "$building/etc/systemd/system/sysinit.target.wants"
cat >"$building/etc/systemd/system/cgroup-controllers.service" <<'UNIT'
[Unit]
Description=Writable cgroup v1 controllers
DefaultDependencies=no
Before=sysinit.target
ConditionPathExists=!/sys/fs/cgroup/cgroup.controllers

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for c in /sys/fs/cgroup/*/; do mountpoint -q "$c" && mount -o remount,bind,rw "$c"; done; true'
UNIT
ln -s ../cgroup-controllers.service "$building/etc/systemd/system/sysinit.target.wants/"

# A machine's journal lasts as long as the machine, and takes no disk.
install -d "$building/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' >"$building/etc/systemd/journald.conf.d/test.conf"

mv "$building" "$root"

# Roots of older scripts are dropped once nobody can be using them.
find "$cache" -maxdepth 1 -name 'root-*' ! -path "$root" -mtime +14 -exec rm -rf --one-file-system {} +
echo "built $root ($(du -sh "$root" | cut -f1))"
