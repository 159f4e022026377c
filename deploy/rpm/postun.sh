# After the old files went; $1 is 0 for a removal and 1 for an upgrade.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        # Not the socket: systemd refuses to start it while its service runs, and clients wait at it meanwhile.
        systemctl --system try-restart pgentra-proxy.service pgentra-gateway.service >/dev/null 2>&1 || :
    fi
fi
