/** A migration whose images are in sync, and whose writes go over the lane. */
import { statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Test } from 'tap';
import { KiB, MiB } from '../../src/leaves/units.js';
import { CutProxy } from './cut-proxy.js';
import { makeSparseImage } from './files.js';
import { type Followed, migrate, type Pair, startPair } from './pair.js';
import type { TestDaemon, TestDaemonOptions } from './test-daemon.js';
import { waitFor } from './wait-for.js';

export const IMAGE = 'vm.raw';
/** What all writers of a test fight for. */
export const HOT = { offset: MiB, length: 512 * KiB };

export interface InSync {
  readonly pair: Pair;
  readonly proxy: CutProxy;
  readonly migration: Followed;
}

export const inSync = async (t: Test, target: TestDaemonOptions = {}): Promise<InSync> => {
  const pair = await startPair(t, { target });
  makeSparseImage(pair.source.daemon.below(IMAGE), 32 * MiB, [{ offset: 16 * MiB, length: 8 * MiB }]);
  const proxy = await CutProxy.start(t, pair.target.daemon.dataAddress);
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'explicit', to: proxy.address });
  await migration.reaches('mirroring');
  return { pair, proxy, migration };
};

/**
 * Has writes go over the stream, the last connection that was made, as they do in the lane only: it is entered when nothing
 * is in flight, so a lone guest writes now and then until it is there.
 */
export const enterLane = async (
  { source }: { readonly source: { readonly daemon: TestDaemon } },
  { carried }: CutProxy,
): Promise<void> => {
  await using file = await open(source.daemon.at(IMAGE), 'r+');
  const stream = carried.length - 1;
  const before = carried[stream]!;
  const sector = Buffer.alloc(512, 1);
  await waitFor(async () => {
    await file.write(sector, 0, sector.length, HOT.offset);
    return carried[stream]! > before + 4 * sector.length;
  }, 'writes go over the stream');
};

/** Resolves when the load has written so much in the lane. */
export const inLane = async ({ carried }: CutProxy, bytes = 16 * KiB): Promise<void> => {
  const stream = carried.length - 1;
  const before = carried[stream]!;
  await waitFor(() => carried[stream]! > before + bytes, 'the load goes over the stream');
};

export const bothSame = async (t: Test, { pair, migration }: InSync): Promise<void> => {
  const [report] = await pair.source.client.verify(migration.id);
  t.same(report?.mismatches, [], 'both sides are the same');
  const sizes = [pair.source, pair.target].map(({ daemon }) => statSync(daemon.below(IMAGE)).size);
  t.equal(sizes[0], sizes[1], 'and have the same size');
  t.ok(report!.bytesCompared > 0);
};
