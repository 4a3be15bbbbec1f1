/** A `virsh` for hosts that exist as folders only: what it is asked is kept, what it answers is what the test has put there. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const STUB_UUID = 'c963885b-acad-4f93-91d3-618868dc1ab4';

/**
 * HOST/domain: what domstate says; HOST/then: what it says once it was asked; HOST/job: type and operation of its job;
 * HOST/down: cannot be reached; HOST/hangs: never answers. `migrate` does what the file of that name says; `poweroff`: the
 * guest switches itself off meanwhile. Errors are worded as those of virsh 9.0.
 */
const SCRIPT = (world: string): string => `#!/bin/sh
W='${world}'
[ "$1 $2" = '--quiet --connect' ] || exit 99
host=$3
host=\${host#*://}
H=$W/\${host%%/*}
shift 3
case $1 in
  migrate*|destroy|resume|domjobabort) echo "$(basename "$H") $*" >>"$W/log" ;;
  *) echo "$(basename "$H") $1" >>"$W/questions" ;;
esac
fail() { echo "error: $1" >&2; exit 1; }
[ ! -e "$H/hangs" ] || exec sleep 60
if [ -e "$H/down" ]; then
  echo 'error: failed to connect to the hypervisor' >&2
  fail "unable to connect to server at '$(basename "$H"):16509': Connection refused"
fi
known() { [ -e "$H/domain" ] || fail "failed to get domain '$1'"; }
arrive() {
  for to in "$W"/*/; do
    [ "$to" = "$H/" ] || echo "$1" >"$to/domain"
  done
}
leave() { for to in "$W"/*/; do [ "$to" = "$H/" ] || rm -f "$to/domain"; done; }
become() { echo "$1" >"$H/domain.new"; mv "$H/domain.new" "$H/domain"; }
send() {
  echo '2 5' >"$H/job"
  arrive 'paused (starting up)'
  # Nor longer than the test.
  until [ -e "$W/abort" ] || [ -e "$W/finish" ] || [ -e "$W/poweroff" ] || [ ! -d "$H" ]; do sleep 0.02; done
  if [ -e "$W/poweroff" ]; then
    become 'shut off (shutdown)'
    rm -f "$H/job"
    leave
    fail 'operation failed: domain is not running'
  fi
  if [ -e "$W/finish" ]; then
    become 'paused (migrating)'
    arrive 'running (migrated)'
    rm -f "$H/domain"
    rm -f "$H/job"
    return 0
  fi
  rm -f "$H/job" "$W/abort"
  leave
  return 1
}
case $1 in
  list) [ ! -e "$H/domain" ] || echo ' ${STUB_UUID} vm7' ;;
  domstate)
    known "$2"
    cat "$H/domain"
    [ ! -e "$H/then" ] || mv "$H/then" "$H/domain"
    ;;
  domjobinfo)
    known "$2"
    case "$*" in *--completed*) echo 'Job type: 3'; echo 'downtime: 70'; exit 0 ;; esac
    case $(cat "$H/domain") in
      'shut off'*) fail 'Requested operation is not valid: domain is not running' ;;
      'paused (starting up)')
        fail 'Operation not supported: migration statistics are available only on the source host' ;;
    esac
    [ -e "$H/job" ] || { echo 'Job type: 0'; exit 0; }
    read -r type operation <"$H/job"
    printf '%s\\n' "Job type: $type" "operation: $operation" 'memory_processed: 4096' 'memory_remaining: 8192'
    ;;
  dominfo) known "$2"; echo "Persistent:     $(cat "$W/persistent")" ;;
  domblklist) known "$2"; cat "$W/disks" ;;
  migrate-setmaxdowntime) known "$2" ;;
  destroy) known "$2"; rm -f "$H/domain" ;;
  resume) known "$2"; become 'running (unpaused)' ;;
  domjobabort)
    known "$2"
    [ -e "$H/job" ] || fail 'Requested operation is not valid: no job is active on the domain'
    [ -e "$W/stubborn" ] || : >"$W/abort"
    ;;
  migrate)
    how=$(cat "$W/migrate")
    case $how in
      send) send || fail 'operation aborted: migration out: canceled by client' ;;
      lost) send </dev/null >/dev/null 2>&1 & fail 'Disconnected from qemu+ssh://a/system due to end of file' ;;
      *) fail "$how" ;;
    esac
    ;;
  *) fail "unknown command: '$1'" ;;
esac
`;

/** Two hosts, `a` with a running domain `vm7` whose disk is `vm7/disk.raw`, and `b` without one. */
export class StubVirsh {
  readonly program: string;
  readonly #world: string;

  constructor(folder: string) {
    this.#world = join(folder, 'world');
    this.program = join(folder, 'virsh');
    for (const host of ['a', 'b']) mkdirSync(join(this.#world, host), { recursive: true });
    writeFileSync(this.program, SCRIPT(this.#world), { mode: 0o755 });
    this.set('log', '');
    this.set('persistent', 'yes');
    this.set('migrate', 'send');
    this.set('disks', ' file   disk   vda   /var/lib/images/vm7/disk.raw\n');
    this.set('a/domain', 'running (booted)');
  }

  /** Writes a file of the world; undefined removes it. */
  set(name: string, text: string | undefined): void {
    const path = join(this.#world, name);
    if (text === undefined) rmSync(path, { force: true });
    else writeFileSync(path, `${text}\n`);
  }

  get(name: string): string | undefined {
    const path = join(this.#world, name);
    return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
  }

  /** Everything it was told to do, `HOST COMMAND ...`; questions are left out. */
  get told(): readonly string[] {
    return this.get('log')!.split('\n').filter(Boolean);
  }

  /** What was asked, `HOST COMMAND`. */
  get asked(): readonly string[] {
    return this.get('questions')?.split('\n') ?? [];
  }

  forgetWhatItWasTold(): void {
    this.set('log', '');
  }
}
