#!/usr/bin/env bash
# Installs the real clients of the end-to-end tests: Debian packages where this user may, Python and Node.js packages
# below target/e2e-clients. A second run does nothing. What cannot be had here is named in target/e2e-clients/missing,
# one client a line with the reason; the tests that need it then say so and are skipped, but fail where CI=true.
set -euo pipefail
cd "$(dirname "$0")"
clients=$(cd .. && pwd)/target/e2e-clients
mkdir -p "$clients"
: >"$clients/missing"

has() { command -v "$1" >/dev/null 2>&1; }

# Where Debian puts the JDBC driver.
JDBC=/usr/share/java/postgresql.jar

# The programs of an installed PostgreSQL server, for what the embedded one cannot show.
server() {
    local found
    found=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) && dirname "$found"
}

missing() {
    echo "e2e: no $1: $2" >&2
    echo "$1: $2" >>"$clients/missing"
}

# Debian's package for each program that is not there.
packages() {
    has curl || echo curl
    has jq || echo jq
    has openssl || echo openssl
    has psql || echo postgresql-client
    server >/dev/null || echo postgresql
    [ -e "$JDBC" ] || echo libpostgresql-jdbc-java
    has java || echo default-jdk-headless
    has pgbouncer || [ -x /usr/sbin/pgbouncer ] || echo pgbouncer
    has chromium || echo chromium
    has ip || echo iproute2
    has setpriv || echo util-linux
    has script || echo bsdutils
    has fish || echo fish
    has groff || echo groff-base
    has zsh || echo zsh
    has python3 || echo python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
    local wanted
    mapfile -t wanted < <(packages)
    [ ${#wanted[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && has apt-get; then
        echo "e2e: installing ${wanted[*]}" >&2
        apt-get update -q >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${wanted[@]}" >&2
    fi
}

# Does its work again only when the file that names the packages changed.
once() {
    local stamp=$clients/$1.stamp list=$2
    shift 2
    if ! cmp -s "$list" "$stamp"; then
        "$@" >&2 && cp "$list" "$stamp"
    fi
}

python_packages() {
    rm -rf "$clients/venv"
    python3 -m venv "$clients/venv"
    "$clients/venv/bin/pip" install --quiet --disable-pip-version-check -r clients/requirements.txt
}

# What asyncpg tests itself with: its source package has it, a wheel does not.
asyncpg_tests() {
    local tests=$clients/asyncpg-tests version
    version=$(grep '^asyncpg==' clients/requirements.txt)
    rm -rf "$tests"
    mkdir "$tests"
    "$clients/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary asyncpg --dest "$tests" "$version"
    # Without the package's own folder, which is not built and would be found first.
    tar -xzf "$tests"/asyncpg-*.tar.gz -C "$tests" --strip-components 1 --wildcards '*/tests/*'
}

# Node.js comes from Python's registry, as what a system brings may be too old for @azure/identity.
node_packages() {
    cp clients/package.json clients/package-lock.json "$clients/"
    (cd "$clients" && PATH=$clients/venv/bin:$PATH npm ci --silent --no-audit --no-fund)
}

# PostgreSQL servers of every version that Azure has: plain folders, which no package manager installs side by side.
postgresql_versions() {
    local folder=$clients/postgresql-versions
    mkdir -p "$folder"
    cp clients/postgresql/package.json clients/postgresql/package-lock.json "$folder/"
    (cd "$folder" && PATH=$clients/venv/bin:$PATH npm ci --silent --no-audit --no-fund) || return 1
    # The server's own user, who is not root, runs them.
    chmod -R a+rX "$folder" && chmod a+x "$folder"/node_modules/postgresql-*/native/bin/*
}

# Prometheus' own checker, out of Debian's package, which would install and start a server too.
promtool() {
    local folder
    has apt-get || return 1
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -q prometheus && dpkg-deb -x prometheus_*.deb .) || return 1
    mkdir -p "$clients/bin"
    mv "$folder/usr/bin/promtool" "$clients/bin/promtool"
    rm -rf "$folder"
}

# The article's program in Go, the clients of Go, and what the programs in Java need.
go_program() {
    mkdir -p "$clients/bin"
    (cd clients/on_azure/go && go build -o "$clients/bin/on_azure" . && go build -o "$clients/bin/on_hosts" ./on_hosts)
}

# The calls of Terraform's providers.
terraform_calls() {
    mkdir -p "$clients/bin"
    (cd clients/terraform && go build -o "$clients/bin/terraform_calls" .)
}

java_program() {
    rm -rf "$clients/jars"
    mvn -q -B -f clients/on_azure/java/pom.xml dependency:copy-dependencies -DoutputDirectory="$clients/jars"
}

# The console launcher of JUnit 5.
junit() {
    mvn -q -B dependency:copy -Dartifact="$(cat clients/junit.txt)" -DoutputDirectory="$clients/junit" -Dmdep.stripVersion=true
}

# Microsoft's crate for Rust.
azure_identity() {
    local folder=clients/on_hosts/azure_identity
    cargo build --locked --manifest-path "$folder/Cargo.toml" --target-dir "$clients/azure-identity" &&
        cp "$clients/azure-identity/debug/on_hosts" "$clients/bin/azure_identity"
}

azure_cli() {
    rm -rf "$clients/azure-cli"
    python3 -m venv "$clients/azure-cli"
    "$clients/azure-cli/bin/pip" install --quiet --disable-pip-version-check -r clients/azure-cli.txt
}

install_packages || echo "e2e: the package manager failed; going on with what there is" >&2
for program in chromium curl fish groff jq openssl psql ip setpriv script zsh; do
    has "$program" || missing "$program" "not on the PATH; install it with this system's package manager"
done
has pgbouncer || [ -x /usr/sbin/pgbouncer ] || missing pgbouncer "not on the PATH; install it with this system's package manager"
server >"$clients/postgresql" || missing postgresql "no installed server below /usr/lib/postgresql"
{ has java && [ -e "$JDBC" ]; } || missing jdbc "no java, or no $JDBC"
once python clients/requirements.txt python_packages || missing python "the packages of clients/requirements.txt could not be installed"
once asyncpg-tests clients/requirements.txt asyncpg_tests || missing asyncpg-tests "the source package of asyncpg could not be had"
once node clients/package-lock.json node_packages || missing node "the packages of clients/package.json could not be installed"
once postgresql-versions clients/postgresql/package-lock.json postgresql_versions || missing postgresql-versions "the packages of clients/postgresql/package.json could not be installed"
go_program >&2 || missing go-program "no go, or the modules of clients/on_azure/go could not be had"
terraform_calls >&2 || missing terraform-calls "no go, or the modules of clients/terraform could not be had"
once java-program clients/on_azure/java/pom.xml java_program || missing java-program "no java and mvn, or the packages of clients/on_azure/java could not be had"
once junit clients/junit.txt junit || missing junit "no java and mvn, or the package of clients/junit.txt could not be had"
has go || missing go "not on the PATH"
[ -x "$clients/bin/promtool" ] || promtool >&2 || missing promtool "Debian's package prometheus could not be had"
if ! { [ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ] && unshare --net true 2>/dev/null; }; then
    missing netns "a network namespace takes Linux and root"
fi
if ! unshare --mount sh -c 'mount -t tmpfs none /var/opt' 2>/dev/null; then
    missing mounts "a mount namespace takes Linux and root"
fi
[ "$(id -u)" = 0 ] || missing root "not root"
# The Azure CLI takes 730 MB and a minute and a half: only where it is asked for, `e2e/setup.sh azure-cli`.
[ "${1:-}" != azure-cli ] || once azure-cli clients/azure-cli.txt azure_cli
# Microsoft's crate for Rust takes minutes to build: only where it is asked for, `e2e/setup.sh azure-identity`.
[ "${1:-}" != azure-identity ] || azure_identity >&2
