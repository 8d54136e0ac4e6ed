#!/bin/bash
# Makes an apt repository of the .deb packages in a folder: OUT/ with packages, indices and warren.gpg, the key to trust.
#
#   apt-repo.sh DEBS OUT [KEY]
#
# KEY is a secret key of the caller's gpg, by id, fingerprint or mail address. Without one a throw-away key signs, which shows
# that the repository is whole, and not whose it is.
set -euo pipefail
umask 022 # who publishes it may be more careful, and apt reads it as a user of its own
debs=$1 out=$2 key=${3:-}
for program in apt-ftparchive gpg; do
	if ! command -v $program >/dev/null; then
		echo "apt-repo.sh: $program is missing: install the Debian packages apt-utils and gnupg, or run \"make setup\"" >&2
		exit 1
	fi
done
compgen -G "$debs/*.deb" >/dev/null || { echo "apt-repo.sh: no packages in $debs: run \"make packages\" first" >&2; exit 1; }

throwaway=
cleanup() {
	[ -z "$throwaway" ] || { GNUPGHOME=$throwaway gpgconf --kill all || true; rm -rf "$throwaway"; }
}
trap cleanup EXIT
if [ -z "$key" ]; then
	echo "apt-repo.sh: no key was named (KEY=...): a throw-away key signs this repository. Publish none that is signed so." >&2
	throwaway=$(mktemp -d)
	export GNUPGHOME=$throwaway
	key=throwaway@warren.invalid
	gpg --batch --quiet --passphrase '' --quick-generate-key "Warren throw-away key <$key>" ed25519 sign 30d 2>/dev/null
fi

rm -rf "$out"
mkdir -p "$out/pool" "$out/dists/stable/main"
out=$(cd "$out" && pwd)
cp "$debs"/*.deb "$out/pool/"
cd "$out"
architectures=
for arch in amd64 arm64; do
	compgen -G "pool/*_$arch.deb" >/dev/null || continue
	architectures="$architectures $arch"
	mkdir "dists/stable/main/binary-$arch"
	apt-ftparchive --arch "$arch" packages pool >"dists/stable/main/binary-$arch/Packages"
	gzip -9nk "dists/stable/main/binary-$arch/Packages"
done
release=$(mktemp)
apt-ftparchive -o APT::FTPArchive::Release::Origin=Warren -o APT::FTPArchive::Release::Label=Warren \
	-o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
	-o APT::FTPArchive::Release::Components=main -o APT::FTPArchive::Release::Architectures="${architectures# }" \
	release dists/stable >"$release"
install -m 0644 "$release" dists/stable/Release
rm -f "$release"
gpg --batch --yes --local-user "$key" --clearsign --output dists/stable/InRelease dists/stable/Release
gpg --batch --yes --local-user "$key" --armor --detach-sign --output dists/stable/Release.gpg dists/stable/Release
gpg --batch --yes --export "$key" >warren.gpg
echo "$out"
