/** One libvirt as `virsh` shows it (virsh(1)): a process for each question, an argument vector, no shell. */
import { spawn } from 'node:child_process';
import type { Clock } from '../../leaves/clock.js';
import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { type Bytes, bytes, type Millis, millis } from '../../leaves/units.js';

export interface VirshOptions {
  /** Path of the program. */
  readonly program: string;
  readonly uri: string;
  /** Names this libvirt in errors. */
  readonly who: string;
  readonly clock: Clock;
  readonly env: NodeJS.ProcessEnv;
}

/** What a domain does; `reason` as virsh prints it, such as `migrated`. */
export interface DomainState {
  readonly uuid: string;
  readonly activity: 'running' | 'paused' | 'inactive';
  readonly reason: string;
}

/** The outgoing migration of a domain. */
export interface OutgoingJob {
  readonly ramSent: Bytes;
  readonly ramLeft: Bytes;
}

export interface DomainDisk {
  readonly type: string;
  readonly device: string;
  readonly target: string;
  readonly source: string;
}

/** Of one question; virsh itself finds out after 30 s that a connection is dead. */
const ANSWER_MAX = millis(20_000);
const OUTPUT_BYTES_MAX = 1024 * 1024;
/** Of an error that is passed on. */
const COMPLAINT_LENGTH_MAX = 400;
/** Numbers of `enum virDomainJobType` that mean work under way, and of `virDomainJobOperation` the one asked for. */
const UNDER_WAY = ['1', '2'];
const MIGRATION_OUT = '5';
const ACTIVITIES: Readonly<Record<string, DomainState['activity']>> = {
  paused: 'paused',
  'shut off': 'inactive',
  crashed: 'inactive',
};
const LISTED = /^\s*([0-9a-f-]{36})\s+(.+?)\s*$/;
const DISK = /^\s*(\S+)\s+(disk|lun|cdrom|floppy)\s+(\S+)\s+(.*?)\s*$/;

/** What virsh complained about, in one line. */
export const complaintOf = (stderr: string): string =>
  stderr
    .split('\n')
    .map((line) => line.replace(/^error:\s*/, '').trim())
    .filter((line) => line !== '')
    .join('; ')
    .slice(0, COMPLAINT_LENGTH_MAX);

export class Virsh {
  readonly who: string;
  readonly #options: VirshOptions;

  constructor(options: VirshOptions) {
    this.who = options.who;
    this.#options = options;
  }

  /** Program and arguments that have this libvirt do something. */
  command(...args: readonly string[]): readonly [string, ...string[]] {
    const { program, uri } = this.#options;
    return [program, '--quiet', '--connect', uri, ...args];
  }

