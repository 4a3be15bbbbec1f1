/**
 * Moves a domain between two libvirts by `virsh migrate`, without storage (docs/HYPERVISORS.md, "The flags of virsh").
 * The libvirt on the source does it (`--p2p`), so it goes on whatever becomes of virsh or of the scheduler.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../leaves/clock.js';
import { pause } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { LogSink } from '../../leaves/log-sink.js';
import { type Millis, millis } from '../../leaves/units.js';
import { type CommandResult, CommandRun } from '../scheduler/command-run.js';
import type { HypervisorDriver, MoveJob, MoveProgress } from '../scheduler/hypervisor-driver.js';
import { type Place, placeOf, type Sight, sightWords } from './domain-place.js';
import { assertDisksMove, failureOf } from './libvirt-refusal.js';
import { moveWithin } from './move-limit.js';
import { complaintOf, type OutgoingJob, Virsh } from './virsh.js';

/** What a configuration says. */
export interface LibvirtSettings {
  /**
   * Connection URIs of libvirt on both hosts, and of the target as the source reaches it. `{vm}`, `{source}` and
   * `{target}` stand for the names in the task, here and below.
   */
  readonly source: string;
  readonly target: string;
  readonly peer: string;
  /** Where QEMU on the target takes the RAM; absent: what libvirt there proposes. */
  readonly migrateUri?: string;
  /** Name or UUID. */
  readonly domain: string;
  /** Further options of `virsh migrate`. */
  readonly options: readonly string[];
  readonly downtime?: Millis;
  /** Move a domain that writes to disks which are not images of the task. */
  readonly otherDisks: boolean;
  /** Path of virsh. */
  readonly virsh: string;
  /** Of a move. */
  readonly timeout: Millis;
}

export interface LibvirtDriverOptions extends LibvirtSettings {
  /** Where the runs of virsh are kept. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: LogSink;
  /** What virsh inherits. */
  readonly env: NodeJS.ProcessEnv;
  /** What libvirt needs to clear up, at most. */
  readonly settleMax?: Millis;
}

/** Never `--copy-storage-*`; never `--postcopy`: a VM that is in two halves cannot be rolled back. */
const FLAGS = ['--live', '--p2p', '--unsafe', '--abort-on-error'];
/** The definition moves with the VM: nobody starts it again on the source, whose images are fenced. */
const PERSISTENT_FLAGS = ['--persistent', '--undefinesource'];

const PROGRESS_INTERVAL = millis(1_000);
const LOOK_INTERVAL = millis(250);
const SETTLE_MAX = millis(10_000);
/** Of a cancellation; and for a virsh that has not come as far as a migration. */
const CANCEL_MAX = millis(60_000);
const START_MAX = millis(10_000);

interface Sides {
  readonly source: Virsh;
  readonly target: Virsh;
}

interface View extends Place {
  readonly source: Sight;
  readonly target: Sight;
}

export class LibvirtDriver implements HypervisorDriver {
  readonly #options: LibvirtDriverOptions;

  constructor(options: LibvirtDriverOptions) {
    this.#options = options;
  }

  move(
    job: MoveJob,
    signal: AbortSignal,
    report: (progress: MoveProgress) => void = () => undefined,
  ): Promise<void> {
    const { clock, timeout } = this.#options;
    return moveWithin(
      {
        ...{ clock, timeout },
        move: (within) => this.#move(job, within, report),
        stop: () => this.stop(job),
        failure: `libvirt did not move ${job.vm}`,
        remedy:
          "let the guest change less memory, give the driver the option --auto-converge, or raise the driver's timeout",
      },
      signal,
    );
  }

  async stop(job: MoveJob): Promise<'moved' | 'not-moved'> {
    const run = this.#runOf(job);
    // One that was never begun is forbidden by that.
    if (!run.begun) await run.kill();
    await this.#aborted(job, run);
    const { status } = await run.end();
    if (status === 0) return 'moved';
    const view = await this.#settled(job);
    if (view.kind === 'target') return 'moved';
    if (view.kind === 'source' || view.kind === 'nowhere') return 'not-moved';
    throw this.#unknown(job, view);
  }

  async rollBack(job: MoveJob, signal: AbortSignal): Promise<void> {
    const view = await this.#settled(job, signal);
    if (view.kind === 'target')
      throw new MigrateFsError('ABORTED', `${job.vm} runs on ${job.target} already`);
    if (view.kind === 'nowhere')
      throw new MigrateFsError('ABORTED', `${job.vm} runs on neither host: start it on ${job.source}`);
    if (view.kind === 'unknown') throw this.#unknown(job, view);
    const { source, target } = this.#sides(job);
    if (view.leftover && view.target.kind === 'present')
      await target.call(signal, 'destroy', view.target.uuid);
    if (view.source.kind === 'present' && isStoppedFor('migrating', view.source))
      await source.call(signal, 'resume', view.source.uuid);
  }

