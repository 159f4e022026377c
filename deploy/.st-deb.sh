#!/usr/bin/env bash
# Installs the Debian and the RPM package in a Debian of its own in which systemd runs as process 1, and uses the service as an
# administrator does: socket activation, sign-in, reload, a refused reload, upgrade, removal, purge. It takes two folders with the
# packages of two revisions: service-test.sh FIRST SECOND. Needs root, debootstrap and namespaces; where they are missing it says so
# and fails only where CI=true. Debian is installed once, below target/service-test. The RPM package is installed by Debian's rpm.
set -euo pipefail
first=$(cd "$1" && pwd)
second=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
work=$PWD/target/service-test
packages=systemd,systemd-sysv,dbus,postgresql-client,iproute2,ca-certificates,procps,rpm
debian=$work/debian-$(echo "$packages" | sha256sum | cut -c 1-8)

left_out() {
    echo "service: left out: $1" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}

[ "$(id -u)" = 0 ] || left_out "a Debian with systemd as process 1 takes root"
unshare --mount --pid --fork --net true 2>/dev/null || left_out "namespaces are not allowed here"
if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || left_out "debootstrap is not installed"
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap >/dev/null || left_out "debootstrap could not be installed"
fi
if [ ! -e "$debian.complete" ]; then
    rm -rf "$debian"
    mkdir -p "$work"
    debootstrap --variant=minbase --include=$packages bookworm "$debian" >"$work/debootstrap.log" 2>&1 ||
        left_out "debootstrap failed: $(tail -n 1 "$work/debootstrap.log")"
    touch "$debian.complete"
fi

root=
system=
clean() {
    # The end of process 1 of the namespace ends every process in it.
    [ -z "$system" ] || { kill -KILL "$system" 2>/dev/null || :; wait "$system" 2>/dev/null || :; }
    system=
    [ -z "$root" ] || rm -rf "$root"
    root=
}
trap clean EXIT

start=$(cat <<'START'
set -eu
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
for folder in run tmp dev; do mount -t tmpfs tmpfs "$folder"; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
cgroups=/sys/fs/cgroup
mount --rbind "$cgroups" sys/fs/cgroup 2>/dev/null || mount -t cgroup2 none sys/fs/cgroup
ip link set lo up
mkdir -p old
pivot_root . old
umount -l old
exec env -i container=oci PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
START
)
for format in deb; do
    root=$(mktemp -d "$work/root.XXXXXX")
    cp -a "$debian/." "$root"
    cp "$first"/pgentra[_-]*."$format" "$root/first.$format"
    cp "$second"/pgentra[_-]*."$format" "$root/second.$format"
    cp deploy/service-test-inside.sh "$root/inside.sh"
    unshare --fork --kill-child --pid --mount --uts --ipc --net --mount-proc bash -c "$start" bash "$root" >"$work/system.log" 2>&1 &
    system=$!
    inside=
    state=
    for _ in $(seq 300); do
        inside=$(pgrep -P "$system" | head -n 1 || :)
        if [ -n "$inside" ]; then
            # `degraded`: a unit of Debian's own that cannot run in a namespace.
            state=$(nsenter -t "$inside" -p -m -u -i -n -r -w systemctl is-system-running 2>/dev/null || :)
            case "$state" in running | degraded) break ;; esac
        fi
        sleep 0.2
    done
    case "${state:-}" in
    running | degraded) ;;
    *)
        cat "$work/system.log" >&2
        left_out "systemd does not start as process 1 here (state: ${state:-none})"
        ;;
    esac
    nsenter -t "$inside" -p -m -u -i -n -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 bash /inside.sh "$format"
    clean
done
