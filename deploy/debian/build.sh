#!/usr/bin/env bash
# Builds the Debian package and prints its path: deploy/debian/build.sh [PROFILE], dist by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${1:-dist}
folder=$profile
[ "$profile" != dev ] || folder=debug
deb=target/tools/bin/cargo-deb
# The debug build of this tool takes a quarter of the release build's time.
[ -x "$deb" ] || cargo install cargo-deb --version 3.8.0 --locked --profile dev --root target/tools --target-dir target/tools/build >&2
cargo build --locked --package pgentra --profile "$profile" >&2
mkdir -p target/debian
pgentra=target/$folder/pgentra
"$pgentra" man >target/debian/pgentra.1
"$pgentra" completions bash >target/debian/pgentra.bash
"$pgentra" completions zsh >target/debian/_pgentra
"$pgentra" completions fish >target/debian/pgentra.fish
"$deb" --locked --no-build --package pgentra --profile "$profile" --output target/debian/