  forget(task: string): void {
    rmSync(join(this.#options.folder, task), { recursive: true, force: true });
  }

  async #move(job: MoveJob, signal: AbortSignal, report: (progress: MoveProgress) => void): Promise<void> {
    const run = this.#runOf(job);
    if (!run.begun) {
      const view = await this.#settled(job, signal);
      if (view.kind === 'target') return;
      if (view.kind !== 'source' || view.source.kind !== 'present') throw this.#unknown(job, view);
      await this.#begin(job, run, view.source.uuid, signal);
    }
    const result = await this.#followed(job, run, signal, report);
    if (result.status !== 0) {
      // A virsh that was killed, or lost its connection, says nothing of the VM.
      const view = await this.#settled(job, signal);
      if (view.kind !== 'target')
        throw failureOf(
          job,
          complaintOf(await run.lastLine()) || endWords(result),
          view.kind === 'source' ? '' : ` (now ${where(job, view)})`,
        );
    }
    await this.#reportEnd(job, report);
  }

  async #begin(job: MoveJob, run: CommandRun, uuid: string, signal: AbortSignal): Promise<void> {
    const { downtime, migrateUri, otherDisks, options, env } = this.#options;
    const { source } = this.#sides(job);
    if (!otherDisks) assertDisksMove(job, await source.disks(uuid, signal));
    if (downtime !== undefined)
      await source.call(signal, 'migrate-setmaxdowntime', uuid, String(Math.ceil(downtime)));
    const persistent = await source.isPersistent(uuid, signal);
    const command = source.command(
      'migrate',
      ...FLAGS,
      ...(persistent ? PERSISTENT_FLAGS : []),
      ...options,
      ...['--domain', uuid, '--desturi', this.#filledIn(this.#options.peer, job)],
      ...(migrateUri === undefined ? [] : ['--migrateuri', this.#filledIn(migrateUri, job)]),
    );
    await run.start(command, { ...env, LC_ALL: 'C' });
  }

  async #followed(
    job: MoveJob,
    run: CommandRun,
    signal: AbortSignal,
    report: (progress: MoveProgress) => void,
  ): Promise<CommandResult> {
    const { source } = this.#sides(job);
    for (;;) {
      const result = await this.#endOf(run, PROGRESS_INTERVAL, signal);
      if (result) return result;
      const sending = await this.#sending(source, job, signal).catch(() => undefined);
      if (!sending) continue;
      this.#options.log('debug', 'libvirt sends the VM', { ...named(job), ...sending });
      report(sending);
    }
  }

  /** Undefined when it goes on after `wait`. */
  async #endOf(run: CommandRun, wait: Millis, signal?: AbortSignal): Promise<CommandResult | undefined> {
    const over = new AbortController();
    const forget = this.#options.clock.after(wait, () => over.abort());
    try {
      return await run.end(signal ? AbortSignal.any([signal, over.signal]) : over.signal);
    } catch (error) {
      if (signal?.aborted || !over.signal.aborted) throw error;
      return undefined;
    } finally {
      forget();
    }
  }

  /** Resolves when virsh has ended and the source sends nothing any more. */
  async #aborted(job: MoveJob, run: CommandRun): Promise<void> {
    const { clock } = this.#options;
    const { source } = this.#sides(job);
    const began = clock.now();
    for (;;) {
      const uuid = await this.#abort(source, job);
      const ended = await this.#endOf(run, LOOK_INTERVAL);
      if (ended && uuid === undefined) return;
      const waited = clock.now() - began;
      // libvirt may still do what it was asked: the next round sees that.
      if (!ended && uuid === undefined && waited > START_MAX) await run.kill();
      if (waited > CANCEL_MAX)
        throw new MigrateFsError(
          'DEADLINE_EXCEEDED',
          `${source.who} does not end the migration of ${job.vm}: see virsh domjobinfo there`,
        );
    }
  }

  /** The domain whose migration was told to end; undefined: the source sends nothing, or cannot be asked. */
  async #abort(source: Virsh, job: MoveJob): Promise<string | undefined> {
    try {
      const state = await source.state(this.#domain(job));
      if (!state || !(await source.outgoing(state.uuid))) return undefined;
      // Over by now, or too late to be ended: the next round sees which.
      await source.call(undefined, 'domjobabort', state.uuid).catch(() => undefined);
      return state.uuid;
    } catch (error) {
      if (error instanceof MigrateFsError) return undefined;
      throw error;
    }
  }

