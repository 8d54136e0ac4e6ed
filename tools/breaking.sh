#!/bin/bash
# Fails when the API is no longer compatible with that of a commit ($1). The commit's files are
# unpacked for it, so that shallow clones and worktrees will do. Without a commit, or with one that
# has no API yet, there is nothing to be compatible with.
set -euo pipefail
cd "$(dirname "$0")/.."

base=${1:-}
if [ -z "$base" ] || ! git cat-file -e "$base:buf.yaml" 2>/dev/null || ! git cat-file -e "$base:proto/warren" 2>/dev/null; then
	echo "  no earlier API to compare with"
	exit 0
fi
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" buf.yaml proto | tar -x -C "$before"
bin/buf breaking --against "$before"
