# shellcheck shell=sh
# The migration of a VM directory. After host.sh and images.sh; with source, target, dir and vmid set.
# shellcheck disable=SC2154

# HOST ID: cancels it there. One that has ended is no error; what matters afterwards is who owns the images.
cancel_on() {
    if migratefs_on "$1" cancel "$2" >/dev/null; then
        note "cancelled $2 at $1"
    else
        note "could not cancel $2: $(why "$1")"
    fi
}

# DESCRIPTION: ends the migrations of these images at the source, which nothing can change hands after. Those that somebody else
# began, an operator or a scheduler, go on, perhaps with a VM on its way.
end_ours() {
    for id in $(migrations_of "$1"); do
        report=$(migratefs_on "$source" status "$id" --json) || { outcome="$(why "$source"); $outcome"; return 1; }
        case $(json_string "$report" requestId) in
            "one-$vmid-"*) cancel_on "$source" "$id" ;;
            *)
                outcome="migration $id of the disks in $dir was begun by somebody else and goes on: nothing was deleted"
                return 1
                ;;
        esac
    done
}

# Ends what we began to move the images of the directory, and removes the copy on the target, unless the target may own it.
# 0: the source owns every image, and nothing of ours is left on the target. 1: it may not; nothing was deleted, and
# $outcome says where the newest data is.
give_up() {
    outcome="cannot tell who owns the disks, so nothing was deleted"
    if ! ours=$(images_on "$source" "$dir") || ! before=$(describe_on "$source" "$ours"); then
        outcome="$(why "$source"); $outcome"
        return 1
    fi
    if [ -z "$ours" ]; then
        outcome="$source has no disks in $dir: nothing was deleted"
        return 1
    fi
    # Before the look at the target.
    end_ours "$before" || return 1
    after=$(describe_on "$source" "$ours") || {
        outcome="$(why "$source"); $outcome"
        return 1
    }
    if any_is "$after" fenced; then
        outcome="$target took the disks over and has the newest data in $dir; $source keeps its old copy, fenced: nothing was deleted"
        return 1
    fi
    if any_is "$after" unusable || any_is "$after" replica || [ -n "$(migrations_of "$after")" ]; then
        outcome="the disks in $dir on $source are in a state that needs a look (migratefs images): nothing was deleted"
        return 1
    fi
    discard_copy
}

# Removes our copy from the target; the source is known to own the images.
discard_copy() {
    rounds=0
    while :; do
        if ! theirs=$(images_on "$target" "$dir") || ! copies=$(describe_on "$target" "$theirs"); then
            outcome="the disks stay with $source, but $(why "$target"): remove $dir there when it is back"
            return 1
        fi
        running=$(migrations_of "$copies")
        [ -n "$running" ] || break
        # The source tells the target; where it cannot (it has restarted), we do.
        [ "$rounds" -ne 3 ] || for id in $running; do cancel_on "$target" "$id"; done
        if [ "$rounds" -ge 10 ]; then
            outcome="the disks stay with $source, but $target still receives $running: cancel it there and remove $dir"
            return 1
        fi
        rounds=$((rounds + 1))
        sleep 1
    done
    # Nobody's replica but ours can be there; an image of another role was there before, and is not ours to delete.
    if any_is "$copies" owner || any_is "$copies" fenced || any_is "$copies" unusable; then
        note "$target has disks of its own in $dir: they stay"
        return 0
    fi
    on "$target" rm -rf -- "$dir" || {
        outcome="the disks stay with $source, but the copy in $dir could not be removed: $(why "$target")"
        return 1
    }
}

# The data address of the target's daemon as the source can reach it; on failure the reason.
data_address() {
    theirs=$(migratefs_on "$target" status --json) || { why "$target"; return 1; }
    ours=$(migratefs_on "$source" status --json) || { why "$source"; return 1; }
    if [ "$(json_string "$theirs" mountpoint)" != "$(json_string "$ours" mountpoint)" ]; then
        printf '%s and %s are mounted at different places: names would not fit' "$source" "$target"
        return 1
    fi
    address=$(json_string "$theirs" dataAddress)
    case $address in
        0.0.0.0:* | '[::]:'*) address=$target:${address##*:} ;;
        127.* | localhost:* | '[::1]:'*)
            if [ "$(json_string "$theirs" hostname)" != "$(json_string "$ours" hostname)" ]; then
                printf '%s: its daemon receives on %s only: mount with --data %s:7071 and certificates' \
                    "$target" "$address" "$target"
                return 1
            fi
            ;;
    esac
    printf '%s\n' "$address"
}