  /** Where the VM is once no migration is under way, and once libvirt has cleared up. */
  async #settled(job: MoveJob, signal?: AbortSignal): Promise<View> {
    const { clock, settleMax = SETTLE_MAX } = this.#options;
    const sides = this.#sides(job);
    let began = clock.now();
    for (;;) {
      const { source, sends } = await this.#seenSending(sides.source, job, signal);
      if (sends === true) began = clock.now();
      else {
        const target = await this.#seen(sides.target, job, signal);
        const view = { ...placeOf(source, target), source, target };
        const settled = view.settled && sends !== 'unknown';
        if (settled || clock.now() - began > settleMax)
          return sends === 'unknown' ? { ...view, kind: 'unknown' } : view;
      }
      await pause(clock, LOOK_INTERVAL, signal);
    }
  }

  async #seen(side: Virsh, job: MoveJob, signal?: AbortSignal): Promise<Sight> {
    try {
      const state = await side.state(this.#domain(job), signal);
      return state ? { kind: 'present', ...state } : { kind: 'absent' };
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof MigrateFsError)) throw error;
      return { kind: 'unreachable', error };
    }
  }

  /** What the source says of the domain, and whether it sends it away. */
  async #seenSending(
    side: Virsh,
    job: MoveJob,
    signal?: AbortSignal,
  ): Promise<{ readonly source: Sight; readonly sends: boolean | 'unknown' }> {
    const source = await this.#seen(side, job, signal);
    // libvirt tells the jobs of active domains only.
    if (source.kind !== 'present' || isIdle(source)) return { source, sends: false };
    try {
      return { source, sends: (await side.outgoing(source.uuid, signal)) !== undefined };
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof MigrateFsError)) throw error;
    }
    // It may have been switched off between the two questions.
    const now = await this.#seen(side, job, signal);
    return { source: now, sends: isIdle(now) ? false : 'unknown' };
  }

  async #sending(source: Virsh, job: MoveJob, signal: AbortSignal): Promise<OutgoingJob | undefined> {
    const state = await source.state(this.#domain(job), signal);
    return state && (await source.outgoing(state.uuid, signal));
  }

  async #reportEnd(job: MoveJob, report: (progress: MoveProgress) => void): Promise<void> {
    const { target } = this.#sides(job);
    let downtime: Millis | undefined;
    try {
      const state = await target.state(this.#domain(job));
      downtime = state && (await target.downtime(state.uuid));
    } catch {
      // The VM has moved; only the figure is missing.
    }
    this.#options.log('info', 'libvirt has moved the VM', {
      ...named(job),
      ...(downtime !== undefined && { downtime }),
    });
    if (downtime !== undefined) report({ vmDowntime: downtime });
  }

  #unknown(job: MoveJob, view: View): MigrateFsError {
    if (view.kind === 'nowhere')
      return new MigrateFsError(
        'FAILED_PRECONDITION',
        `${job.vm} is ${where(job, view)}: a VM that is switched off takes driver 'none'`,
      );
    const unreachable = [view.source, view.target].find(({ kind }) => kind === 'unreachable');
    return new MigrateFsError(
      unreachable ? 'UNAVAILABLE' : 'ABORTED',
      `nobody knows where ${job.vm} has to run: it is ${where(job, view)}; see migratefs images on both hosts for ` +
        'who owns its disks, have it run there (virsh resume), and end the other one (virsh destroy)',
    );
  }

  #runOf(job: MoveJob): CommandRun {
    return new CommandRun(
      join(this.#options.folder, job.task, `libvirt-${job.attempt}`),
      this.#options.clock,
    );
  }

  #sides(job: MoveJob): Sides {
    const { virsh: program, clock, env } = this.#options;
    const side = (key: 'source' | 'target'): Virsh =>
      new Virsh({
        ...{ program, clock, env, who: `libvirt on ${job[key]}` },
        uri: this.#filledIn(this.#options[key], job),
      });
    return { source: side('source'), target: side('target') };
  }

  #domain(job: MoveJob): string {
    return this.#filledIn(this.#options.domain, job);
  }

  #filledIn(pattern: string, { vm, source, target }: MoveJob): string {
    const values: Readonly<Record<string, string>> = { vm, source, target };
    return pattern.replace(/\{(vm|source|target)\}/g, (_, name: string) => values[name]!);
  }
}

const named = ({ task, vm }: MoveJob): object => ({ task, vm });

const isStoppedFor = (reason: string, sight: Sight): boolean =>
  sight.kind === 'present' && sight.activity === 'paused' && sight.reason === reason;

const isIdle = (sight: Sight): boolean =>
  sight.kind === 'absent' || (sight.kind === 'present' && sight.activity === 'inactive');

const where = (job: MoveJob, { source, target }: View): string =>
  `on ${job.source}: ${sightWords(source)}, on ${job.target}: ${sightWords(target)}`;

const endWords = ({ status }: CommandResult): string =>
  status === undefined ? 'virsh was killed, or could not be run' : `virsh ended with status ${status}`;
