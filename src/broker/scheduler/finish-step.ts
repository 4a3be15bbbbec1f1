/** Step `finishing`: the target takes the images over. */
import { formatDuration } from '../../leaves/duration.js';
import type { MigrationSnapshot } from '../../leaves/migration.js';
import { NO_DRIVER } from '../../leaves/scheduler.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import { Backoff, watchMigration } from './migration-watch.js';
import type { RunContext } from './run-context.js';

/** How long the VM's first write on the target, which takes the images over with the least delay for it, is waited for. */
export const firstWritePatience = ({ task, env }: RunContext): Millis =>
  task.driver === NO_DRIVER || task.attempt > 1 ? millis(0) : env.firstWriteWait;

/** The VM runs on the target, or there is none: only forward from here. */
export const finish = async (context: RunContext, stop: AbortSignal): Promise<void> => {
  const { hosts, clock } = context.env;
  const { source, state } = context.task;
  const { migrationId } = state as { migrationId: string };
  const patience = firstWritePatience(context);
  const overdue = new AbortController();
  const forget = clock.after(patience, () => overdue.abort());
  let inSync = false;
  const over = new AbortController();
  const signal = AbortSignal.any([stop, over.signal]);
  const handOver = async (): Promise<void> => {
    await aborted(overdue.signal, signal);
    const backoff = new Backoff(clock);
    while (!signal.aborted) {
      if (inSync) {
        try {
          await hosts.cutover(source, migrationId, signal);
        } catch (error) {
          // The migration itself says what became of it.
          if (!signal.aborted) context.env.log('debug', 'cutover refused', { task: context.id, err: error });
        }
      }
      await backoff.wait(signal);
    }
  };
  const handing = handOver().catch(() => undefined);
  try {
    for await (const view of watchMigration(hosts, source, migrationId, clock, signal)) {
      if (view.kind === 'unreachable') continue;
      if (view.kind === 'gone') return await context.forgotten(stop);
      const { snapshot } = view;
      context.report(snapshot);
      inSync = snapshot.state === 'mirroring';
      if (snapshot.state === 'completed') return done(context, snapshot);
      if (snapshot.state === 'failed' || snapshot.state === 'cancelled')
        return await context.attemptFailed(
          snapshot.error ?? { code: 'ABORTED', message: `migration ${migrationId} is ${snapshot.state}` },
          stop,
        );
    }
  } finally {
    forget();
    over.abort();
    await handing;
  }
};

const done = (context: RunContext, { cutoverStall }: MigrationSnapshot): void => {
  const stall = cutoverStall === undefined ? '' : `, cutover stall ${formatDuration(cutoverStall)}`;
  const { deadline } = context.task;
  const left = deadline === undefined ? undefined : deadline - context.env.clock.wall();
  const margin =
    left === undefined
      ? ''
      : left >= 0
        ? `, ${formatDuration(left)} before the deadline`
        : `, ${formatDuration(-left)} after the deadline`;
  context.enter({ kind: 'done' }, `${context.task.target} owns the images${stall}${margin}`);
  context.env.onMigration();
};

/** Resolves when `signal` aborts; rejects when `end` aborts first. */
const aborted = (signal: AbortSignal, end?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal.aborted) return resolve();
    if (end?.aborted) return reject(end.reason as Error);
    signal.addEventListener('abort', () => resolve(), { once: true });
    end?.addEventListener('abort', () => reject(end.reason as Error), { once: true });
  });
