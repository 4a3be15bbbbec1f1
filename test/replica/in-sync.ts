import { scratchDir, type Teardown } from '../support/scratch.js';
import { type Guest, makeImage, TestHost } from './source-world.js';

export interface InSync {
  readonly source: TestHost;
  readonly target: TestHost;
  readonly guest: Guest;
  readonly id: string;
}

/** A migration that is in sync, and a guest of its image, `a.img` of `size` bytes. */
export const inSync = async (t: Teardown, size: number): Promise<InSync> => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  makeImage(source, 'a.img', size);
  const guest = source.guest('a.img');
  t.teardown(() => guest.close());
  const { id } = await source.start(['a.img'], target.replica.dataAddress);
  await source.untilState(id, 'mirroring');
  return { source, target, guest, id };
};
