/**
 * One round of the soak: verifying writers run through all phases of a migration, the target takes over on its first
 * write, and everything is checked. Attacks G1 (nothing acknowledged is lost), G2 (identical at the fence), G3 (one writer).
 */
import { rmSync } from 'node:fs';
import type { Bytes } from '../../src/leaves/units.js';
import { MiB } from '../../src/leaves/units.js';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import { makeSparseImage } from '../support/files.js';
import { type Followed, migrate, type Pair } from '../support/pair.js';
import type { Random } from '../support/random.js';
import type { Teardown } from '../support/scratch.js';
import { StampWriter } from '../support/stamp-writer.js';
import { type LoadShape, randomShape, shapeText, verifyPass, writePass } from '../support/verified-load.js';

/**
 * The image: fio's region, the stamped region, data that nobody writes, a hole. A pass writes one slice of fio's region,
 * so that what was written in an early phase is still there, not written over, when it is checked at the end.
 */
const SLICE_BYTES = 16 * MiB;
const SLICES = 8;
const LOAD_BYTES = SLICES * SLICE_BYTES;
const STAMP_BYTES = 16 * MiB;
const STILL_BYTES = 60 * MiB;
const HOLE_BYTES = 48 * MiB;
const LOAD_OFFSET = 0;
const STAMP_OFFSET = LOAD_BYTES;
const STILL_OFFSET = STAMP_OFFSET + STAMP_BYTES;
const IMAGE_BYTES = STILL_OFFSET + STILL_BYTES + HOLE_BYTES;

const PASSES_MAX = 200;
const STAMP_LANES = 2;
/** More than a round ever writes: stamps of an earlier round are below. */
const STAMPS_BEFORE = 1e9;
/** Slow enough that the copy cannot be over at once. */
const SLOW_NET = 40 * MiB;

/** How a round is varied. */
export interface RoundPlan {
  readonly image: string;
  /** The image is there already, owned by the source: it goes back where it came from. */
  readonly again: boolean;
  /** Bytes per second; absent: none. */
  readonly netLimit?: number;
  readonly diskLimit?: number;
  /** Passes on the source after it is in sync. */
  readonly passesInSync: number;
}

export interface RoundReport {
  readonly passes: readonly string[];
  readonly bytesWritten: number;
  readonly stampedWrites: number;
  readonly states: readonly string[];
  readonly bytesResent: Bytes;
  readonly bytesMirrored: Bytes;
  /** Milliseconds: the first write on the target as its writer saw it. */
  readonly stall: number;
  /** Milliseconds: the longest stamped write on the source. */
  readonly longestWrite: number;
  readonly errors: readonly string[];
}

export const randomPlan = (random: Random, image: string, again: boolean): RoundPlan => {
  const netLimit = random.pick([undefined, 20 * MiB, 40 * MiB, 80 * MiB]);
  const diskLimit = random.pick([undefined, undefined, undefined, 20 * MiB]);
  return {
    image,
    again,
    passesInSync: 1 + random.below(3),
    ...(netLimit === undefined ? {} : { netLimit }),
    ...(diskLimit === undefined ? {} : { diskLimit }),
  };
};

interface LoadReport {
  readonly shapes: readonly LoadShape[];
  readonly bytes: number;
}

/** Passes of fio, one after the other, until the migration is in sync and `passesInSync` more have run. */
const loadUntilInSync = async (
  file: string,
  migration: Followed,
  random: Random,
  plan: RoundPlan,
  errors: string[],
): Promise<LoadReport> => {
  const shapes: LoadShape[] = [];
  let bytes = 0;
  let inSync = 0;
  while (inSync <= plan.passesInSync && errors.length === 0) {
    if (shapes.length === PASSES_MAX) {
      errors.push(`not in sync after ${PASSES_MAX} passes`);
      break;
    }
    if (migration.last.state === 'failed' || migration.last.state === 'cancelled') {
      errors.push(`migration ${migration.last.state}: ${migration.last.error?.message ?? ''}`);
      break;
    }
    if (migration.last.state === 'mirroring') inSync++;
    const slice = shapes.length % SLICES;
    const shape = randomShape(random, LOAD_OFFSET + slice * SLICE_BYTES, SLICE_BYTES);
    const pass = await writePass(file, shape, { readBack: random.chance(50) });
    shapes.push(shape);
    bytes += pass.bytes;
    if (pass.complaint) errors.push(`source, ${shapeText(shape)}: ${pass.complaint}`);
  }
  return { shapes, bytes };
};

