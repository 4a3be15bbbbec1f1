/** A command that is started once, whatever happens to the process that starts it. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../leaves/clock.js';
import { pause } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { ProcessIdentity } from './process-identity.js';
import { isRunning } from './process-identity.js';

/** Bytes of its output that are kept: the first. */
const OUTPUT_BYTES_MAX = 64 * 1024;
/** Bytes of the last line of its output, for the error. */
const LAST_LINE_MAX = 200;
const POLL = millis(50);
/** The output of a command that has ended is looked for this long. */
const COPY_MAX = millis(1_000);
/** Between SIGTERM and SIGKILL. */
const TERM_GRACE = millis(5_000);
const STATUS = /^\d{1,3}$/;
/** The claim of a run that must not begin. One that is empty, for want of space, says the same. */
const FORBIDDEN = 'forbidden';
/** A wrapper that has not claimed the run by then never will: it could not be started, or died. */
const CLAIM_MAX = millis(10_000);

/**
 * `sh -c WRAPPER sh FOLDER MAX COMMAND...`, in a session of its own. Whoever makes the claim, a file that holds its identity
 * from the moment it exists, runs the command; a second wrapper for the same folder does nothing. The file `status` is there
 * before the command begins, says that its end is not known, and is overwritten in place when it is: a disk that has become
 * full must not make a success look like a failure. All are on disk before anything depends on them.
 */
const WRAPPER = `
folder=$1 max=$2
shift 2
# Caught, not ignored: the command dies of it, and its status is written.
trap : TERM
line=$(cat "/proc/$$/stat") || exit 125
line=\${line##*) }
set -f
own="$folder/claim.$$" end="$folder/status.$$"
give_up() { rm -f "$own" "$end"; exit 125; }
(set -- $line; echo "$$ \${20} $(cat /proc/sys/kernel/random/boot_id)") >"$own" || give_up
printf '%-7s\\n' unknown >"$end" || give_up
sync "$own" "$end" 2>/dev/null
ln "$own" "$folder/claim" 2>/dev/null || { rm -f "$own" "$end"; exit 0; }
rm -f "$own"
mkfifo "$folder/pipe" || give_up
command exec 4>"$folder/output" || give_up
printf '' >"$folder/copying" || give_up
# It must outlive the command, which would die of writing to nobody. It makes no file: the folder of a command that has ended
# may be deleted at any time.
{ trap '' TERM; head -c "$max" >&4; rm -f "$folder/copying"; cat >/dev/null; } <"$folder/pipe" &
exec 3>"$folder/pipe" 4>&-
rm -f "$folder/pipe"
mv "$end" "$folder/status" || give_up
sync "$folder" 2>/dev/null
"$@" </dev/null >&3 2>&1 3>&-
printf '%-7s\\n' "$?" 1<>"$folder/status"
exec 3>&-
sync "$folder/status" 2>/dev/null
`;

export interface CommandResult {
  /** Exit status; undefined: it has not said any. */
  readonly status: number | undefined;
  /**
   * `ended`: by itself, with that status. `killed`: by this program before it said anything. `not-begun`: and it never will.
   * `unknown`: it was begun, and is gone.
   */
  readonly how: 'ended' | 'killed' | 'not-begun' | 'unknown';
}

/** One run, named by its folder: the same folder means the same run, in this process and after it. */
export class CommandRun {
  readonly folder: string;
  readonly #clock: Clock;
  /** Its end was first waited for then, perhaps for a moment only. */
  #waitedSince: Millis | undefined;

  constructor(folder: string, clock: Clock) {
    this.folder = folder;
    this.#clock = clock;
  }

  get outputFile(): string {
    return join(this.folder, 'output');
  }

  /** Whether the command was begun, as far as is known now. */
  get begun(): boolean {
    return this.#identity() !== undefined;
  }

  /** Whether its output is still being copied to the file, which holds the first of it. */
  get copying(): boolean {
    return existsSync(join(this.folder, 'copying'));
  }

