# shellcheck shell=bash
# Finds, and removes, what a test run left behind. A run is recognised by its scratch folder and by the tag that
# all of its processes inherit in their environment, so that runs side by side do not see each other. Network
# namespaces have no names: they, their interfaces and queues end with the last process inside.

# Ids of the living processes that carry the tag.
tagged_processes() {
  local tag=$1 environ pid
  for environ in /proc/[0-9]*/environ; do
    pid=${environ#/proc/}
    pid=${pid%/environ}
    grep -qzxF "$tag" "$environ" 2>/dev/null || continue
    # A zombie is gone already; it waits for its parent.
    [ "$(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)" != Z ] || continue
    printf '%s\n' "$pid"
  done
}

# Mount points at or below the folder, deepest first.
mounts_below() {
  local folder=$1
  awk -v folder="$folder" '$2 == folder || index($2, folder "/") == 1 { print $2 }' /proc/self/mounts | sort -r
}

# Prints one line per thing left of the run, and removes it. Prints nothing when the run was clean.
sweep() {
  local folder=$1 tag=$2 pid mountpoint entry
  local -a pids mountpoints
  mapfile -t mountpoints < <(mounts_below "$folder")
  mapfile -t pids < <(tagged_processes "$tag")
  for pid in "${pids[@]}"; do
    printf 'process %s: %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
    kill -KILL "$pid" 2>/dev/null || true
  done
  for mountpoint in "${mountpoints[@]}"; do
    printf 'mount %s\n' "$mountpoint"
    umount -l "$mountpoint" 2>/dev/null || true
  done
  while IFS= read -r entry; do
    printf 'file %s\n' "$entry"
  done < <(find "$folder" -mindepth 1 -maxdepth 1 2>/dev/null)
  rm -rf --one-file-system "$folder"
}
