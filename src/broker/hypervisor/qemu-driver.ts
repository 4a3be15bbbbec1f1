/**
 * Moves a VM between two QEMUs over their monitors (QEMU documentation, "QMP Reference Manual", migration). The one on the
 * target was started with `-incoming defer` and the same machine; storage is not QEMU's business here. All that is known
 * of a move is asked of the two QEMUs each time, so that another process can go on with it.
 */
import type { Clock } from '../../leaves/clock.js';
import { pause } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { LogSink } from '../../leaves/log-sink.js';
import { bytes, type Millis, millis } from '../../leaves/units.js';
import type { HypervisorDriver, MoveJob, MoveProgress } from '../scheduler/hypervisor-driver.js';
import { type MigrationInfo, Monitor } from './monitor.js';
import { moveWithin } from './move-limit.js';

/** What a configuration says. */
export interface QemuSettings {
  /**
   * Addresses of the monitors, `unix:/PATH` or `tcp:HOST:PORT`, and where the target's QEMU takes the migration (a QEMU
   * migration URI). `{vm}`, `{source}` and `{target}` stand for the names in the task.
   */
  readonly source: string;
  readonly target: string;
  readonly migrate: string;
  /** Set on both sides beside `return-path`. */
  readonly capabilities: readonly string[];
  /** Of a move. */
  readonly timeout: Millis;
}

export interface QemuDriverOptions extends QemuSettings {
  /** Starts the QEMU on the target, where that is not done before the task; it is asked once for each attempt. */
  readonly starter?: Pick<HypervisorDriver, 'move' | 'stop' | 'forget'>;
  readonly clock: Clock;
  readonly log: LogSink;
}

/** Of one command, and of a cancellation. */
const ANSWER_MAX = millis(10_000);
const CANCEL_MAX = millis(30_000);
const LOOK_INTERVAL = millis(50);
/** With it the source hears from the target that it has everything before it lets go of the VM. */
const ALWAYS = ['return-path'];
/** Run states of a source that has given its VM away, or was about to. */
const GIVEN_AWAY = ['postmigrate', 'finish-migrate'];

const failed = (message: string): MigrateFsError => new MigrateFsError('ABORTED', message);

const isOver = ({ status }: MigrationInfo): boolean =>
  status === 'completed' || status === 'failed' || status === 'cancelled';

const progressOf = ({ ramSent, ramLeft, downtime, status }: MigrationInfo): MoveProgress => ({
  ...(ramSent !== undefined && { ramSent: bytes(ramSent) }),
  ...(ramLeft !== undefined && { ramLeft: bytes(ramLeft) }),
  ...(downtime !== undefined && status === 'completed' && { vmDowntime: millis(downtime) }),
});

/** Whether the QEMU on the target has the VM, as far as it says itself. */
const holdsVm = (runState: string): boolean => runState === 'running' || runState === 'paused';

export class QemuDriver implements HypervisorDriver {
  readonly #options: QemuDriverOptions;
  /** Attempts of tasks that no QEMU was asked for. */
  readonly #unasked = new Map<string, number>();

  constructor(options: QemuDriverOptions) {
    this.#options = options;
  }

  move(
    job: MoveJob,
    signal: AbortSignal,
    report: (progress: MoveProgress) => void = () => {},
  ): Promise<void> {
    const { clock, timeout } = this.#options;
    return moveWithin(
      {
        ...{ clock, timeout },
        move: (within) => this.#move(job, within, report),
        stop: () => this.stop(job),
        failure: `QEMU did not move ${job.vm}`,
        remedy: 'let the guest change less memory, or raise the timeout of the driver',
      },
      signal,
    );
  }