  /** Starts the command unless that was done already. UNAVAILABLE: no process could be made. */
  async start(command: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
    if (this.#read('claim') !== undefined) return;
    this.#makeFolder();
    this.#waitedSince = undefined;
    const wrapper = spawn(
      '/bin/sh',
      ['-c', WRAPPER, 'sh', this.folder, String(OUTPUT_BYTES_MAX), ...command],
      {
        detached: true,
        stdio: 'ignore',
        env,
      },
    );
    wrapper.unref();
    await new Promise<void>((resolve, reject) => {
      wrapper.once('spawn', resolve);
      wrapper.once('error', (cause) =>
        reject(new MigrateFsError('UNAVAILABLE', `cannot run /bin/sh: ${cause.message}`, { cause })),
      );
    });
  }

  /** Resolves when it has ended. Aborting `signal` ends the waiting, not the command. */
  async end(signal?: AbortSignal): Promise<CommandResult> {
    this.#waitedSince ??= this.#clock.now();
    const since = this.#waitedSince;
    for (;;) {
      const status = this.#status();
      if (status !== undefined) return { status, how: 'ended' };
      if (this.#clock.now() - since > CLAIM_MAX) this.#forbid();
      // Once: it may be made between two looks.
      const claim = this.#read('claim');
      const identity = identityOf(claim);
      if (identity ? !isRunning(identity) : claim !== undefined) return this.#result();
      await pause(this.#clock, POLL, signal);
    }
  }

  /** Ends it with everything it started in its session, or sees to it that it never begins; resolves when it is gone. */
  async kill(): Promise<CommandResult> {
    this.#forbid();
    const identity = this.#identity();
    if (!identity || this.#status() !== undefined || !isRunning(identity)) return this.#result();
    signalGroup(identity.pid, 'SIGTERM');
    const end = this.end();
    const forget = this.#clock.after(TERM_GRACE, () => {
      this.#noteKill();
      signalGroup(identity.pid, 'SIGKILL');
    });
    try {
      return await end;
    } finally {
      forget();
      // What its shell has left behind.
      signalGroup(identity.pid, 'SIGKILL');
    }
  }

  /**
   * The last line that it printed, for an error, once it has ended. Its output is copied by another process, which is waited
   * for a while: not for ever, because something that the command has started may hold the pipe open.
   */
  async lastLine(): Promise<string> {
    const asked = this.#clock.now();
    while (this.copying && this.#clock.now() - asked < COPY_MAX) await pause(this.#clock, POLL);
    try {
      const lines = readFileSync(this.outputFile, 'utf8').trimEnd().split('\n');
      return lines.at(-1)!.slice(-LAST_LINE_MAX);
    } catch {
      return '';
    }
  }

  #status(): number | undefined {
    const text = this.#read('status');
    return text !== undefined && STATUS.test(text) ? Number(text) : undefined;
  }

  /** Of one that is not running. */
  #result(): CommandResult {
    // It may have ended between two looks.
    const status = this.#status();
    if (status !== undefined) return { status, how: 'ended' };
    if (this.#read('status') === undefined) return { status, how: 'not-begun' };
    return { status, how: this.#read('killed') === undefined ? 'unknown' : 'killed' };
  }

  #identity(): ProcessIdentity | undefined {
    return identityOf(this.#read('claim'));
  }

  /** Unless a wrapper has made the claim, none will: one may have been started by a process that is gone. */
  #forbid(): void {
    this.#makeFolder();
    try {
      writeFileSync(join(this.folder, 'claim'), FORBIDDEN, { flag: 'wx' });
    } catch (error) {
      if (this.#read('claim') === undefined) throw noRoom(this.folder, error);
    }
  }

  /** Its shell is killed with it, and cannot say how it ended; without a note, nobody knows. */
  #noteKill(): void {
    try {
      writeFileSync(join(this.folder, 'killed'), '');
    } catch {
      // The disk is full.
    }
  }

  /** RESOURCE_EXHAUSTED. */
  #makeFolder(): void {
    try {
      mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw noRoom(this.folder, error);
    }
  }

  #read(name: string): string | undefined {
    try {
      return readFileSync(join(this.folder, name), 'utf8').trim();
    } catch {
      return undefined;
    }
  }
}

const identityOf = (claim: string | undefined): ProcessIdentity | undefined => {
  const [pid, startTime, bootId] = claim?.split(' ') ?? [];
  return pid && startTime && bootId ? { pid: Number(pid), startTime, bootId } : undefined;
};

const noRoom = (folder: string, cause: unknown): MigrateFsError =>
  new MigrateFsError(
    'RESOURCE_EXHAUSTED',
    `cannot write to ${folder}: ${(cause as Error).message}: make room`,
    {
      cause,
    },
  );

const signalGroup = (leader: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(-leader, signal);
  } catch {
    // Nobody is left in it.
  }
};

/** Resolves like `end`, but ends the command after `timeout`; `late` tells whether that was done. */
export const endWithin = async (
  run: CommandRun,
  clock: Clock,
  timeout: Millis,
  signal: AbortSignal,
): Promise<CommandResult & { readonly late: boolean }> => {
  const late = new AbortController();
  const forget = clock.after(timeout, () => late.abort());
  try {
    return { ...(await run.end(AbortSignal.any([signal, late.signal]))), late: false };
  } catch (error) {
    if (signal.aborted || !late.signal.aborted) throw error;
    const result = await run.kill();
    return { ...result, late: result.status !== 0 };
  } finally {
    forget();
  }
};
