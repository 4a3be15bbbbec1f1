/** The end predicted at half of a simulated migration, against the bars: 5 % for a steady load, 15 % for a changing one. */
import t from 'tap';
import { timeLeft } from '../../src/leaves/time-left.js';
import { KiB } from '../../src/leaves/units.js';
import type { SimulatedGuest } from '../support/copy-simulation.js';
import { simulate } from '../support/copy-simulation.js';
import type { Random } from '../support/random.js';

const SIZE = 150e6;
const NET = 10e6;
const THIRD = SIZE / NET / 3;
const SEEDS = [3, 5, 9];

const within = (from: number, to: number) => (random: Random) =>
  from + ((to - from) * random.next()) / 2 ** 32;
const anywhere = within(0, 1);
const inOrder = (_random: Random, written: number): number => (written % SIZE) / SIZE;
const always = (share: number) => () => share * NET;

/** Largest error of the predicted end, as a part of the real duration, over some seeds. */
const errorAtHalf = (guest: SimulatedGuest, net: (seconds: number) => number = () => NET): number =>
  Math.max(
    ...SEEDS.map((seed) => {
      const { seconds, samples } = simulate({ size: SIZE, net, guest, seed });
      const half = samples.find((sample) => sample.seconds >= seconds / 2)!;
      return Math.abs(half.seconds + timeLeft(half.load)!.expected / 1000 - seconds) / seconds;
    }),
  );

const STEADY: readonly (readonly [string, SimulatedGuest])[] = [
  ['no writes', { rate: () => 0, size: 4 * KiB, at: anywhere }],
  ['64 KiB anywhere, 0.2 of the link', { rate: always(0.2), size: 64 * KiB, at: anywhere }],
  ['64 KiB anywhere, 0.5 of the link', { rate: always(0.5), size: 64 * KiB, at: anywhere }],
  ['64 KiB anywhere, 0.9 of the link', { rate: always(0.9), size: 64 * KiB, at: anywhere }],
  ['4 KiB anywhere, 0.05 of the link', { rate: always(0.05), size: 4 * KiB, at: anywhere }],
  ['4 KiB anywhere, more than the link', { rate: always(1.5), size: 4 * KiB, at: anywhere }],
  ['a hot spot at the beginning', { rate: always(0.2), size: 4 * KiB, at: within(0, 0.1) }],
  ['a hot spot in the middle', { rate: always(0.2), size: 4 * KiB, at: within(0.4, 0.5) }],
  ['a hot spot at the end', { rate: always(0.2), size: 4 * KiB, at: within(0.9, 1) }],
  ['in order, 0.5 of the link', { rate: always(0.5), size: 4 * KiB, at: inOrder }],
];

for (const [name, guest] of STEADY) {
  t.test(`steady: ${name}`, async (t) => {
    const error = errorAtHalf(guest);
    t.ok(error <= 0.05, `${(error * 100).toFixed(1)} %`);
  });
}

const starts = (share: number) => (seconds: number) => (seconds < THIRD ? 0 : share * NET);
const stops = (share: number) => (seconds: number) => (seconds < THIRD ? share * NET : 0);
const CHANGING: readonly (readonly [string, SimulatedGuest])[] = [
  ['64 KiB start at a third', { rate: starts(0.5), size: 64 * KiB, at: anywhere }],
  ['64 KiB stop at a third', { rate: stops(0.5), size: 64 * KiB, at: anywhere }],
  ['4 KiB start at a third', { rate: starts(0.2), size: 4 * KiB, at: anywhere }],
  ['4 KiB stop at a third', { rate: stops(0.2), size: 4 * KiB, at: anywhere }],
];

for (const [name, guest] of CHANGING) {
  t.test(`changing: ${name}`, async (t) => {
    const error = errorAtHalf(guest);
    t.ok(error <= 0.15, `${(error * 100).toFixed(1)} %`);
  });
}

t.test('changing: the network halves at a third', async (t) => {
  const guest = { rate: always(0.2), size: 64 * KiB, at: anywhere };
  const error = errorAtHalf(guest, (seconds) => (seconds < THIRD ? NET : NET / 2));
  t.ok(error <= 0.15, `${(error * 100).toFixed(1)} %`);
});
