import Bottleneck from 'bottleneck';
import t from 'tap';
import { DirtyBitmap } from '../../src/fs/dirty-bitmap.js';
import { systemClock } from '../../src/leaves/clock.js';
import { TokenBucket } from '../../src/leaves/token-bucket.js';
import { bytes, KiB, MiB, UNLIMITED } from '../../src/leaves/units.js';
import { copyRound } from '../../src/replica/source/copy-round.js';
import { Pacing } from '../../src/replica/source/pacing.js';
import type { SourceImage } from '../../src/replica/source/source-image.js';
import { Window } from '../../src/replica/source/window.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test(
  'a batch that fails while the round waits for the window is reported by the round alone',
  async (t) => {
    const bitmap = DirtyBitmap.allocate(bytes(4 * MiB), bytes(64 * KiB));
    bitmap.mark(0, 4 * MiB);
    const unhandled: unknown[] = [];
    const onUnhandled = (error: unknown): void => void unhandled.push(error);
    process.prependListener('unhandledRejection', onUnhandled);
    t.teardown(() => process.removeListener('unhandledRejection', onUnhandled));
    const bucket = (): TokenBucket => new TokenBucket(systemClock, UNLIMITED);
    const failed = new Error('cannot read');
    let begin: () => void = () => undefined;
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const image = {
      bitmap,
      sendSize: () => undefined,
      copier: {
        inBulk: false,
        copyBatch: () => {
          begin();
          return Promise.reject(failed);
        },
      },
    } as unknown as SourceImage;
    const stop = new AbortController();
    const options = {
      window: new Window(() => 64 * KiB),
      pacing: new Pacing(bucket(), bucket()),
      turns: new Bottleneck(),
      turnPriority: 5,
      position: { image: 0, block: 0 },
    };
    const round = copyRound([image], options, stop.signal).catch((error: unknown) => error);
    await begun;
    for (let i = 0; i < 20; i++) await turn();
    stop.abort(new Error('stopped'));
    t.match(await round, /stopped|cannot read/);
    t.strictSame(unhandled, []);
  },
);
