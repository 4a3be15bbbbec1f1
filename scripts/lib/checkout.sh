# shellcheck shell=bash
# What the scripts share: where the checkout is, and whether its dependencies and build are current.
# The checks read file times and one small hash; together they take well under 100 ms.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
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
  [ -f "$build_stamp" ] && [ -f "$root/build/src/cli/main.js" ] &&
    [ -z "$(cd "$root" && find src proto test bench scripts/generate-proto.mjs tsconfig.json package-lock.json \
      -newer "$build_stamp" -print -quit 2>/dev/null)" ]
}
