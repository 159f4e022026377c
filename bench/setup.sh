#!/usr/bin/env bash
# Installs the server and the peers of `cargo xtask bench proxy`: Debian packages, where this user may. What cannot be had
# here has no row in the result. A second run does nothing.
set -euo pipefail

# Debian puts servers where ordinary users do not look.
has() { PATH=$PATH:/usr/sbin command -v "$1" >/dev/null 2>&1; }

# Debian's package for each program that is not there.
packages() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || echo postgresql
    has pgbench || echo postgresql-client postgresql-contrib
    has pgbouncer || echo pgbouncer
    has haproxy || echo haproxy
    has nginx || echo nginx-light
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || echo libnginx-mod-stream
    has setpriv || echo util-linux
}

wanted=$(packages | tr '\n' ' ')
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" != 0 ] || ! has apt-get; then
    echo "bench: not installed: $wanted" >&2
    exit 0
fi
# RUNLEVEL=1: no service is started by its installation, the bench starts its own.
echo "bench: installing $wanted" >&2
apt-get update -q >&2
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $wanted >&2
