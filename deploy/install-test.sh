#!/usr/bin/env bash
# Makes everything that can be installed and installs it, as a person would: archives, the shell installer, the wheel, the npm
# packages, the container images, the charts, the Debian and the RPM package. What a machine cannot do is named; it fails there only
# where CI=true. `deploy/install-test.sh` builds with the quick profile; a folder of artefacts as its argument is tested instead.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
work=$top/target/install-test
mkdir -p "$work"
arch=$(uname -m)
passed=0
omitted=0

shows() {
    passed=$((passed + 1))
    echo "install: $1"
}
failed() {
    echo "install: FAILED: $1" >&2
    exit 1
}
left_out() {
    echo "install: left out: $1" >&2
    omitted=$((omitted + 1))
}
# Debian's package for each program that is not there.
wanted=
for pair in ruby:ruby skopeo:skopeo npm:npm ss:iproute2; do
    command -v "${pair%:*}" >/dev/null || wanted="$wanted ${pair#*:}"
done
if [ -n "$wanted" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $wanted; } >/dev/null 2>&1 ||
        echo "install: these packages could not be installed:$wanted" >&2
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

dist() { cargo run --quiet --locked --package xtask -- dist --profile "${PROFILE:-unoptimized}" --arch "$arch" "$@"; }
site=$work/site
if [ $# -gt 0 ]; then
    artifacts=$(cd "$1" && pwd)
else
    artifacts=$top/target/artifacts
    dist --twice --base-url "file://$site"
    shows "two runs make the same bytes"
fi
rm -rf "$site"
cp -r "$artifacts" "$site"

folder=$(mktemp -d "$work/run.XXXXXX")
server=
clean() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    rm -rf "$folder"
}
trap clean EXIT
# Runs a command of docs/install.md as it stands there; each is run once, see the end.
typed=$folder/typed
: >"$typed"
page() {
    grep -q -x -F -- "\$ $1" docs/install.md || failed "docs/install.md does not have: $1"
    echo "$1" >>"$typed"
    (cd "$site" && env -i HOME="$folder/home" PATH="${2:+$2:}$PATH" npm_config_cache="$folder/npm-cache" npm_config_offline=true PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 bash -c "$1" >"$folder/said" 2>&1) ||
        { cat "$folder/said" >&2; failed "$1"; }
}
elsewhere() {
    echo "$1" >>"$typed"
}
says_its_version() { [ "$("$@" --version)" = "pgentra $version" ]; }

page "sha256sum --check --ignore-missing SHA256SUMS"
(cd "$site" && sha256sum --quiet --check SHA256SUMS) || failed "SHA256SUMS does not fit"
shows "SHA256SUMS fits every file"

# --- archives
page "tar -xzf pgentra-0.1.0-x86_64-linux.tar.gz"
page "pgentra-0.1.0-x86_64-linux/pgentra quickstart"
for part in "" -no-postgresql; do
    name=pgentra-$version-$arch-linux$part
    tar -xzf "$artifacts/$name.tar.gz" -C "$folder"
    says_its_version "$folder/$name/pgentra" || failed "$name.tar.gz: the program does not say its version"
    ! ldd "$folder/$name/pgentra" 2>/dev/null | grep -q '=>' || failed "$name.tar.gz: the program is not static"
    ! grep -q -a -F -e "$top" -e "$HOME/.cargo" "$folder/$name/pgentra" || failed "$name.tar.gz: a path of this machine is in it"
done
full=$folder/pgentra-$version-$arch-linux/pgentra
small=$folder/pgentra-$version-$arch-linux-no-postgresql/pgentra
! "$small" quickstart >"$folder/quickstart" 2>&1 || failed "the program without PostgreSQL runs quickstart"
grep -q -- '--postgres' "$folder/quickstart" || failed "the program without PostgreSQL does not name --postgres"
shows "archives: static, no path of this machine; quickstart with PostgreSQL, a hint without"

# --- the shell installer, over HTTP
python3 - "$site" "$folder/port" <<'PY' &
import functools, http.server, pathlib, sys
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
port = pathlib.Path(sys.argv[2])
port.with_suffix(".new").write_text(str(server.server_address[1]))
port.with_suffix(".new").rename(port)
server.serve_forever()
PY
server=$!
for _ in $(seq 100); do
    [ ! -e "$folder/port" ] || break
    sleep 0.1
