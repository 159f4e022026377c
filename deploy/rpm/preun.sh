# Before the files go; $1 is 0 for a removal and 1 for an upgrade.
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
    systemctl --system --no-reload disable --now pgentra-proxy.socket pgentra-proxy.service pgentra-gateway.service >/dev/null 2>&1 || :
elif [ "$1" = 0 ]; then
    systemctl --no-reload disable pgentra-proxy.socket pgentra-proxy.service pgentra-gateway.service >/dev/null 2>&1 || :
fi
