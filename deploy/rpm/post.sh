# After the installation; $1 is 1 for the first one and 2 for an upgrade. The service is neither enabled nor started: the
# configuration names an example server until it is edited.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
fi