  /** The domain of this name, or UUID; undefined when there is none. */
  async state(domain: string, signal?: AbortSignal): Promise<DomainState | undefined> {
    const uuid = await this.#uuidOf(domain, signal);
    if (uuid === undefined) return undefined;
    try {
      const text = (await this.call(signal, 'domstate', uuid, '--reason')).trim();
      const [, state = text, reason = ''] = /^(.*?)(?: \((.*)\))?$/.exec(text) ?? [];
      return { uuid, activity: ACTIVITIES[state] ?? 'running', reason };
    } catch (error) {
      // It may have gone between the two questions.
      if ((await this.#uuidOf(domain, signal)) === undefined) return undefined;
      throw error;
    }
  }

  /** Undefined: none is under way. */
  async outgoing(uuid: string, signal?: AbortSignal): Promise<OutgoingJob | undefined> {
    const values = fieldsOf(await this.call(signal, 'domjobinfo', uuid, '--rawstats'));
    if (!UNDER_WAY.includes(values.get('Job type') ?? '') || values.get('operation') !== MIGRATION_OUT)
      return undefined;
    const number = (key: string): Bytes => bytes(numberOf(values.get(key)) ?? 0);
    return { ramSent: number('memory_processed'), ramLeft: number('memory_remaining') };
  }

  /** Downtime of the migration that brought the domain here; undefined where libvirt does not know. */
  async downtime(uuid: string, signal?: AbortSignal): Promise<Millis | undefined> {
    const text = await this.call(signal, 'domjobinfo', uuid, '--rawstats', '--completed');
    const value = numberOf(fieldsOf(text).get('downtime'));
    return value === undefined ? undefined : millis(value);
  }

  async isPersistent(uuid: string, signal?: AbortSignal): Promise<boolean> {
    return fieldsOf(await this.call(signal, 'dominfo', uuid)).get('Persistent') === 'yes';
  }

  async disks(uuid: string, signal?: AbortSignal): Promise<readonly DomainDisk[]> {
    const text = await this.call(signal, 'domblklist', uuid, '--details');
    return text.split('\n').flatMap((line) => {
      const [, type, device, target, source] = DISK.exec(line) ?? [];
      return type && device && target ? [{ type, device, target, source: source ?? '' }] : [];
    });
  }

  /** Has virsh do one thing. UNAVAILABLE: this libvirt does not answer; ABORTED: it refuses, with its words. */
  async call(signal: AbortSignal | undefined, ...args: readonly string[]): Promise<string> {
    signal?.throwIfAborted();
    const { code, stdout, stderr } = await this.#run(args, signal);
    if (code === 0) return stdout;
    const complaint = complaintOf(stderr) || `virsh ended with status ${code ?? 'unknown'}`;
    const unreachable = /failed to connect to the hypervisor|Disconnected from|client socket is closed/.test(
      stderr,
    );
    throw new MigrateFsError(
      unreachable ? 'UNAVAILABLE' : 'ABORTED',
      `${this.who} ${unreachable ? 'cannot be reached' : `refuses ${args[0]}`}: ${complaint}`,
    );
  }

  async #uuidOf(domain: string, signal?: AbortSignal): Promise<string | undefined> {
    // virsh would take a name that is a number for the id of some domain.
    const text = await this.call(signal, 'list', '--all', '--uuid', '--name');
    for (const line of text.split('\n')) {
      const [, uuid, name] = LISTED.exec(line) ?? [];
      if (uuid !== undefined && (name === domain || uuid === domain.toLowerCase())) return uuid;
    }
    return undefined;
  }

  #run(
    args: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> {
    const { clock, env, uri } = this.#options;
    const [program, ...rest] = this.command(...args);
    return new Promise((resolve, reject) => {
      // A group of its own: what it starts (ssh) ends with it.
      const child = spawn(program, rest, {
        detached: true,
        stdio: ['ignore', 'pipe', 'pipe'],
        // Its words are read here.
        env: { ...env, LC_ALL: 'C' },
      });
      const end = (error: unknown): void => {
        if (child.pid !== undefined) killGroup(child.pid);
        reject(error as Error);
      };
      const late = (): void =>
        end(
          new MigrateFsError(
            'UNAVAILABLE',
            `${this.who} does not answer within ${formatDuration(ANSWER_MAX)}: try virsh --connect ${uri} list`,
          ),
        );
      const forget = clock.after(ANSWER_MAX, late);
      const onAbort = (): void => end(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      let [stdout, stderr] = ['', ''];
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        stdout = (stdout + text).slice(0, OUTPUT_BYTES_MAX);
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        stderr = (stderr + text).slice(0, OUTPUT_BYTES_MAX);
      });
      const done = (): void => {
        forget();
        signal?.removeEventListener('abort', onAbort);
      };
      child.once('error', (cause) => {
        done();
        reject(
          new MigrateFsError(
            'FAILED_PRECONDITION',
            `cannot run ${program}: ${cause.message}: install the libvirt client, or say with 'virsh' where it is`,
            { cause },
          ),
        );
      });
      child.once('close', (code) => {
        done();
        resolve({ code, stdout, stderr });
      });
    });
  }
}

const numberOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;

/** Lines `key: value`. */
const fieldsOf = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text.split('\n').flatMap((line) => {
      const [, key, value] = /^([^:]+):\s*(.*?)\s*$/.exec(line) ?? [];
      return key === undefined ? [] : [[key, value!] as const];
    }),
  );

const killGroup = (leader: number): void => {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // It has ended.
  }
};
