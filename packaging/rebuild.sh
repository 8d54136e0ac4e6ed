#!/bin/bash
# Makes packages a second time, of a copy of these sources in another folder, by a user of other habits, and compares them with
# those that are there, to the byte. VERSION, COMMIT and DATE come from the environment: a copy has no history.
#
#   rebuild.sh TARGET PACKAGES
#
# TARGET is make's that has made PACKAGES, a folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$1 packages=$2
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

umask 077
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- --touch --ignore-failed-read 2>/dev/null |
	tar --extract --touch --directory "$copy"
mkdir "$copy/bin"
cp bin/nfpm "$copy/bin/"
env TZ=Pacific/Auckland LC_ALL=C.UTF-8 make --directory "$copy" "$target" VERSION="$VERSION" COMMIT="$COMMIT" DATE="$DATE" >"$copy/said" 2>&1 ||
	{ cat "$copy/said" >&2; exit 1; }

compared=0
for package in "$packages"/*.{deb,rpm}; do
	if ! cmp "$package" "$copy/$package"; then
		echo "rebuild.sh: the same sources make another $(basename "$package")" >&2
		exit 1
	fi
	compared=$((compared + 1))
done
echo "$compared packages: the same bytes, made again elsewhere"
