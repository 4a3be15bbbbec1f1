/** How a mount is given up: what signals and the control API ask for, and what speaks against it. */
import { mountCopies, mountHolders } from './fs/mount-holders.js';
import type { MountedFileSystem } from './fs/mounted-file-system.js';
import type { Clock } from './leaves/clock.js';
import { pause } from './leaves/clock.js';
import { MigrateFsError } from './leaves/errors.js';
import type { LogSink } from './leaves/log-sink.js';
import type { MigrationControl } from './leaves/migration.js';
import { isFinal } from './leaves/migration.js';
import type { Millis } from './leaves/units.js';
import { millis } from './leaves/units.js';
import type { Holder, UnmountRequest } from './leaves/unmount.js';

/** A second signal within this time means it: lazily. */
const INSIST_MAX = millis(10_000);
/** A mount that nobody has open is over by then, unless another mount namespace keeps a copy. */
const END_MAX = millis(3_000);
/** Holders that a message names. */
const NAMED_MAX = 3;

interface UnmountingOptions {
  readonly fileSystem: Pick<MountedFileSystem, 'detach' | 'gone'>;
  readonly migrations: Pick<MigrationControl, 'list'>;
  readonly mountpoint: string;
  readonly clock: Clock;
  readonly log: LogSink;
}

const nameHolders = (holders: readonly Holder[]): string => {
  const named = holders
    .slice(0, NAMED_MAX)
    .map(({ pid, command, path }) => `${command} (pid ${pid}, ${path})`);
  const more = holders.length - named.length;
  return `${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
};

export class Unmounting {
  readonly #options: UnmountingOptions;
  /** Signals are looked at one after the other. */
  #turn = Promise.resolve();
  #refusedAt: Millis | undefined;
  #detached = false;

  constructor(options: UnmountingOptions) {
    this.#options = options;
  }

  /** See `Unmount`. */
  async request({ mountpoint, lazy }: UnmountRequest): Promise<readonly Holder[]> {
    const own = this.#options.mountpoint;
    if (mountpoint !== own)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `this daemon serves ${own}, not ${mountpoint}: name the other one's control address with --server`,
      );
    if (this.#detached)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `${own} is detached already: the daemon ends when the last open file is closed`,
      );
    if (!lazy) await this.#refuseWhileMigrating();
    const copies = await mountCopies(own);
    const holders: Holder[] = [];
    try {
      await this.#options.fileSystem.detach({ lazy: false });
    } catch (error) {
      // Only now, because it reads through every process of the host.
      holders.push(...(await mountHolders(own)));
      if (!lazy) throw holders.length === 0 ? error : this.#inUse(holders, error);
      await this.#options.fileSystem.detach({ lazy });
    }
    this.#detached = true;
    if (holders.length > 0)
      this.#options.log('info', 'detached; the daemon ends when the last open file is closed', {
        holders: nameHolders(holders),
      });
    else void this.#watchEnd(copies);
    return holders;
  }

  /** Says what a daemon waits for whose mount point is gone although nobody has anything open. */
  async #watchEnd(copies: () => Promise<readonly Holder[]>): Promise<void> {
    const { clock, log, fileSystem } = this.#options;
    const ended = new AbortController();
    void fileSystem.gone.then(() => ended.abort());
    await pause(clock, END_MAX, ended.signal).catch(() => {});
    if (ended.signal.aborted) return;
    log('warn', 'unmounted, but other mount namespaces have it still; the daemon ends when they give it up', {
      holders: nameHolders(await copies()),
    });
  }

  /** What SIGTERM asks for: never takes the disk of a running VM away by itself. */
  signal(name: NodeJS.Signals): void {
    this.#turn = this.#turn.then(() => this.#signal(name));
  }

  async #signal(name: NodeJS.Signals): Promise<void> {
    const { clock, log, mountpoint } = this.#options;
    if (this.#detached) {
      log('info', 'detached already; waiting until the last open file is closed', { signal: name });
      return;
    }
    const insisting = this.#refusedAt !== undefined && clock.now() - this.#refusedAt < INSIST_MAX;
    log('info', insisting ? 'unmounting lazily' : 'unmounting', { signal: name });
    try {
      await this.request({ mountpoint, lazy: insisting });
    } catch (error) {
      this.#refusedAt = clock.now();
      // What is refused says all of it; `err` would say it again, with its stack and its cause.
      const expected = error instanceof MigrateFsError;
      log('error', `still serving: ${(error as Error).message}`, expected ? {} : { err: error });
    }
  }

  async #refuseWhileMigrating(): Promise<void> {
    const running = (await this.#options.migrations.list()).filter(({ state }) => !isFinal(state));
    const [first] = running;
    if (!first) return;
    const more = running.length > 1 ? ` and ${running.length - 1} more` : '';
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `migration ${first.id}${more} is under way (${first.state}): migratefs cancel ${first.id}, or let it end; ${this.#insist}`,
    );
  }

  #inUse(holders: readonly Holder[], cause: unknown): MigrateFsError {
    return new MigrateFsError(
      'FAILED_PRECONDITION',
      `${this.#options.mountpoint} is in use by ${nameHolders(holders)}: close its files first; ${this.#insist}`,
      { cause },
    );
  }

  get #insist(): string {
    return `migratefs unmount --lazy, or a second signal within ${INSIST_MAX / 1000} s, detaches it and lets open files be used until they are closed`;
  }
}
