#!/usr/bin/env bash
# Runs in the Debian of service-test.sh, with systemd as process 1: inside.sh deb|rpm. Each step says what it shows; the first that
# fails ends it.
set -euo pipefail
format=$1

failed() {
    echo "service: $format: FAILED: $1" >&2
    systemctl status pgentra-proxy.service --no-pager -l >&2 || :
    journalctl -u pgentra-proxy.service --no-pager -n 40 >&2 || :
    exit 1
}
passed=0
shows() {
    passed=$((passed + 1))
    echo "service: $format: $1"
}
# Waits for a condition: at most 120 seconds, on a busy machine.
eventually() {
    local what=$1
    shift
    for _ in $(seq 600); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    failed "not within 120 s: $what"
}
is() { [ "$(systemctl is-active "$1")" = "$2" ]; }
main_pid() { systemctl show -P MainPID pgentra-proxy.service; }
query() { psql -X -At 'host=127.0.0.1 port=6432 user=myVm dbname=postgres' -c "$1"; }

# Debian's rpm knows nothing of what dpkg has installed: it is told to ask for no other package.
install_first() {
    case $format in
    deb) apt-get install -q -y /first.deb >/dev/null 2>&1 ;;
    rpm) rpm -i --nodeps /first.rpm ;;
    esac
}
upgrade() {
    case $format in
    deb) dpkg --force-confold -i /second.deb >/dev/null ;;
    rpm) rpm -U --nodeps /second.rpm ;;
    esac
}
remove() {
    case $format in
    deb) dpkg -r pgentra >/dev/null 2>&1 ;;
    rpm) rpm -e pgentra 2>/dev/null ;;
    esac
}

install_first
is pgentra-proxy.service inactive || failed "the package started the service"
! systemctl is-enabled --quiet pgentra-proxy.service || failed "the package enabled the service"
shows "installed: neither started nor enabled"

# A local cloud whose metadata service is where the service looks for it: at 169.254.169.254, in this network namespace.
ip address add 169.254.169.254/32 dev lo
pgentra local up --detach --link-local >/tmp/cloud.log 2>&1 || { cat /tmp/cloud.log >&2; failed "no local cloud"; }
eval "$(pgentra local env --shell sh 2>/dev/null || pgentra local env)"
server="postgresql://$PGHOST:$PGPORT/?sslrootcert=/etc/pgentra/server-ca.pem"
install -m 0644 "$PGSSLROOTCERT" /etc/pgentra/server-ca.pem
# The service has none of this shell's variables: it finds the metadata service by itself.
for name in $(env | cut -d= -f1 | grep -E '^(PG|AZURE|IDENTITY|MSI|SSL_CERT|PGENTRA)'); do unset "$name"; done
write() {
    cat >/etc/pgentra/proxy.toml <<TOML
admin_listen = "127.0.0.1:9432"
source = "imds"

[[target]]
server = "$server"
listen = "systemd:app"
max_connections = $1
TOML
}
write 100
systemctl enable --now pgentra-proxy.socket >/dev/null 2>&1 || failed "the socket unit does not start"
is pgentra-proxy.service inactive || failed "the service runs before a client has come"
[ "$(query 'SELECT current_user')" = myVm ] || failed "no sign-in through socket activation"
shows "socket activation: the first client starts the service and is signed in"
eventually "the service is active" is pgentra-proxy.service active

before=$(main_pid)
write 50
systemctl reload pgentra-proxy.service || failed "a good configuration is not reloaded"
eventually "the journal has the change" sh -c 'journalctl -u pgentra-proxy.service | grep -q "max_connections 100 -> 50"'
[ "$(main_pid)" = "$before" ] || failed "a reload restarted the service"
shows "reload: the change is in the journal, the process goes on"

echo 'max_conections = 5' >>/etc/pgentra/proxy.toml
! systemctl reload pgentra-proxy.service 2>/dev/null || failed "a refused reload is reported as done"
[ "$(main_pid)" = "$before" ] || failed "a refused reload ended the service"
[ "$(query 'SELECT 1')" = 1 ] || failed "no sign-in after a refused reload"
journalctl -u pgentra-proxy.service | grep -q 'max_conections' || failed "the journal does not name the key"
shows "a refused reload fails, names the key, and the service goes on"
rm /etc/pgentra/server-ca.pem.away 2>/dev/null || :
write 50
mv /etc/pgentra/server-ca.pem /etc/pgentra/server-ca.pem.away
! systemctl reload pgentra-proxy.service 2>/dev/null || failed "a reload with a missing file is reported as done"
mv /etc/pgentra/server-ca.pem.away /etc/pgentra/server-ca.pem
systemctl reload pgentra-proxy.service || failed "the mended configuration is not reloaded"
shows "a reload with a missing certificate file fails; the mended one is taken"

systemctl enable pgentra-proxy.service >/dev/null 2>&1
upgrade
eventually "the service is active after the upgrade" is pgentra-proxy.service active
after=$(main_pid)
[ "$after" != "$before" ] || failed "the old process goes on after an upgrade"
[ "$(readlink "/proc/$after/exe")" = /usr/bin/pgentra ] || failed "the service runs a deleted file"
grep -q 'max_connections = 50' /etc/pgentra/proxy.toml || failed "the upgrade replaced the configuration"
[ "$(query 'SELECT 2')" = 2 ] || failed "no sign-in after the upgrade"
shows "upgrade: the service runs the new file with the administrator's configuration"

kill -STOP "$after"
eventually "the watchdog restarts a service that is stuck" sh -c "[ \"\$(systemctl show -P MainPID pgentra-proxy.service)\" != $after ] && [ \"\$(systemctl is-active pgentra-proxy.service)\" = active ]"
[ "$(query 'SELECT 3')" = 3 ] || failed "no sign-in after the watchdog's restart"
shows "watchdog: a service that is stuck is started again"

remove
is pgentra-proxy.service inactive || failed "the service runs after its package was removed"
is pgentra-proxy.socket inactive || failed "the socket listens after its package was removed"
! psql -X 'host=127.0.0.1 port=6432 user=myVm dbname=postgres' -c 'SELECT 1' >/dev/null 2>&1 || failed "a client is served after the removal"
case $format in
deb) kept=/etc/pgentra/proxy.toml ;;
rpm) kept=/etc/pgentra/proxy.toml.rpmsave ;;
esac
grep -q 'max_connections = 50' "$kept" || failed "the removal took the configuration"
[ ! -e /usr/bin/pgentra ] || failed "the removal left the program"
shows "removal: stopped, the configuration stays at $kept"
if [ "$format" = deb ]; then
    dpkg -P pgentra >/dev/null 2>&1
    [ ! -e /etc/pgentra/proxy.toml ] || failed "the purge left the configuration"
fi
dangling=$(find /etc/systemd /var/lib/systemd -name 'pgentra*')
[ -z "$dangling" ] || failed "left behind: $dangling"
shows "no link of the service is left"
echo "service: $format: $passed steps passed"
