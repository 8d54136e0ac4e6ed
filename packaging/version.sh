#!/bin/bash
# Prints a version for packages, as dpkg and rpm both order it: v1.2.0 is 1.2.0, v1.2.0-rc.1 is 1.2.0~rc.1, which is
# before it, and commits after a tag are 1.2.0+4.gabcdef0. Before the first tag it is the commit's time.
#
#   version.sh VERSION COMMIT-TIME
set -euo pipefail
version=$1 time=$2 dirty=
if [[ $version == *-dirty ]]; then
	version=${version%-dirty} dirty=+dirty
fi
if [[ $version =~ ^v([0-9.]+)(-[A-Za-z][A-Za-z0-9.]*)?(-([0-9]+)-(g[0-9a-f]+))?$ ]]; then
	pre=${BASH_REMATCH[2]#-}
	version=${BASH_REMATCH[1]}${pre:+~$pre}${BASH_REMATCH[4]:++${BASH_REMATCH[4]}.${BASH_REMATCH[5]}}
else
	version=0~$(TZ=UTC date -d "$time" +%Y%m%d.%H%M%S)${version:+.$version}
fi
echo "$version$dirty"
