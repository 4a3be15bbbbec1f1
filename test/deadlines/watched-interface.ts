/** A daemon of the bed that watches its own cable for saturation. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scratchDir, type Teardown } from '../support/scratch.js';

/**
 * Arguments for the daemon; `link` is what its cable is called, `rate` what it carries, bytes per second. `quick` makes
 * it notice sooner than by default, for periods that are as short.
 */
export const watchedInterface = (
  t: Teardown,
  link: string,
  rate: number,
  quick = false,
): readonly string[] => {
  const file = join(scratchDir(t, 'hot-spots'), 'hot-spots.json');
  writeFileSync(
    file,
    JSON.stringify({
      interfaces: {
        automatic: false,
        links: { eth0: { link, capacity: `${rate / 1e6}MB/s` } },
        ...(quick ? { interval: '100ms', window: '500ms' } : {}),
      },
      ...(quick ? { thresholds: { fall: '500ms' } } : {}),
    }),
  );
  return ['--hot-spots', file];
};