  async stop(job: MoveJob): Promise<'moved' | 'not-moved'> {
    // First: what it starts later would find nobody who ends it.
    await this.#stopStarter(job);
    let given: boolean;
    try {
      using source = await this.#monitor(job, 'source');
      await this.#cancelled(source);
      given = await hasGivenAway(source);
    } catch (error) {
      if (!(error instanceof MigrateFsError)) throw error;
      // `rollBack` is next, and says what cannot be reached.
      if (this.#unasked.get(job.task) === job.attempt) return 'not-moved';
      // The source may be sending still: that comes to nothing once the target has ended.
      if (await this.#targetHolds(job)) return 'moved';
      await this.#discardTarget(job, 'unknown');
      return 'not-moved';
    }
    // The target has confirmed that it has everything (return-path).
    return given && (await this.#targetHolds(job).catch(() => true)) ? 'moved' : 'not-moved';
  }

  async rollBack(job: MoveJob, signal: AbortSignal): Promise<void> {
    let source: Monitor;
    try {
      source = await this.#monitor(job, 'source', signal);
    } catch (error) {
      signal.throwIfAborted();
      await this.#discardTarget(job, 'unknown', signal);
      throw error;
    }
    using monitor = source;
    await this.#cancelled(monitor);
    // It must be gone before the VM goes on at the source: two of them would be worse than none.
    await this.#discardTarget(job, await monitor.runState(), signal);
    if (GIVEN_AWAY.includes(await monitor.runState())) await monitor.call('cont');
  }

  forget(task: string): void {
    this.#unasked.delete(task);
    this.#options.starter?.forget(task);
  }

  async #move(job: MoveJob, signal: AbortSignal, report: (progress: MoveProgress) => void): Promise<void> {
    if (job.first) this.#unasked.set(job.task, job.attempt);
    let source: Monitor;
    try {
      source = await this.#monitor(job, 'source', signal);
    } catch (error) {
      // Whoever began this move may have ended it, and the QEMU on the source with it.
      if (!signal.aborted && (await this.#targetHolds(job).catch(() => false))) return;
      throw error;
    }
    using monitor = source;
    let info = await monitor.migration();
    if (info.status === undefined || (isOver(info) && !(await hasGivenAway(monitor)))) {
      await this.#begin(job, monitor, signal);
      info = await monitor.migration();
    }
    while (!isOver(info)) {
      this.#report(job, 'debug', 'QEMU sends the VM', info);
      report(progressOf(info));
      await pause(this.#options.clock, LOOK_INTERVAL, signal);
      info = await monitor.migration();
    }
    if (info.status !== 'completed')
      throw failed(
        `QEMU on ${job.source} ended the migration of ${job.vm} as ${info.status}${reasonOf(info)}`,
      );
    if (!(await this.#targetHolds(job, signal)))
      throw failed(`QEMU on ${job.target} does not run ${job.vm} although it was sent completely`);
    this.#report(job, 'info', 'QEMU has moved the VM', info);
    report(progressOf(info));
    // It holds nothing but old state; the first write on the target fences its disks.
    await monitor.quit();
  }

  async #begin(job: MoveJob, source: Monitor, signal: AbortSignal): Promise<void> {
    await this.#options.starter?.move(job, signal);
    using target = await this.#monitor(job, 'target', signal);
    const state = await target.runState();
    if (state !== 'inmigrate')
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `QEMU on ${job.target} does not wait for ${job.vm} (it is ${state}): start it with -incoming defer`,
      );
    const wanted = [...ALWAYS, ...this.#options.capabilities];
    for (const monitor of [source, target]) await monitor.setCapabilities(wanted);
    const uri = this.#filledIn('migrate', job);
    // Whoever began before may have come this far.
    if ((await target.migration()).status === undefined) await target.call('migrate-incoming', { uri });
    this.#unasked.delete(job.task);
    await source.call('migrate', { uri });
  }

  /** One that has ended is left alone, with what it started. */
  async #stopStarter(job: MoveJob): Promise<void> {
    try {
      await this.#options.starter?.stop(job);
    } catch (error) {
      // Nobody knows how it ended: the monitors say what it has left.
      if (!(error instanceof MigrateFsError)) throw error;
    }
  }

  /** How a migration that is under way at the source, if there is one, has ended. */
  async #cancelled(source: Monitor): Promise<MigrationInfo> {
    const { clock } = this.#options;
    const began = clock.now();
    let info = await source.migration();
    while (info.status !== undefined && !isOver(info)) {
      if (clock.now() - began > CANCEL_MAX)
        throw new MigrateFsError('DEADLINE_EXCEEDED', `${source.who} does not end the migration: look at it`);
      // Again and again: QEMU forgets one that comes while it connects.
      if (info.status !== 'cancelling') await source.call('migrate_cancel');
      await pause(clock, LOOK_INTERVAL);
      info = await source.migration();
    }
    return info;
  }

  async #targetHolds(job: MoveJob, signal?: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    using target = await this.#monitor(job, 'target', signal);
    const began = clock.now();
    for (;;) {
      const state = await target.runState();
      if (holdsVm(state)) return true;
      // It starts the VM after it has told the source that everything came.
      if ((await target.migration()).status !== 'completed' || clock.now() - began > ANSWER_MAX) return false;
      await pause(clock, LOOK_INTERVAL, signal);
    }
  }

  async #discardTarget(job: MoveJob, sourceState: string, signal?: AbortSignal): Promise<void> {
    try {
      using target = await this.#monitor(job, 'target', signal);
      const state = await target.runState();
      if (holdsVm(state)) throw failed(`${job.vm} runs on ${job.target} already (QEMU there is ${state})`);
      await target.quit();
    } catch (error) {
      signal?.throwIfAborted();
      const unreachable = error instanceof MigrateFsError && error.code === 'UNAVAILABLE';
      if (!unreachable) throw error;
      // A source that never let go of the VM cannot have given it to anybody.
      if (GIVEN_AWAY.includes(sourceState))
        throw failed(
          `${job.vm} is stopped on ${job.source}, and nobody knows whether it runs on ${job.target} (${error.message}): ` +
            `look there; if it does not, enter 'cont' at the monitor on ${job.source}`,
        );
    }
  }

  #monitor(job: MoveJob, side: 'source' | 'target', signal?: AbortSignal): Promise<Monitor> {
    const who = `QEMU of ${job.vm} on ${job[side]}`;
    return Monitor.open(this.#filledIn(side, job), who, {
      clock: this.#options.clock,
      answerMax: ANSWER_MAX,
      signal,
    });
  }

  #filledIn(key: 'source' | 'target' | 'migrate', { vm, source, target }: MoveJob): string {
    const values: Readonly<Record<string, string>> = { vm, source, target };
    return this.#options[key].replace(/\{(vm|source|target)\}/g, (_, name: string) => values[name]!);
  }

  #report({ task, vm }: MoveJob, level: 'debug' | 'info', message: string, info: MigrationInfo): void {
    this.#options.log(level, message, { task, vm, ...info });
  }
}

/** A source that gave its VM away and was told to go on keeps its old `completed`. */
const hasGivenAway = async (source: Monitor): Promise<boolean> =>
  (await source.migration()).status === 'completed' && GIVEN_AWAY.includes(await source.runState());

const reasonOf = ({ error }: MigrationInfo): string => (error === undefined ? '' : ` (${error})`);
