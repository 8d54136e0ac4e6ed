#!/bin/bash
# Has lintian, rpmlint and systemd judge the packages in a folder, and the units in them. Anything said is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
packages=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "lintian"
lintian --allow-root --fail-on error,warning "$packages"/*.deb
echo "rpmlint"
rpmlint --config packaging/rpmlint.toml "$packages"/*.rpm >"$work/rpmlint" || { cat "$work/rpmlint" >&2; exit 1; }
if grep -E '^[a-z-]+\.[a-z0-9_]+: [EW]:' "$work/rpmlint" >&2; then
	exit 1
fi

# systemd-analyze ends with 0 also where it complains. Its programs are looked for below a root, so they are given one.
echo "systemd-analyze"
for deb in "$packages"/*.deb; do
	dpkg-deb --extract "$deb" "$work/root"
done
units=$work/root/usr/lib/systemd/system
sed -i "s|=/usr/bin/|=$work/root/usr/bin/|; /^Documentation=/d" "$units"/*
said=$(SYSTEMD_UNIT_PATH="$units:/usr/lib/systemd/system" systemd-analyze verify --man=no "$units"/warren-* 2>&1) || true
if [ -n "$said" ]; then
	printf '%s\n' "$said" >&2
	exit 1
fi
# The limits are ten times systemd's figures.
for limit in warren-manager=20 warren-agent=52 warren-wireguard=25; do
	if ! systemd-analyze security --offline=true --threshold="${limit#*=}" "systemd/${limit%=*}.service" >"$work/security"; then
		cat "$work/security" >&2
		exit 1
	fi
	sed -n "s/→ Overall exposure level for \([a-z-]*\).service: \([0-9.]*\).*/\1: exposure \2/p" "$work/security"
done
echo "maintainer scripts"
for deb in "$packages"/*.deb; do
	rm -rf "$work/control"
	dpkg-deb --control "$deb" "$work/control"
	for script in "$work"/control/p*; do [ ! -e "$script" ] || sh -n "$script"; done
done