done
url=http://127.0.0.1:$(cat "$folder/port")
install_sh() { env -i HOME="$folder/home" PATH="$PATH" sh "$artifacts/install.sh" "$@"; }
page 'sh install.sh --from "file://$PWD"'
grep -q 'is not in PATH' "$folder/said" || failed "install.sh does not say that its folder is not in PATH"
says_its_version "$folder/home/.local/bin/pgentra" || failed "install.sh installs something else"
page 'sh install.sh --from "file://$PWD" --to ~/bin --without-postgresql'
cmp -s "$folder/home/bin/pgentra" "$small" || failed "install.sh --without-postgresql installs the other program"
install_sh --from "$url" --to "$folder/to" --without-postgresql >/dev/null || failed "install.sh fails over HTTP"
cmp -s "$folder/to/pgentra" "$small" || failed "install.sh --without-postgresql installs the other program"
if [ $# -eq 0 ]; then
    install_sh --to "$folder/default" >/dev/null || failed "install.sh does not know its own address"
    says_its_version "$folder/default/pgentra" || failed "install.sh with its own address installs something else"
fi
for file in "$site"/pgentra-*-linux.tar.gz; do printf x >>"$file"; done
! install_sh --from "$url" --to "$folder/bad" 2>"$folder/said" || failed "install.sh installs an archive with a wrong hash"
grep -q 'nothing was installed' "$folder/said" || failed "install.sh does not say what it did with a wrong hash"
[ ! -e "$folder/bad/pgentra" ] || failed "install.sh leaves a program whose hash was wrong"
! install_sh --from "$url/nowhere" --to "$folder/bad" 2>/dev/null || failed "install.sh goes on without SHA256SUMS"
shows "install.sh: over HTTP; a wrong hash and a missing file install nothing"

# --- the formula
if [ ! -e "$artifacts/pgentra.rb" ]; then
    left_out "the Homebrew formula: it was not made (no --base-url)"
elif command -v ruby >/dev/null; then
    ruby -c "$artifacts/pgentra.rb" >/dev/null || failed "the formula is not Ruby"
    grep -q "$(sha256sum "$artifacts/pgentra-$version-$arch-linux.tar.gz" | cut -d ' ' -f 1)" "$artifacts/pgentra.rb" ||
        failed "the formula has another hash"
    shows "formula: Ruby reads it, and the hash is the archive's (Homebrew itself was not run)"
else
    left_out "the Homebrew formula: no Ruby here"
fi

# --- the wheel
wheel=$(echo "$artifacts"/pgentra-"$version"-py3-none-*_"$arch".whl)
if python3 -m venv "$folder/venv" 2>/dev/null; then
    rm -rf "$folder/home" && mkdir "$folder/home"
    page "pip install $(basename "$wheel")" "$folder/venv/bin"
    begin=$(date +%s%N)
    page "pgentra quickstart" "$folder/venv/bin"
    spent=$((($(date +%s%N) - begin) / 1000000))
    page "python -m pgentra --version" "$folder/venv/bin"
    grep -q -x "pgentra $version" "$folder/said" || failed "python -m pgentra runs something else"
    shows "wheel: pip installs it in a new venv; pgentra, python -m pgentra; quickstart in $spent ms"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-index --target "$folder/target" "$wheel"
    PYTHONPATH=$folder/target says_its_version python3 -m pgentra || failed "python -m pgentra does not find pip --target"
    "$folder/venv/bin/pip" uninstall --quiet --yes pgentra
    [ ! -e "$folder/venv/bin/pgentra" ] || failed "pip uninstall leaves the program"
else
    left_out "the wheel: no python3 with venv here"
fi

# --- npm
if command -v npm >/dev/null; then
    node=$(node -p process.arch)
    echo '{"name": "app", "version": "1.0.0"}' >"$site/package.json"
    page "npm install ./pgentra-linux-$node-$version.tgz ./pgentra-$version.tgz"
    page "npx pgentra --version"
    mv "$site/node_modules" "$site/package.json" "$(mkdir "$folder/node" && echo "$folder/node")"
    program=$folder/node/node_modules/.bin/pgentra
    says_its_version "$program" || failed "npm's program does not run"
    code=0
    "$program" token --no-such-option 2>/dev/null || code=$?
    [ "$code" = 2 ] || failed "npm's program does not pass on the exit code: $code"
    # Ended by a signal, it says so, and leaves no binary behind.
    (cd "$folder/node" && exec node "$program" proxy --listen 127.0.0.1:0 --source imds my-server.example) >/dev/null 2>&1 &
    shim=$!
    child=
    for _ in $(seq 100); do
        child=$(pgrep -P "$shim" || :)
        [ -z "$child" ] || break
        sleep 0.1
    done
    [ -n "$child" ] || failed "npm's program starts no binary"
    kill -TERM "$shim"
    wait "$shim" || :
    [ ! -e "/proc/$child" ] || failed "npm's program leaves the binary behind"
    rm -rf "$folder/node/node_modules/@pgentra"
    ! "$program" --version 2>"$folder/said" || failed "npm's program runs without a binary"
    grep -q "hint: the package @pgentra/linux-$node is not installed" "$folder/said" || failed "npm's program does not name what is missing"
    shows "npm: installed offline; exit code and signals go through; a missing binary is named"
else
    left_out "the npm packages: no npm here"
fi

# --- images and names: in namespaces
if [ "$(id -u)" = 0 ] && unshare --mount --pid --fork --net true 2>/dev/null; then
    bash deploy/install-test-image.sh "$artifacts" "$folder" "$version" "$arch"
    passed=$((passed + 4))
else
    left_out "the images: namespaces take root"
fi
if command -v skopeo >/dev/null; then
    for image in "$artifacts"/*-image-"$arch".tar; do
        mkdir -p "$folder/copied"
        skopeo copy --insecure-policy --quiet "oci-archive:$image:$version" "dir:$folder/copied" || failed "skopeo refuses $image"
        rm -rf "$folder/copied"
    done
    shows "images: skopeo copies them"
else
    left_out "copying the images with skopeo: it is not installed"
fi

elsewhere "skopeo copy oci-archive:pgentra-0.1.0-image-x86_64.tar:0.1.0 docker://REGISTRY/pgentra:0.1.0" # above, to a folder
elsewhere "podman load -i pgentra-0.1.0-image-x86_64.tar"                                             # not run
elsewhere "brew install ./pgentra.rb"                                                                # not run

# --- the charts
helm=$(compgen -G "$top/target/tools/bin/helm-*" | sort -V | tail -n 1 || :)
if [ -n "$helm" ]; then
    "$helm" template app "$artifacts/pgentra-proxy-$version.tgz" --set image.repository=pgentra --set workloadIdentity.clientId=00000000-1111-2222-3333-444444444444 \
        --set 'targets[0].server=postgresql://one.postgres.database.azure.com/' >/dev/null || failed "Helm refuses the chart's archive"
    "$helm" template app "$artifacts/pgentra-gateway-$version.tgz" --set upstreamCa.secretName=ca \
        --set 'servers[0].upstream=postgres' >/dev/null || failed "Helm refuses the archive of the gateway's chart"
    "$helm" template app "$artifacts/pgentra-operator-$version.tgz" --set workloadIdentity.clientId=00000000-1111-2222-3333-444444444444 \
        --set 'roles.servers[0]=one.postgres.database.azure.com' >/dev/null || failed "Helm refuses the archive of the operator's chart"
    "$helm" template app "$artifacts/pgentra-local-$version.tgz" >/dev/null || failed "Helm refuses the archive of the local cloud's chart"
    python3 deploy/install-test-registry.py "$artifacts/pgentra-proxy-$version-chart.tar" "$version" "$helm" "$folder" ||
        failed "Helm does not pull the chart"
    cmp -s "$folder/pgentra-proxy-$version.tgz" "$artifacts/pgentra-proxy-$version.tgz" || failed "Helm pulls another chart"
    shows "chart: Helm renders the archives, and pulls the OCI artefact from a registry"
else
    # As deploy/check.sh has it: Helm takes Go to build, which a machine may lack.
    echo "install: left out: the chart: deploy/check.sh has installed no Helm" >&2
fi

# --- the bill of materials
python3 - "$artifacts/pgentra-$version.cdx.json" <<'PY' || failed "the bill of materials is not consistent"
import json, sys
bill = json.load(open(sys.argv[1]))
known = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
assert bill["bomFormat"] == "CycloneDX" and len(known) == len(bill["components"]) + 1 > 100
assert {entry["ref"] for entry in bill["dependencies"]} == known
assert all(to in known for entry in bill["dependencies"] for to in entry["dependsOn"])
assert all("licenses" in part for part in bill["components"])
assert all("hashes" in part for part in bill["components"] if not part["name"].startswith("pgentra"))
PY
shows "bill of materials: every reference is known, every crate has a licence, every foreign crate a hash"

# --- cargo; the debug build is what the other tests have built already
command="cargo install --locked --path crates/cli"
grep -q -x -F "\$ $command" docs/install.md || failed "docs/install.md does not have: $command"
elsewhere "$command"
$command --quiet --debug --root "$folder/cargo" --target-dir target 2>"$folder/said" || { cat "$folder/said" >&2; failed "$command"; }
says_its_version "$folder/cargo/bin/pgentra" || failed "cargo installs something else"
shows "cargo install"

left=$(sed -n 's/^\$ //p' docs/install.md | sort -u | comm -23 - <(sort -u "$typed"))
[ -z "$left" ] || [ "$arch" != x86_64 ] || [ "$omitted" != 0 ] || failed "docs/install.md has commands that were not run: $left"
shows "docs/install.md: every command of a user was run"

# --- deb and rpm, under systemd
if [ $# -eq 0 ]; then
    dist --only deb rpm --revision 2 --out "$work/second" >/dev/null
    bash deploy/service-test.sh "$artifacts" "$work/second"
else
    left_out "the Debian and RPM packages: an upgrade takes a second revision, deploy/service-test.sh FIRST SECOND"
fi
echo "install: $passed shown, $omitted left out"
[ "$omitted" = 0 ] || [ "${CI:-}" != true ] || failed "something was left out"
