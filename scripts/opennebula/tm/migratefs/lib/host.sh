# shellcheck shell=sh disable=SC2034 # the settings are used by whoever reads this file
# Settings, the log, and commands on hosts. Wants `remotes`: the folder that holds tm/ and hooks/, and `action`.

MIGRATEFS_COMMAND=migratefs
MIGRATEFS_POLL_SECONDS=2
MIGRATEFS_LOG=/var/log/one/migratefs.log
MIGRATEFS_HOSTS=
MIGRATEFS_SSH_OPTIONS='-o BatchMode=yes -o ConnectTimeout=10'
MIGRATEFS_VIRSH='virsh --connect qemu:///system'
# shellcheck disable=SC2154 # set by whoever reads this file
if [ -r "$remotes/etc/tm/migratefs/migratefs.conf" ]; then
    # shellcheck source=/dev/null # a file of the operator
    . "$remotes/etc/tm/migratefs/migratefs.conf"
fi

# For the last words of a command on a host, and little else. No reason to end here: the input has to be read first.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/migratefs-one-XXXXXX") || scratch=
errors=${scratch:+$scratch/errors}
errors=${errors:-/dev/null}
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A line in our own log. A log that cannot be written stops nothing.
# shellcheck disable=SC2154 # `action` and `vmid` are set by whoever reads this file
note() {
    { printf '%s %s: %s%s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$action" "${vmid:+VM $vmid: }" "$*" >>"$MIGRATEFS_LOG"; } 2>/dev/null || :
}

# One line on stderr, which OpenNebula shows as the reason, and in our log.
complain() {
    note "$*"
    printf 'migratefs %s: %s%s\n' "$action" "${vmid:+VM $vmid: }" "$*" >&2
}

# Its arguments as words of a shell command.
quoted() {
    for word; do
        printf "'"
        printf '%s' "$word" | sed "s/'/'\\\\''/g"
        printf "' "
    done
}

# HOST COMMAND ARGUMENT...: runs it there with the input of the caller; what it says on stderr is kept in $errors.
on_with_input() {
    to=$1
    shift
    : >"$errors"
    # shellcheck disable=SC2086,SC2029 # options are words; the host is to see the expanded text
    ssh $MIGRATEFS_SSH_OPTIONS "$to" "$(quoted "$@")" 2>>"$errors"
}

# The same without input.
on() {
    on_with_input "$@" </dev/null
}

# HOST ARGUMENT...: the command line of MigrateFS there.
migratefs_on() {
    at=$1
    shift
    # shellcheck disable=SC2086 # the command may be several words (sudo -n migratefs)
    on "$at" $MIGRATEFS_COMMAND "$@"
}

# HOST: why the last command there failed, in one line.
why() {
    reason=$(grep -v '^[[:space:]]*$' "$errors" | tail -n 1 | sed 's/^migratefs: //' | cut -c 1-400)
    printf '%s: %s' "$1" "${reason:-a command failed without a word}"
}

# JSON KEY: the first string of that key in one line of JSON; empty: none.
json_string() {
    printf '%s\n' "$1" | awk -v key="$2" '{
        if (match($0, "\"" key "\":\"[^\"]*\"")) print substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 5)
        exit
    }'
}
