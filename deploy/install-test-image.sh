#!/usr/bin/env bash
# Unpacks the container images and runs them in namespaces as their own user: install-test-image.sh ARTIFACTS FOLDER VERSION ARCH
set -euo pipefail
cd "$(dirname "$0")"
artifacts=$1 folder=$2 version=$3 arch=$4
export DNS=$PWD/install-test-dns.py

failed() {
    echo "install: FAILED: $1" >&2
    exit 1
}

# Unpacks as a container runtime does: every digest is compared, and the configuration is printed.
unpack() {
    python3 - "$1" "$2" <<'PY'
import gzip, hashlib, io, json, sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    files = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
def blob(described):
    algorithm, digest = described["digest"].split(":")
    content = files[f"blobs/{algorithm}/{digest}"]
    assert hashlib.sha256(content).hexdigest() == digest and len(content) == described["size"]
    return content
assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
manifest = json.loads(blob(json.loads(files["index.json"])["manifests"][0]))
config = json.loads(blob(manifest["config"]))
(layer,) = manifest["layers"]
plain = gzip.decompress(blob(layer))
assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(plain).hexdigest()]
tarfile.open(fileobj=io.BytesIO(plain)).extractall(sys.argv[2])
print(config["config"]["User"], *config["config"]["Entrypoint"], *config["config"]["Cmd"])
PY
}

# Runs a command line in an image's root folder as the image's user, with what a container runtime gives: /proc, a few devices, a
# network of its own, /etc/hosts and /etc/resolv.conf.
run=$(cat <<'RUN'
set -eu
root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"
mkdir -p "$root/dev" "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root/dev/shm"
chmod 1777 "$root/dev/shm"
for device in null zero full random urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -t proc proc "$root/proc"
[ -e "$root/tmp" ] && mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
ip link set lo up
printf '127.0.0.1 localhost\n127.0.0.7 in-hosts.example\n' >"$root/etc/hosts"
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
echo assertion >"$root/tmp/assertion"
python3 "$DNS" &
for _ in $(seq 50); do
    ! ss -Huln 'sport = 53' | grep -q . || break
    sleep 0.1
done
exec env -i PATH=/usr/bin HOME=/tmp $VARIABLES "$(command -v chroot)" --userspec=65532:65532 "$root" "$@"
RUN
)
inside() { unshare --fork --kill-child --pid --mount --net --uts --ipc bash -c "$run" bash "$@"; }
workload="AZURE_CLIENT_ID=00000000-1111-2222-3333-444444444444 AZURE_TENANT_ID=00000000-1111-2222-3333-555555555555 AZURE_FEDERATED_TOKEN_FILE=/tmp/assertion"
export VARIABLES=

# Where a token is asked for by name: what cannot be resolved is said to be so, what can is refused by a closed port.
resolves() {
    local root=$1 host=$2 expected=$3
    VARIABLES="$workload AZURE_AUTHORITY_HOST=https://$host/" inside "$root" /usr/bin/pgentra token --token-timeout 3s >"$folder/said" 2>&1 || code=$?
    [ "${code:-0}" = 3 ] || { cat "$folder/said" >&2; failed "pgentra token ends with ${code:-0}, not 3, for $host"; }
    grep -q "$expected" "$folder/said" || { cat "$folder/said" >&2; failed "$host: not \"$expected\""; }
}

root=$folder/image
mkdir "$root"
[ "$(unpack "$artifacts/pgentra-$version-image-$arch.tar" "$root")" = "65532 /usr/bin/pgentra proxy" ] || failed "the image's command is another"
[ "$(inside "$root" /usr/bin/pgentra --version)" = "pgentra $version" ] || failed "the image does not run"
[ -z "$(find "$root" -type f -perm /6000)" ] || failed "the image has a file with the bits setuid or setgid"
echo "install: image pgentra: from scratch, as user 65532"
resolves "$root" localhost "Connection refused"
resolves "$root" in-hosts.example "Connection refused"
resolves "$root" in-dns.example "Connection refused"
resolves "$root" nowhere.example "cannot resolve\|not known\|resolve"
echo "install: image pgentra: names from /etc/hosts and DNS; one that is unknown is an error; the certificates are read"

# A machine whose C library finds names with a module of its own: the static program must not load it.
module=$root/usr/lib/$arch-linux-gnu
mkdir -p "$module"
cat >"$folder/module.c" <<'C'
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void) { abort(); }
C
cc -shared -fPIC -o "$module/libnss_foreign.so.2" "$folder/module.c"
mkdir -p "$root/lib"
ln -s "../usr/lib/$arch-linux-gnu" "$root/lib/$arch-linux-gnu"
cp "$module/libnss_foreign.so.2" "$root/lib/"
for library in libc.so.6 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1; do
    found=$(ldconfig -p | sed -n "s|.*$library .*=> ||p" | head -n 1)
    [ -z "$found" ] || { cp -L "$found" "$module/"; mkdir -p "$root/lib64" && cp -L "$found" "$root/lib64/"; }
done
echo 'hosts: foreign [!UNAVAIL=return] files dns' >"$root/etc/nsswitch.conf"
resolves "$root" in-dns.example "Connection refused"
echo "install: static program: it finds names without the modules of the machine's C library"

root=$folder/operator-image
[ "$(unpack "$artifacts/pgentra-operator-$version-image-$arch.tar" "$root")" = "65532 /usr/bin/pgentra-operator run" ] || failed "the operator's image has another command"
[ "$(inside "$root" /usr/bin/pgentra-operator --version)" = "pgentra-operator $version" ] || failed "the operator's image does not run"
echo "install: image pgentra-operator: from scratch, as user 65532"

root=$folder/local-image
mkdir "$root"
[ "$(unpack "$artifacts/pgentra-local-$version-image-$arch.tar" "$root")" = "65532 /usr/bin/pgentra local up" ] || failed "the local image's command is another"
# `quickstart` starts the same local cloud and signs in to it; then it ends by itself.
inside "$root" /usr/bin/pgentra quickstart >"$folder/said" 2>&1 || { cat "$folder/said" >&2; failed "quickstart fails in the local image"; }
inside "$root" /usr/bin/pgentra local up --detach >"$folder/said" 2>&1 || { cat "$folder/said" >&2; failed "local up fails in the local image"; }
echo "install: image pgentra-local: quickstart and local up, as user 65532"
