# Runs beside a program, and removes its folder when it has ended. Run as: sh -c SCRIPT janitor create|watch FOLDER
#
# Standard input is a pipe of which the program alone holds the other end: it closes when the program ends, however it
# ends. Before that, each line names the process to stop then, and the signal to ask it with (0: it ends by itself).
trap '' HUP INT QUIT TERM PIPE
umask 077
folder=$2
signal=0
pid=

command_line() {
    if [ -r "/proc/$$/cmdline" ]; then tr '\0' ' ' <"/proc/$pid/cmdline"; else ps -o command= -p "$pid"; fi
}

# The number may belong to another process by now: ours names the folder in its command line.
running() {
    kill -0 "$pid" || return 1
    line=$(command_line)
    # For an instant within exec a process has no command line; a zombie never has one.
    [ -n "$line" ] || { sleep 0.02; line=$(command_line); }
    case $line in *"$folder"*) return 0 ;; *) return 1 ;; esac
}

# Whether the process ended within about $1 times 20 ms.
ended() {
    ticks=$1
    while running; do
        ticks=$((ticks - 1))
        [ "$ticks" -gt 0 ] || return 1
        sleep 0.02
    done
}

# After SIGKILL, PostgreSQL cannot remove the System V segment that it made (proc(5): key, id, mode, size, creator).
kill_hard() {
    kill -s KILL -- "-$pid"
    ended 100
    while read -r _ id _ _ creator _; do
        [ "$creator" != "$pid" ] || ipcrm -m "$id"
    done </proc/sysvipc/shm
}

if [ "$1" = create ]; then mkdir -- "$folder" || exit 1; fi
echo watching
exec >/dev/null 2>&1

while read -r next_signal next_pid; do
    signal=$next_signal
    pid=$next_pid
done

# PostgreSQL gives its own children five seconds after the signal: after more than seven, it hangs.
if [ -n "$pid" ] && running; then
    kill -s "$signal" "$pid"
    ended 350 || kill_hard
fi

# A last child may still be writing, so rm is retried. Once the folder is removed, another process may use its name.
tries=250
until rm -rf -- "$folder"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    sleep 0.02
done
