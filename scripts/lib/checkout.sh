# shellcheck shell=bash
# What the scripts share: where the checkout is, and whether its dependencies and build are current.
# The checks read file times and one small hash; together they take well under 100 ms.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
program=$root/build/src/cli/main.js
dependency_stamp=$root/node_modules/.migratefs-lock
build_stamp=$root/build/.migratefs-built

say() { printf '%s\n' "$*" >&2; }

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

lock_hash() { sha256sum <"$root/package-lock.json"; }

dependencies_current() {
  [ -f "$dependency_stamp" ] && [ "$(<"$dependency_stamp")" = "$(lock_hash)" ]
}

# Folders count as well as files, so that a deleted source is noticed.
build_current() {
  [ -f "$build_stamp" ] && [ -f "$program" ] &&
    [ -z "$(cd "$root" && find src proto test bench scripts/generate-proto.mjs tsconfig.json package-lock.json \
      -newer "$build_stamp" -print -quit 2>/dev/null)" ]
}

# The process ids of the daemons and schedulers that run from this build. They load code for as long as they live, for each
# thread that they add: it must not change below them.
daemons_running() {
  local cmdline args i
  # Few processes name the program; the rest need not be looked at one by one.
  grep -lzxF -- "$program" /proc/[0-9]*/cmdline 2>/dev/null | while read -r cmdline; do
    mapfile -d '' -t args 2>/dev/null <"$cmdline" || continue
    for i in "${!args[@]}"; do
      [ "${args[i]}" = "$program" ] || continue
      case ${args[i + 1]:-} in mount | scheduler) basename "$(dirname "$cmdline")" ;; esac
      break
    done
  done
}
