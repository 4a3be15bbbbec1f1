/** A daemon of the bed that watches its own cable for saturation. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scratchDir, type Teardown } from '../support/scratch.js';

/** Arguments for the daemon; `link` is what its cable is called, `rate` what it carries, bytes per second. */
export const watchedInterface = (t: Teardown, link: string, rate: number): readonly string[] => {
  const file = join(scratchDir(t, 'hot-spots'), 'hot-spots.json');
  writeFileSync(
    file,
    JSON.stringify({
      interfaces: { automatic: false, links: { eth0: { link, capacity: `${rate / 1e6}MB/s` } } },
    }),
  );
  return ['--hot-spots', file];
};
