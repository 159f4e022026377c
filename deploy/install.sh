#!/bin/sh
# Installs pgentra for this user: picks the archive for this machine, compares its SHA-256 with SHA256SUMS, and puts the
# program into a folder. It changes nothing else.
#
#   sh install.sh [--from URL] [--to FOLDER] [--without-postgresql]
#
#   --from URL             where the archives and SHA256SUMS are (or PGENTRA_DOWNLOAD_URL)
#   --to FOLDER            where the program goes; ~/.local/bin by default
#   --without-postgresql   the smaller program for servers: `quickstart` and `local` need an installed PostgreSQL
set -eu

version=@VERSION@
from=${PGENTRA_DOWNLOAD_URL:-@BASE_URL@}
to=${HOME:-}/.local/bin
part=

failed() {
    echo "error: $1" >&2
    [ -z "${2:-}" ] || echo "hint: $2" >&2
    exit 1
}

# A pipe into `sh` that breaks off must run nothing: all of it is in a function that the last line calls.
main() {
    while [ $# -gt 0 ]; do
        case $1 in
        --from | --to) [ $# -ge 2 ] || failed "$1 takes a value" ;;
        esac
        case $1 in
        --from) from=$2 && shift ;;
        --to) to=$2 && shift ;;
        --without-postgresql) part=-no-postgresql ;;
        *) failed "unknown option $1" "sh install.sh [--from URL] [--to FOLDER] [--without-postgresql]" ;;
        esac
        shift
    done
    [ -n "$from" ] || failed "it is not known where to download from" "give the address of the archives with --from URL"
    [ "$to" != /.local/bin ] || failed "HOME is not set" "give a folder with --to FOLDER"
    [ "$(uname -s)" = Linux ] || failed "no archive for $(uname -s)" "build it: cargo install --locked --path crates/cli"
    case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) failed "no archive for $(uname -m)" "build it: cargo install --locked --path crates/cli" ;;
    esac

    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 1' HUP INT TERM
    name=pgentra-$version-$arch-linux$part
    download SHA256SUMS
    expected=$(awk -v name="$name.tar.gz" '$2 == name { print $1 }' "$folder/SHA256SUMS")
    [ -n "$expected" ] || failed "$from/SHA256SUMS does not name $name.tar.gz" "there is no archive for $arch in this release"
    download "$name.tar.gz"
    found=$(sha256 "$folder/$name.tar.gz")
    [ "$found" = "$expected" ] || failed "$name.tar.gz has the SHA-256 $found, SHA256SUMS says $expected; nothing was installed"

    tar -xzf "$folder/$name.tar.gz" -C "$folder"
    mkdir -p "$to"
    # A program that runs cannot be overwritten; its name can.
    cp "$folder/$name/pgentra" "$to/.pgentra.new"
    chmod 755 "$to/.pgentra.new"
    mv -f "$to/.pgentra.new" "$to/pgentra"
    echo "installed $("$to/pgentra" --version) in $to"
    case :$PATH: in
    *:"$to":*) ;;
    *) echo "hint: $to is not in PATH: export PATH=\"$to:\$PATH\"" ;;
    esac
}

download() {
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL -o "$folder/$1" "$from/$1" || failed "cannot download $from/$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -q -O "$folder/$1" "$from/$1" || failed "cannot download $from/$1"
    else
        failed "neither curl nor wget is installed"
    fi
}

sha256() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum "$1"
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 "$1"
    else
        failed "neither sha256sum nor shasum is installed"
    fi | cut -d ' ' -f 1
}

main "$@"
