import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { ImageMode } from '../../src/fs/image-table.js';
import { MiB } from '../../src/leaves/units.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';
import { makeImage, TestHost } from './source-world.js';

const SIZE = 2 * MiB;
const MIGRATIONS = 8;
/** The bitmap of a small image tracks 1 TiB of growth: a bit for 64 KiB, as TestHost has it. */
const BITMAP_BYTES = 2 * MiB;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const arrayBufferBytes = (): number => {
  collect();
  return process.memoryUsage().arrayBuffers;
};

for (const mirrors of [false, true])
  t.test(
    `an ended migration is still reported, and keeps neither bitmap nor buffers${mirrors ? ', nor its lane' : ''}`,
    async (t) => {
      const source = await TestHost.open(t, scratchDir(t, 'source'), { mirrors });
      const target = await TestHost.open(t, scratchDir(t, 'target'), { mirrors });
      makeImage(source, 'a.img', SIZE);
      const guest = source.guest('a.img');
      t.teardown(() => guest.close());
      const migrate = async (): Promise<string> => {
        const { id } = await source.start(['a.img'], target.replica.dataAddress);
        await source.untilState(id, 'mirroring');
        if (mirrors)
          await waitFor(() => guest.mode === ImageMode.mirrored, 'its writes are mirrored by a lane');
        await source.replica.cancel(id);
        await waitFor(() => !target.has('a.img'), 'the replica is removed');
        return id;
      };
      // Whatever is made once.
      await migrate();
      const before = arrayBufferBytes();
      const ids: string[] = [];
      for (let i = 0; i < MIGRATIONS; i++) ids.push(await migrate());
      await waitFor(() => arrayBufferBytes() - before < BITMAP_BYTES, 'at most one bitmap is left');
      t.ok(arrayBufferBytes() - before < BITMAP_BYTES);
      const listed = (await source.replica.list()).filter(({ id }) => ids.includes(id));
      t.equal(listed.length, MIGRATIONS);
      for (const { id, state, bytesTotal, images } of listed) {
        t.equal(state, 'cancelled', id);
        t.equal(bytesTotal, source.allocated('a.img'));
        t.match(images, [{ name: 'a.img', size: SIZE }]);
      }
      t.match(await source.replica.get(ids[0]!), { netRate: 0, writeRate: 0, dirtyRate: 0 });
      await t.rejects(source.replica.pause(ids[0]!), {
        code: 'FAILED_PRECONDITION',
        message: /it is cancelled/,
      });
    },
  );
