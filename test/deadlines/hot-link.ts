/**
 * A link made hot by other traffic: the migration yields within two periods, the other traffic has at least 90 % of
 * what it has without any migration, and the migration is back within its quiet periods after the link has cooled.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fillImage } from '../../bench/image.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import { between, mean, Recording, type Table } from '../support/recording.js';
import { SocketLoad, type SocketLoadOptions } from '../support/socket-load.js';
import { type BedHost, TestBed } from '../support/test-bed.js';
import { waitFor } from '../support/wait-for.js';
import {
  atLeast,
  atMost,
  type Context,
  type Experiment,
  type Finding,
  figure,
  inMb,
  MB,
  publish,
  publishDecisions,
} from './experiment.js';
import { Managed } from './managed.js';
import { watchedInterface } from './watched-interface.js';

const IMAGE = 'vm.raw';
const LINK = 'host-a';
const LOOK_MS = 250;
/** What one migration keeps of a hot link. */
const FLOOR_SHARE = 0.01;
const QUIET_PERIODS = 5;
/** Halved with each decision: so many more, and it is down at a sixteenth. */
const DECISIONS_DOWN = 3;
/** How long what is left of the migration is looked at: milliseconds. */
const DOWN_MS = 3000;
/** A migration that never yields fails the experiment. */
const YIELD_TIMEOUT_MS = 60_000;

export interface HotLinkOptions {
  readonly name: string;
  /** Bytes per second of each link. */
  readonly rate: number;
  /** Milliseconds between two decisions. */
  readonly period: number;
  /** `n` of Algorithm 2. */
  readonly quietPeriods: number;
  /** Seconds that the other traffic goes on at least; it also goes on until the migration has yielded, and a while more. */
  readonly hotSeconds: number;
  /** Seconds after it that the migration is given to come back. */
  readonly cooledSeconds: number;
  readonly load: SocketLoadOptions;
  /** The daemon notices sooner than by default. */
  readonly quick?: boolean;
}

export interface HotLinkResult {
  readonly table: Table;
  readonly hotAt: number;
  readonly cooledAt: number;
  /** Seconds until half of the load's share was given up, and until nothing limits the migration any more. */
  readonly yieldedAfter: number;
  readonly backAfter: number;
  /** Of what the load has without a migration: over all the time it went on, and without its beginning. */
  readonly loadShare: number;
  readonly loadShareYielded: number;
  /** What the migration had before, while it yielded, and after it came back, of the rate of the link. */
  readonly before: number;
  readonly yielded: number;
  readonly after: number;
}

/** What `from` can send to `to` while nothing else is there, bytes per second. */
const loadAlone = async (
  context: Context,
  from: BedHost,
  to: BedHost,
  { load: options, quick }: HotLinkOptions,
): Promise<number> => {
  const load = await SocketLoad.start(context.t, from, to, options);
  await sleep(500);
  const [bytes, began] = [load.bytes, performance.now()];
  await sleep(quick ? 1500 : 3000);
  const rate = (load.bytes - bytes) / ((performance.now() - began) / 1000);
  await load.stop();
  return rate;
};

