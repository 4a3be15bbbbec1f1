/** The bed itself: what a shaped cable carries for one migration, for three, beside other traffic, and in sync. */
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fillImage } from '../../bench/image.js';
import { runFioOk } from '../support/fio.js';
import { type Followed, migrate, type Pair } from '../support/pair.js';
import { between, mean, Recording } from '../support/recording.js';
import { SocketLoad } from '../support/socket-load.js';
import { TestBed } from '../support/test-bed.js';
import { waitFor } from '../support/wait-for.js';
import {
  atLeast,
  type Context,
  type Experiment,
  type Finding,
  figure,
  inMb,
  MB,
  publish,
} from './experiment.js';

const RATE = 20 * MB;
const LOOK_MS = 500;
const IMAGES = ['a.raw', 'b.raw', 'c.raw'];
const IMAGE_BYTES = 240 * MB;

/** Jain, Chiu and Hawe 1984: 1 where all shares are equal, 1/n where one has everything. */
const jainIndex = (shares: readonly number[]): number =>
  shares.reduce((sum, each) => sum + each, 0) ** 2 /
  (shares.length * shares.reduce((sum, each) => sum + each * each, 0));

const sentBy = (migration: () => Followed | undefined) => (): number | undefined => {
  const last = migration()?.last;
  return last?.bytesSent;
};

export const link: Experiment = async (context: Context) => {
  const { t, say } = context;
  const findings: Finding[] = [];
  // In one drop-tail queue three connections of anybody do not share evenly, and these are to be compared.
  const bed = await TestBed.create(t, { a: { rate: RATE, fair: true }, b: { rate: RATE } });
  const [a, b] = [bed.host('a'), bed.host('b')];
  const [source, target] = await Promise.all([a.startDaemon(t), b.startDaemon(t)]);
  const pair: Pair = { source, target };
  for (const image of IMAGES) await fillImage(source.daemon.below(image), IMAGE_BYTES);

  const running: (Followed | undefined)[] = [undefined, undefined, undefined];
  let load: SocketLoad | undefined;
  const recording = new Recording(LOOK_MS)
    .rate('cable', () => a.bytesSent)
    .rate('load', () => load?.bytes)
    .value('reported', () => running[0]?.last.netRate);
  IMAGES.forEach((image, i) => {
    recording.rate(
      image,
      sentBy(() => running[i]),
    );
  });
  recording.start(t);
  const window = async (seconds: number): Promise<[number, number]> => {
    const from = recording.now;
    await sleep(seconds * 1000);
    return [from, recording.now];
  };
  const rateOf = (name: string, [from, to]: [number, number]): number =>
    mean(between(recording.table, name, from, to));
  const start = async (i: number): Promise<void> => {
    running[i] = await migrate(t, pair, [IMAGES[i]!], { cutover: 'explicit' });
  };
  const end = async (i: number): Promise<void> => {
    await source.client.cancel(running[i]!.id);
    await running[i]!.reaches('cancelled');
    await waitFor(() => !existsSync(target.daemon.below(IMAGES[i]!)), 'the replica is removed');
    running[i] = undefined;
  };

  say('a load alone');
  load = await SocketLoad.start(t, a, b);
  await sleep(1000);
  const loadAlone = rateOf('load', await window(4));
  findings.push(atLeast('greedy TCP alone, of the rate of the cable', loadAlone / RATE, 0.9));
  await load.stop();
  load = undefined;

  say('three loads');
  const loads: SocketLoad[] = [];
  for (const _ of IMAGES) loads.push(await SocketLoad.start(t, a, b));
  await sleep(2000);
  const before = loads.map((each) => each.bytes);
  await sleep(6000);
  const carried = loads.map((each, i) => each.bytes - before[i]!);
  findings.push(figure('three greedy TCP connections, Jain index', jainIndex(carried)));
  for (const each of loads) await each.stop();

  say('one migration alone');
  await start(0);
  await sleep(1500);
  const alone = await window(4);
  findings.push(
    atLeast('one migration alone, of the rate of the cable', rateOf(IMAGES[0]!, alone) / RATE, 0.9),
    figure(
      'what the snapshot reports, of what the cable carried',
      rateOf('reported', alone) / rateOf('cable', alone),
    ),
  );

  say('beside a greedy load');
  load = await SocketLoad.start(t, a, b);
  await sleep(1500);
  const beside = await window(4);
  findings.push(
    figure('one migration beside greedy TCP: share of the migration', rateOf(IMAGES[0]!, beside) / RATE),
    figure('the load beside it, of what it has alone', rateOf('load', beside) / loadAlone),
    figure(
      'snapshot beside a load, of the payload sent',
      rateOf('reported', beside) / rateOf(IMAGES[0]!, beside),
    ),
  );
  await load.stop();
  load = undefined;
  await end(0);

  say('three migrations');
  for (let i = 0; i < IMAGES.length; i++) await start(i);
  await sleep(2000);
  const three = await window(6);
  const shares = IMAGES.map((image) => rateOf(image, three));
  findings.push(
    atLeast(
      'three migrations, of the rate of the cable',
      shares.reduce((sum, each) => sum + each, 0) / RATE,
      0.9,
    ),
    atLeast('three migrations, Jain index', jainIndex(shares), 0.9),
  );
  for (let i = 0; i < IMAGES.length; i++) await end(i);

  say('in sync');
  await start(0);
  await running[0]!.reaches('mirroring');
  for (const [name, depth, size] of [
    ['4 KiB, one at a time', 1, '4k'],
    ['64 KiB, eight at a time', 8, '64k'],
  ] as const) {
    const [job] = await runFioOk({
      filename: source.daemon.at(IMAGES[0]!),
      rw: 'randwrite',
      bs: size,
      numjobs: depth,
      direct: 1,
      size: IMAGE_BYTES / depth,
      time_based: true,
      runtime: 3,
      thread: true,
      group_reporting: true,
    });
    findings.push(
      figure(`mirrored writes, ${name}: of the rate of the cable`, job!.write.bw_bytes / RATE),
      figure(`mirrored writes, ${name}: mean latency`, job!.write.clat_ns.mean / 1e6, ' ms'),
    );
  }
  const table = recording.stop();
  publish(context, 'link', table, {
    title: 'One cable of 20 MB/s: a load, a migration, both, three migrations, mirrored writes',
    panels: [
      {
        label: 'MB/s',
        lines: table.series.map(({ name }, colour) => ({ name, values: inMb(table, name), colour })),
      },
    ],
  });
  return findings;
};
