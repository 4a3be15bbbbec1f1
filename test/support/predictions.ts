/** A real migration, and what it said at each moment about its end. */
import { rmSync } from 'node:fs';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import { bytesPerSecond, UNLIMITED } from '../../src/leaves/units.js';
import type { Pair } from './pair.js';
import { waitFor } from './wait-for.js';

export interface Prediction {
  /** Seconds since the migration was started; all of these. */
  readonly at: number;
  readonly expected: number;
  readonly low: number;
  /** `Infinity`: no upper end. */
  readonly high: number;
  readonly snapshot: MigrationSnapshot;
}

export interface Predicted {
  /** How long it really took to be in sync. */
  readonly seconds: number;
  readonly predictions: readonly Prediction[];
}

/** Migrates until in sync, then cancels and waits until the replica is gone. `begun`: the bytes flow. */
export const predict = async (
  { source, target }: Pair,
  image: string,
  netLimit: number,
  begun: () => void = () => undefined,
): Promise<Predicted> => {
  const first = await source.client.start({
    images: [image],
    target: target.daemon.dataAddress,
    cutover: 'explicit',
    netLimit: bytesPerSecond(netLimit),
    diskLimit: UNLIMITED,
    priority: 5,
  });
  const start = performance.now();
  begun();
  const predictions: Prediction[] = [];
  let seconds: number | undefined;
  for await (const snapshot of source.client.watch(first.id)) {
    const at = (performance.now() - start) / 1000;
    if (snapshot.error) throw new Error(`it ${snapshot.state}: ${snapshot.error.message}`);
    const { eta, etaLow = 0, etaHigh = Number.POSITIVE_INFINITY } = snapshot;
    if (eta !== undefined)
      predictions.push({
        at,
        expected: eta / 1000,
        low: etaLow / 1000,
        high: etaHigh / 1000,
        snapshot,
      });
    if (snapshot.state !== 'mirroring') continue;
    seconds = at;
    break;
  }
  await source.client.cancel(first.id);
  if (seconds === undefined) throw new Error('it ended before it was in sync');
  await waitFor(
    async () => (await target.client.list()).every(({ state }) => state === 'cancelled'),
    'the replica is removed',
  );
  rmSync(target.daemon.below(image), { force: true });
  return { seconds, predictions };
};

/** The one that was made nearest to half of the real duration. */
export const atHalf = ({ seconds, predictions }: Predicted): Prediction =>
  predictions.reduce((best, each) =>
    Math.abs(each.at - seconds / 2) < Math.abs(best.at - seconds / 2) ? each : best,
  );

/** By how much of the real duration the predicted end was late (above 0) or early. */
export const errorOf = ({ seconds }: Predicted, { at, expected }: Prediction): number =>
  (at + expected - seconds) / seconds;

/** The part of the predictions, between a tenth and nine tenths, whose band held the real end. */
export const withinBand = ({ seconds, predictions }: Predicted): number => {
  const judged = predictions.filter(({ at }) => at > seconds / 10 && at < seconds * 0.9);
  const held = judged.filter(({ at, low, high }) => at + low <= seconds && seconds <= at + high);
  return held.length / judged.length;
};
