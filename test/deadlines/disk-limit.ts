/**
 * A guest that writes faster than the link can carry, and a deadline that can be met: met with the broker, which limits
 * the guest late and lets it go again; missed without one.
 */
import { statSync } from 'node:fs';
import { fillImage } from '../../bench/image.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { runFioOk } from '../support/fio.js';
import type { Pair } from '../support/pair.js';
import { Recording } from '../support/recording.js';
import { type RunResult, runCli } from '../support/run.js';
import type { Teardown } from '../support/scratch.js';
import { type BedHost, TestBed } from '../support/test-bed.js';
import { TestScheduler } from '../support/test-scheduler.js';
import { waitFor } from '../support/wait-for.js';
import {
  type Context,
  type Experiment,
  type Finding,
  figure,
  inMb,
  isSo,
  MB,
  publish,
  publishDecisions,
} from './experiment.js';
import { Managed } from './managed.js';

const RATE = 10 * MB;
const IMAGE_BYTES = 150 * MB;
/** Between two writes of 256 KiB: up to 26 MB/s. */
const THINK_US = 10_000;
const DEADLINE_SECONDS = 36;
/** Of that time: the guest is left alone for so long at least. */
const UNLIMITED_SHARE = 0.2;
/** Less than the link takes for all of it, the guest standing still. */
const INFEASIBLE_SECONDS = 12;
/** How long the one without a broker is looked at. */
const GIVE_UP_SECONDS = 120;
const LOOK_MS = 500;

interface Trial {
  readonly syncedAfter: number;
  /** Seconds after the start; undefined: never. */
  readonly limitedAfter: number | undefined;
  readonly releasedAfter: number | undefined;
}

const guest = (file: string, seed: number, signal: AbortSignal): Promise<unknown> =>
  runFioOk(
    {
      filename: file,
      rw: 'randwrite',
      bs: '256k',
      size: IMAGE_BYTES,
      // No rate of its own: a guest that was held up does not make up for it afterwards.
      thinktime: THINK_US,
      direct: 1,
      norandommap: true,
      randseed: seed,
      time_based: true,
      runtime: 600,
    },
    signal,
  ).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });

const trial = async (
  context: Context,
  pair: Pair,
  cable: () => number,
  name: string,
  withBroker: boolean,
): Promise<Trial> => {
  const { t, say, seed } = context;
  const image = `${name}.raw`;
  const since = Date.now();
  const { source } = pair;
  await fillImage(source.daemon.below(image), IMAGE_BYTES);
  const filled = statSync(source.daemon.below(image)).mtimeMs;
  const writing = new AbortController();
  t.teardown(() => writing.abort());
  const written = guest(source.daemon.at(image), seed, writing.signal);
  // fio takes a moment to begin.
  await waitFor(() => statSync(source.daemon.below(image)).mtimeMs > filled, 'the guest writes');
  const vm = await Managed.start(t, pair, [image], {
    cutover: 'explicit',
    deadlineAfter: DEADLINE_SECONDS * 1000,
    broker: withBroker
      ? {
          period: millis(1000),
          vmmTime: millis(2000),
          diskFloor: bytesPerSecond(MB),
        }
      : 'off',
  });
  let limitedAfter: number | undefined;
  let releasedAfter: number | undefined;
  const limit = (): number => {
    const now = vm.migration.last.diskLimit;
    if (now !== UNLIMITED) limitedAfter ??= vm.age;
    if (now === UNLIMITED && limitedAfter !== undefined) releasedAfter ??= vm.age;
    if (now !== UNLIMITED) releasedAfter = undefined;
    return now;
  };
  const recording = new Recording(LOOK_MS)
    .rate('cable', cable)
    .value('network', () => vm.migration.last.netRate)
    .value('guest', () => vm.migration.last.writeRate)
    .value('dirty', () => vm.migration.last.dirtyRate)
    .value('limit', limit)
    .value('left', () => vm.migration.last.bytesLeft)
    .value('ratio', () => vm.broker?.ratio)
    .start(t);
  const synced = await vm.migration
    .reaches('mirroring', GIVE_UP_SECONDS * 1000)
    .then(() => vm.age)
    .catch(() => Number.POSITIVE_INFINITY);
  // Until the guest is seen to be free again.
  if (limitedAfter !== undefined && releasedAfter === undefined && Number.isFinite(synced))
    await vm.migration.until(({ diskLimit }) => diskLimit === UNLIMITED, 20_000);
  limit();
  const table = recording.stop();
  say(`${name}: in sync after ${synced.toFixed(1)} s`);
  await source.client.cancel(vm.migration.id);
  writing.abort();
  await written;
  if (withBroker) publishDecisions(context, `disk-limit-${name}`, source.daemon, since);
  publish(context, `disk-limit-${name}`, table, {
    title: `A guest that writes faster than the link of 10 MB/s carries, ${name}`,
    panels: [
      {
        label: 'MB/s',
        lines: [
          { name: 'acknowledged by the target', values: inMb(table, 'network'), colour: 0 },
          { name: 'written by the guest', values: inMb(table, 'guest'), colour: 1 },
          { name: 'becomes dirty', values: inMb(table, 'dirty'), colour: 4 },
          { name: 'disk limit', values: inMb(table, 'limit'), colour: 2, steps: true },
        ],
        max: 30,
      },
      { label: 'left, MB', lines: [{ name: 'left', values: inMb(table, 'left'), colour: 3 }] },
    ],
    marks: DEADLINE_SECONDS < recording.now ? [{ at: DEADLINE_SECONDS, text: 'deadline' }] : [],
  });
  return { syncedAfter: synced, limitedAfter, releasedAfter };
};

