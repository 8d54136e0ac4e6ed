#!/bin/bash
# Fails when the generated code differs from what "make generate" would make of proto/ now.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
bin/buf generate -o "$fresh"
bin/buf generate --template buf.gen.reference.yaml -o "$fresh"

generated() { (cd "$1" && echo docs/reference/api.md && find proto/warren -name '*.pb.go' -o -name '*.connect.go' | sort); }
stale=$(diff <(generated .) <(generated "$fresh") | sed -n 's/^[<>] //p')
for file in $(generated "$fresh"); do
	if [ -e "$file" ] && ! cmp -s "$file" "$fresh/$file"; then
		stale+=" $file"
	fi
done
if [ -n "$stale" ]; then
	echo "generated code is stale, run \"make generate\":" $stale >&2
	exit 1
fi
