/**
 * Fig. 5 of the paper: three migrations over one link, danger thresholds 200, 300 and 400 %, warning thresholds 250, 350
 * and 450 %. They start in danger, leave it in the order 0, 1, 2, share the link, and end in the order 2, 1, 0.
 */
import { fillImage } from '../../bench/image.js';
import { bytesPerSecond, millis } from '../../src/leaves/units.js';
import { Recording } from '../support/recording.js';
import { TestBed } from '../support/test-bed.js';
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
import { watchedInterface } from './watched-interface.js';

const RATE = 20 * MB;
const IMAGE_BYTES = 1200 * MB;
const DEADLINE_SECONDS = 315;
const LOOK_MS = 1000;
const LINK = 'host-a';
const THRESHOLDS = [
  { danger: 2, warning: 2.5 },
  { danger: 3, warning: 3.5 },
  { danger: 4, warning: 4.5 },
];

const inOrder = (values: readonly (number | undefined)[]): boolean =>
  values.every((value, i) => value !== undefined && (i === 0 || value > values[i - 1]!));

const secondsOf = (values: readonly (number | undefined)[]): string =>
  values.map((value) => value?.toFixed(1) ?? 'never').join(', ');

export const sharedLink: Experiment = async (context: Context) => {
  const { t, say } = context;
  const bed = await TestBed.create(t, { a: { rate: RATE, fair: true }, b: { rate: RATE } });
  const [a, b] = [bed.host('a'), bed.host('b')];
  const [source, target] = await Promise.all([
    a.startDaemon(t, { extraArgs: watchedInterface(t, LINK, RATE) }),
    b.startDaemon(t),
  ]);
  const images = THRESHOLDS.map((_, i) => `vm-${i}.raw`);
  for (const image of images) await fillImage(source.daemon.below(image), IMAGE_BYTES);

  const vms: Managed[] = [];
  const recording = new Recording(LOOK_MS).rate('cable', () => a.bytesSent);
  images.forEach((_, i) => {
    recording.rate(`vm-${i}`, () => vms[i]?.bytesSent, 2000);
  });
  images.forEach((_, i) => {
    recording.value(`ratio-${i}`, () =>
      vms[i]?.bytesSent === undefined ? undefined : vms[i]?.broker?.ratio,
    );
  });
  recording.start(t);
  for (const [i, image] of images.entries())
    vms.push(
      await Managed.start(t, { source, target }, [image], {
        cutover: 'when-in-sync',
        deadlineAfter: DEADLINE_SECONDS * 1000,
        broker: {
          ...THRESHOLDS[i]!,
          period: millis(3000),
          step: bytesPerSecond(RATE / 10),
          vmmTime: millis(1000),
        },
      }),
    );
  const began = recording.now;
  // What the scheduler would tell them: all share the one link.
  for (const vm of vms)
    await source.client.setBrokerPath(vm.migration.id, [
      {
        link: LINK,
        capacity: bytesPerSecond(RATE),
        sharers: vms
          .filter((other) => other !== vm)
          .map((other) => ({ server: a.server, migrationId: other.migration.id })),
      },
    ]);
  await Promise.all(
    vms.map(async (vm, i) => {
      await vm.migration.reaches('completed', DEADLINE_SECONDS * 2000);
      say(
        `vm-${i} ended after ${vm.age.toFixed(1)} s; zones ${vm.zones.map(({ at, zone }) => `${at.toFixed(1)} ${zone}`).join(', ')}`,
      );
    }),
  );
  const ends = vms.map((vm) => vm.syncedAfter);
  const left = vms.map((vm) => vm.leftDangerAfter);
  const table = recording.stop();
  publishDecisions(
    context,
    'shared-link',
    source.daemon,
    performance.timeOrigin + performance.now() - recording.now * 1000,
  );
  publish(context, 'shared-link', table, {
    title: 'Three migrations over one link of 20 MB/s; danger at 200, 300, 400 %',
    panels: [
      {
        label: 'throughput, MB/s',
        lines: images.map((_, i) => ({ name: `VM-${i}`, values: inMb(table, `vm-${i}`), colour: i })),
        max: RATE / MB,
      },
      {
        label: 'time to deadline / time left',
        lines: images.map((_, i) => ({
          name: `VM-${i}`,
          values: table.series.find(({ name }) => name === `ratio-${i}`)!.values,
          colour: i,
        })),
        max: 8,
      },
    ],
    marks: left.flatMap((at, i) =>
      at === undefined ? [] : [{ at: began + at, text: `VM-${i} leaves danger` }],
    ),
  });
  const findings: Finding[] = [
    isSo(
      'all start in danger',
      vms.map((vm) => vm.zones[0]?.zone ?? 'none').join(', '),
      'danger',
      vms.every((vm) => vm.zones[0]?.zone === 'danger'),
    ),
    isSo('VM-0, 1, 2 leave danger after, s', secondsOf(left), 'in this order', inOrder(left)),
    isSo('VM-0, 1, 2 end after, s', secondsOf(ends), 'in the order 2, 1, 0', inOrder(ends.toReversed())),
    isSo(
      'all meet the deadline',
      secondsOf(ends),
      `< ${DEADLINE_SECONDS}`,
      ends.every((end) => end !== undefined && end < DEADLINE_SECONDS),
    ),
    figure(
      'all of them together, of what the link allows',
      (IMAGE_BYTES * 3) / Math.max(...ends.map((end) => end ?? Infinity)) / RATE,
    ),
  ];
  return findings;
};
