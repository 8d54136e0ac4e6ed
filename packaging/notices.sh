#!/bin/bash
# Prints the licenses of all modules that a program is linked of: most ask to be passed on with it.
set -euo pipefail
program=$1
echo "$(basename "$program") is linked of these modules, under these licenses."
go list -m -f '{{.Path}} {{.Dir}}' all >"${TMPDIR:-/tmp}/modules.$$"
trap 'rm -f "${TMPDIR:-/tmp}/modules.$$"' EXIT
go version -m "$program" | awk '$1 == "dep" { print $2, $3 }' | while read -r module version; do
	dir=$(awk -v module="$module" '$1 == module { print $2 }' "${TMPDIR:-/tmp}/modules.$$")
	found=$(find "$dir" -maxdepth 1 -type f \( -iname 'license*' -o -iname 'licence*' -o -iname 'copying*' -o -iname 'notice*' \) | sort)
	if [ -z "$found" ]; then
		echo "notices.sh: $module has no license in $dir" >&2
	fi
	printf '\n==== %s %s\n' "$module" "$version"
	for file in $found; do
		printf '\n'
		cat "$file"
	done
done
printf '\n==== Go %s\n\n' "$(go version "$program" | sed 's/.*go//')"
cat "$(go env GOROOT)/LICENSE"
