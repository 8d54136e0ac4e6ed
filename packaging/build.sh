#!/bin/bash
# Makes the packages of one architecture, .deb and .rpm, of programs that "make build" has made. The same commit makes the same
# packages, to the byte.
#
#   build.sh ARCH BIN DOCUMENTS OUT
#
# DOCUMENTS is what the programs have written about themselves. VERSION and COMMIT_TIME come from the environment, NFPM too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export ARCH=$1 BIN=$2 OUT=$4
documents=$3
export SOURCE_DATE_EPOCH MAINTAINER='Warren maintainers <opensource@cuemby.com>' RELEASE=
SOURCE_DATE_EPOCH=$(date -d "$COMMIT_TIME" +%s)
VERSION=$(packaging/version.sh "$VERSION" "$COMMIT_TIME")
export VERSION
export TZ=UTC LC_ALL=C
umask 022

WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$OUT" "$WORK"/{man1,man8,deb,rpm,notices}
rm -f "$OUT"/*"$ARCH".deb "$OUT"/*."$([ "$ARCH" = amd64 ] && echo x86_64 || echo aarch64)".rpm

cp "$documents"/{manager,agent}.yaml "$documents"/warrenctl.{bash,zsh,fish} "$WORK"
for page in "$documents"/*.[18]; do
	gzip -9n <"$page" >"$WORK/man${page##*.}/$(basename "$page").gz"
done
cat >"$WORK/copyright" <<TEXT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Warren
Source: https://github.com/cuemby/warren
Comment: The programs are linked of modules whose licenses are in THIRD-PARTY.gz beside this file.

Files: *
Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) Cuemby and the authors of Warren
License: Apache-2.0
 On Debian systems, the text of the license is in /usr/share/common-licenses/Apache-2.0.
TEXT
gzip -9n >"$WORK/changelog.gz" <<TEXT
warren ($VERSION) unstable; urgency=medium

  * What users notice: https://github.com/cuemby/warren, CHANGELOG.md

 -- $MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
TEXT

for page in "$WORK"/man1/*; do
	echo "  - {src: \"$page\", dst: /usr/share/man/man1/$(basename "$page"), packager: rpm, type: doc, file_info: {mode: 0644}}"
done >"$WORK/pages"

# fill SCRIPT FORMAT DAEMON: a maintainer script of a daemon.
fill() {
	local units=$3.service part piece
	[ "$3" = warren-agent ] && units="warren-wireguard.socket $units"
	while IFS= read -r line || [ -n "$line" ]; do
		for part in TAKEDOWN PURGE; do
			if [[ $line == "@$part@"* ]]; then
				piece=packaging/$2/$3.${part,,}
				[ ! -e "$piece" ] || cat "$piece"
				line=${line#"@$part@"}
			fi
		done
		line=${line//@DAEMON@/$3}
		printf '%s\n' "${line//@UNITS@/$units}"
	done <"packaging/$2/$1"
}
for daemon in warren-manager warren-agent; do
	for script in postinst prerm postrm; do fill $script deb $daemon >"$WORK/deb/$daemon.$script"; done
	for script in post preun postun; do fill $script rpm $daemon >"$WORK/rpm/$daemon.$script"; done
done

# nfpm_package ARGS: nfpm tells what is wrong where it tells everything.
nfpm_package() {
	"$NFPM" package "$@" >"$WORK/nfpm" || { cat "$WORK/nfpm" >&2; return 1; }
}
for package in warren-manager warren-agent warrenctl; do
	packaging/notices.sh "$BIN/$package" | gzip -9n >"$WORK/notices/$package.gz"
	# nfpm expands variables in some fields alone.
	sed -e "s|\${WORK}|$WORK|g" -e "s|\${BIN}|$BIN|g" -e "s|\${RELEASE}|$RELEASE|" -e "/build.sh puts them here/r $WORK/pages" "packaging/$package.yaml" >"$WORK/$package.yaml"
	find "$WORK" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	nfpm_package --config "$WORK/$package.yaml" --packager deb --target "$OUT/"
	# In .rpm a description does not begin with the summary, and a release is a part of the version.
	sed -i -e "s|^release:.*|release: 1|" -e '/^description: |$/{n;d}' "$WORK/$package.yaml"
	nfpm_package --config "$WORK/$package.yaml" --packager rpm --target "$OUT/"
done