/** What the scheduler says of a deadline that the link does not allow, and with which exit status. */
const refusal = async (t: Teardown, a: BedHost, b: BedHost, image: string): Promise<RunResult> => {
  const host = (name: string, { server, data }: BedHost): object => ({ name, control: server, data });
  const capacity = `${(RATE * 8) / MB}Mbit/s`;
  const scheduler = await TestScheduler.start(t, {
    topology: {
      hosts: [host('host-a', a), host('host-b', b)],
      switches: ['rack'],
      links: [
        { name: 'a-rack', between: ['host-a', 'rack'], capacity },
        { name: 'b-rack', between: ['host-b', 'rack'], capacity },
      ],
    },
  });
  const task = ['submit', 'vm', image, '--from=host-a', '--to=host-b'];
  return runCli([...task, `--deadline=${INFEASIBLE_SECONDS}s`, `--server=${scheduler.address}`]);
};

export const diskLimit: Experiment = async (context) => {
  const { t } = context;
  const bed = await TestBed.create(t, { a: { rate: RATE }, b: { rate: RATE } });
  const [a, b] = [bed.host('a'), bed.host('b')];
  const [source, target] = await Promise.all([
    a.startDaemon(t, { extraArgs: ['--log-level=debug'] }),
    b.startDaemon(t),
  ]);
  const pair: Pair = { source, target };
  const cable = (): number => a.bytesSent;
  const without = await trial(context, pair, cable, 'without-broker', false);
  const managed = await trial(context, pair, cable, 'with-broker', true);
  const refused = await refusal(t, a, b, 'with-broker.raw');
  context.say(`refused: ${refused.stderr.trim()}`);
  const findings: Finding[] = [
    isSo(
      `a deadline in ${INFEASIBLE_SECONDS} s at submission`,
      `exit status ${refused.code}`,
      '1, with numbers',
      refused.code === 1 && /\d+ s/.test(refused.stderr) && /MB\/s/.test(refused.stderr),
    ),
    isSo(
      'without a broker: in sync after',
      `${without.syncedAfter.toFixed(1)} s`,
      `> ${DEADLINE_SECONDS} s`,
      without.syncedAfter > DEADLINE_SECONDS,
    ),
    isSo(
      'with the broker: in sync after',
      `${managed.syncedAfter.toFixed(1)} s`,
      `<= ${DEADLINE_SECONDS} s`,
      managed.syncedAfter <= DEADLINE_SECONDS,
    ),
    isSo(
      'the guest is limited late: after',
      `${managed.limitedAfter?.toFixed(1) ?? 'never'} s`,
      `> ${(DEADLINE_SECONDS * UNLIMITED_SHARE).toFixed(1)} s`,
      managed.limitedAfter !== undefined && managed.limitedAfter > DEADLINE_SECONDS * UNLIMITED_SHARE,
    ),
    isSo(
      'and free again after',
      `${managed.releasedAfter?.toFixed(1) ?? 'never'} s`,
      'free',
      managed.releasedAfter !== undefined,
    ),
    figure('spare at the end', DEADLINE_SECONDS - managed.syncedAfter, ' s'),
  ];
  return findings;
};