export const soakRound = async (
  t: Teardown,
  pair: Pair,
  random: Random,
  plan: RoundPlan,
): Promise<RoundReport> => {
  const { source, target } = pair;
  const errors: string[] = [];
  const expect = (truth: boolean, what: string): void => {
    if (!truth) errors.push(what);
  };
  const { image } = plan;
  if (!plan.again)
    makeSparseImage(
      source.daemon.below(image),
      IMAGE_BYTES,
      [{ offset: STILL_OFFSET, length: STILL_BYTES }],
      random.next(),
    );
  const stamps = new StampWriter(
    { offset: STAMP_OFFSET, length: STAMP_BYTES },
    random.next(),
    plan.again ? STAMPS_BEFORE : 0,
  );
  await stamps.start(source.daemon.at(image), STAMP_LANES);
  const migration = await migrate(t, pair, [image], plan);
  if (plan.netLimit !== undefined && plan.netLimit <= SLOW_NET)
    expect(
      (await writeRefusal(target.daemon.at(image))) === 'EROFS',
      'the target took a write before it was in sync',
    );
  const load = await loadUntilInSync(source.daemon.at(image), migration, random, plan, errors);
  const longestWrite = stamps.takeLongest();
  if (errors.length > 0) await stamps.stop();

  // The stamped writers are still at it: the fence must fall between two of their writes.
  const stall =
    errors.length > 0
      ? Number.NaN
      : await rewriteBlock(source.daemon.below(image), target.daemon.at(image), STILL_OFFSET);
  if (errors.length === 0) {
    await stamps.ended();
    expect(
      stamps.refusal?.code === 'EROFS',
      `a fenced write ended with ${stamps.refusal?.code ?? 'success'}`,
    );
    await migration.reaches('completed');
    expect(
      await identical(source.daemon.below(image), target.daemon.below(image)),
      'images differ at the fence',
    );
    expect(
      await identical(source.daemon.below(image), target.daemon.at(image)),
      'the target mount shows other bytes',
    );
    const { lost } = await stamps.check(target.daemon.at(image));
    expect(lost.length === 0, `${lost.length} sectors lost: ${lost.slice(0, 3).join('; ')}`);
    for (const shape of load.shapes.slice(-SLICES)) {
      const checked = await verifyPass(target.daemon.at(image), shape);
      expect(
        checked.complaint === '',
        `target, what the source wrote (${shapeText(shape)}): ${checked.complaint}`,
      );
    }
    const onward = randomShape(random, LOAD_OFFSET, SLICE_BYTES);
    const after = await writePass(target.daemon.at(image), onward);
    expect(after.complaint === '', `target, ${shapeText(onward)}: ${after.complaint}`);
    expect(
      (await writeRefusal(source.daemon.at(image))) === 'EROFS',
      'the source took a write after the cutover',
    );
    // The operator removes what the source no longer owns; nothing else does.
    rmSync(source.daemon.at(image));
  }
  const { last } = migration;
  return {
    passes: load.shapes.map(shapeText),
    bytesWritten: load.bytes,
    stampedWrites: stamps.writes,
    states: migration.states,
    bytesResent: last.bytesResent,
    bytesMirrored: last.bytesMirrored,
    stall,
    longestWrite,
    errors,
  };
};