/** A third host receives the load, so that it and the migration have one cable in common: the source's. */
export const runHotLink = async (context: Context, options: HotLinkOptions): Promise<HotLinkResult> => {
  const { t } = context;
  const { rate, period, hotSeconds, cooledSeconds } = options;
  /** How long what is without other traffic is looked at: milliseconds. */
  const settled = options.quick ? 1500 : 3000;
  const bed = await TestBed.create(t, { a: { rate }, b: { rate }, c: { rate } });
  const [a, b, c] = [bed.host('a'), bed.host('b'), bed.host('c')];
  const alone = await loadAlone(context, a, c, options);
  const [source, target] = await Promise.all([
    a.startDaemon(t, { extraArgs: [...watchedInterface(t, LINK, rate, options.quick), '--log-level=debug'] }),
    b.startDaemon(t),
  ]);
  // More than all of it could move.
  await fillImage(source.daemon.below(IMAGE), rate * (hotSeconds / 4 + cooledSeconds + 12));

  let load: SocketLoad | undefined;
  const vm = await Managed.start(t, { source, target }, [IMAGE], {
    cutover: 'explicit',
    // Time enough to yield all along.
    deadlineAfter: 36_000_000,
    broker: {
      period: millis(period),
      quietPeriods: options.quietPeriods,
      floor: bytesPerSecond(rate * FLOOR_SHARE),
      step: bytesPerSecond(rate / 10),
      vmmTime: millis(1000),
    },
  });
  const limit = (): number => vm.broker?.netLimit ?? UNLIMITED;
  const recording = new Recording(LOOK_MS)
    .rate('cable', () => a.bytesSent)
    .rate('migration', () => b.bytesReceived)
    .rate('load', () => load?.bytes, 1000)
    .value('limit', limit)
    .start(t);
  const since = Date.now();
  t.teardown(() => publishDecisions(context, options.name, source.daemon, since));
  await waitFor(() => vm.migration.last.netRate > rate / 2, 'the migration has the link');
  await sleep(settled);
  load = await SocketLoad.start(t, a, c, options.load);
  const hotAt = recording.now;
  const hotBegan = performance.now();
  // Algorithm 2 has given the link up when it has gone down to half once.
  await waitFor(() => limit() <= rate / 2, 'the migration yields', YIELD_TIMEOUT_MS);
  const yieldedAfter = recording.now - hotAt;
  const down = DECISIONS_DOWN * period;
  await sleep(Math.max(down + DOWN_MS, hotSeconds * 1000 - (performance.now() - hotBegan)));
  const loadRate = load.bytes / ((performance.now() - hotBegan) / 1000);
  const cooledAt = recording.now;
  await load.stop();
  load = undefined;
  await waitFor(() => limit() === UNLIMITED, 'the migration comes back', cooledSeconds * 1000);
  const backAfter = recording.now - cooledAt;
  await sleep(settled);
  const table = recording.stop();
  await source.client.cancel(vm.migration.id);
  const yielded = hotAt + yieldedAfter + down / 1000;
  return {
    table,
    hotAt,
    cooledAt,
    yieldedAfter,
    backAfter,
    loadShare: loadRate / alone,
    loadShareYielded: mean(between(table, 'load', yielded, cooledAt)) / alone,
    before: mean(between(table, 'migration', hotAt - settled / 2000, hotAt)) / rate,
    yielded: mean(between(table, 'migration', yielded, cooledAt)) / rate,
    after: mean(between(table, 'migration', recording.now - settled / 2000, recording.now)) / rate,
  };
};

/** What the daemon takes by default to see that a link has cooled: the window of its meter and the fall, seconds. */
const COOL_SECONDS = 3.5;

export const hotLinkFindings = (
  { period }: Pick<HotLinkOptions, 'period'>,
  result: HotLinkResult,
): readonly Finding[] => {
  const periods = period / 1000;
  return [
    atMost('the migration yields after', result.yieldedAfter, 2 * periods, ' s'),
    atLeast(
      'other traffic from the third decision after that on, of what it has alone',
      result.loadShareYielded,
      0.9,
    ),
    figure('other traffic from its first second on, of what it has alone', result.loadShare),
    atMost(
      'link cooled: no limit again after',
      result.backAfter,
      COOL_SECONDS + QUIET_PERIODS * periods,
      ' s',
    ),
    atLeast('rate of the migration afterwards, of before', result.after / result.before, 0.9),
  ];
};

const experiment =
  (name: string, traffic: string, load: SocketLoadOptions): Experiment =>
  async (context) => {
    const options: HotLinkOptions = {
      name,
      rate: 20 * MB,
      period: 3000,
      quietPeriods: QUIET_PERIODS,
      hotSeconds: 45,
      cooledSeconds: 30,
      load,
    };
    const result = await runHotLink(context, options);
    publish(context, name, result.table, {
      title: `A link of 20 MB/s made hot by ${traffic}`,
      panels: [
        {
          label: 'throughput, MB/s',
          lines: [
            { name: 'migration', values: inMb(result.table, 'migration'), colour: 0 },
            { name: 'other traffic', values: inMb(result.table, 'load'), colour: 1 },
            {
              name: 'limit that its broker set',
              values: inMb(result.table, 'limit'),
              colour: 2,
              steps: true,
            },
          ],
          max: (options.rate / MB) * 1.05,
        },
      ],
      marks: [
        { at: result.hotAt, text: 'other traffic begins' },
        { at: result.cooledAt, text: 'other traffic ends' },
      ],
    });
    return hotLinkFindings(options, result);
  };

export const hotLinkGreedy = experiment('hot-link-greedy', 'four greedy TCP connections', { connections: 4 });
export const hotLinkStream = experiment('hot-link-stream', 'a stream of 12 MB/s', { rate: 12 * MB });
