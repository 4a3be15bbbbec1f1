# shellcheck shell=sh
# The disk images of a VM directory, and who owns them. After host.sh.
# shellcheck disable=SC2154 # `errors`

# HOST DIR: the images there, absolute, one a line: the regular files whose name begins with "disk.", snapshots too.
# Nothing is printed for a directory that is not there. Fails when the host does not answer, or a name is not plain.
images_on() {
    # shellcheck disable=SC2016 # expanded on the host
    paths=$(on "$1" sh -c '[ ! -d "$1" ] || find "$1" -type f -path "$1/disk.*" ! -name .monitor -print' sh "$2") || return 1
    if [ -n "$paths" ] && printf '%s\n' "$paths" | grep -qv '^[A-Za-z0-9/._-]*$'; then
        printf 'a name in %s has other characters than letters, digits, dots, dashes and underscores\n' "$2" >"$errors"
        return 1
    fi
    [ -z "$paths" ] || printf '%s\n' "$paths" | sort
}

# HOST PATHS: what the daemon there knows of them, `NAME ROLE GENERATION MIGRATION` a line. ROLE is owner, fenced,
# replica, absent or unusable; MIGRATION is - outside a migration.
describe_on() {
    [ -n "$2" ] || return 0
    # shellcheck disable=SC2086 # plain names, one word each
    described=$(migratefs_on "$1" images --json $2) || return 1
    printf '%s\n' "$described" | awk '
    function text(key) {
        if (!match($0, "\"" key "\":\"[^\"]*\"")) return "-"
        return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 5)
    }
    {
        role = text("role")
        if (role == "-") role = text("code") == "NOT_FOUND" ? "absent" : "unusable"
        generation = match($0, /"generation":[0-9]+/) ? substr($0, RSTART + 13, RLENGTH - 13) : "-"
        print text("name"), role, generation, text("migrationId")
    }'
}

# DESCRIPTIONS ROLE: whether one of the images has it.
any_is() {
    printf '%s\n' "$1" | awk -v role="$2" '$2 == role { found = 1 } END { exit !found }'
}

# DESCRIPTIONS: the migrations that they belong to, one a line.
migrations_of() {
    printf '%s\n' "$1" | awk 'NF == 4 && $4 != "-" { print $4 }' | sort -u
}

# SOURCE TARGET: whether each image of the source is fenced there, and owned by the target in at least that generation.
taken_over() {
    [ -n "$1" ] || return 1
    { printf '%s\n' "$2"; echo --; printf '%s\n' "$1"; } | awk '
    $1 == "--" { second = 1; next }
    !second { if ($2 == "owner") owned[$1] = $3 + 0; next }
    $2 != "fenced" || !($1 in owned) || owned[$1] < $3 + 0 { exit bad = 1 }
    END { exit bad }'
}
