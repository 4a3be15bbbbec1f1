# shellcheck shell=sh
# What OpenNebula passes to premigrate, postmigrate and failmigrate:
#   SRC_HOST DST_HOST DIR VMID DSID [DRIVER], and the VM as XML in base64 on the input.
# Sets source, target, dir, vmid, dsid and vm (the XML). Ends the script where there is nothing to do.

# Read to its end whatever happens: OpenNebula would get a broken pipe.
template=$(cat)
# A sixth argument: another system driver moves this directory, and asks only whether an image needs anything.
[ -z "${6:-}" ] || exit 0
source=${1:-} target=${2:-} vmid=${4:-}
# shellcheck disable=SC2034 # for the other drivers
dsid=${5:-}
dir=$(printf '%s' "${3:-}" | sed 's://*:/:g; s:/$::')
vm=$(printf '%s' "$template" | base64 -d 2>/dev/null) || vm=

wrong_arguments() {
    complain "called with '$source' '$target' '${dir}' '$vmid': $*"
    exit 1
}
case $vmid in '' | *[!0-9]*) wrong_arguments 'the id of the VM is not a number' ;; esac
case $dir in /*/"$vmid") ;; *) wrong_arguments 'the directory is not that of the VM' ;; esac
case $dir in */../* | */./* | *[!A-Za-z0-9/._-]*) wrong_arguments 'the directory has no plain name' ;; esac
case $source$target in *[!A-Za-z0-9._:-]*) wrong_arguments 'a host has no plain name' ;; esac
case $source in '' | -*) wrong_arguments 'no source host' ;; esac
case $target in '' | -*) wrong_arguments 'no target host' ;; esac

if [ "$source" = "$target" ]; then
    note "$source is source and target: nothing to move"
    exit 0
fi

# Tells the drivers of the VM's other images, as the stock drivers do, except those that would empty the directory.
# shellcheck disable=SC2154 # `remotes`, `action`
tell_other_drivers() {
    for driver in $(printf '%s\n' "$vm" | xml_values /VM/TEMPLATE/DISK/TM_MAD | sort -u); do
        case $driver in
            migratefs | ssh | local | fs_lvm | fs_lvm_ssh | lvm | *[!A-Za-z0-9_-]*) continue ;;
        esac
        [ -x "$remotes/tm/$driver/$action" ] || continue
        note "calling $driver/$action"
        printf '%s\n' "$template" | "$remotes/tm/$driver/$action" "$@" migratefs || return 1
    done
}
