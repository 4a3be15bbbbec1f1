/**
 * `npm run test:chaos -- [--minutes 10] [--seed N] [--images 20]`: migrations of images under load while processes are killed
 * and suspended, networks cut, disks filled, and operators pause, limit, cancel and cut over at random.
 */
// Writers wait in suspended daemons, each in a thread of the pool.
process.env['UV_THREADPOOL_SIZE'] = '64';

import { Command } from 'commander';
import { MiB } from '../../src/leaves/units.js';
import { withCleanup } from '../support/cleanup.js';
import { Random, seedFromEnvironment } from '../support/random.js';
import type { Teardown } from '../support/scratch.js';
import { ChaosCloud, type Place } from './chaos-cloud.js';
import { chaosEpisode } from './chaos-episode.js';
import { ChaosGuest } from './chaos-guest.js';

const DISK_BYTES = 768 * MiB;
/** One episode in so many has a VM with `--images` images. */
const LARGE_GROUP_EVERY = 8;

const { minutes, seed, images } = new Command('chaos')
  .description('Migrates under load while everything fails; exit status 1 when a guarantee is broken.')
  .option('--minutes <n>', 'how long', Number, 10)
  .option('--seed <n>', 'replays a run', Number, seedFromEnvironment())
  .option('--images <n>', 'of a large group', Number, 20)
  .parse()
  .opts<{ minutes: number; seed: number; images: number }>();

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const chaos = async (t: Teardown): Promise<number> => {
  const random = new Random(seed);
  const cloud = await ChaosCloud.start(t, DISK_BYTES);
  const end = performance.now() + minutes * 60_000;
  let failures = 0;
  for (let episode = 1; performance.now() < end; episode++) {
    const source = random.below(2) as Place;
    const count = episode % LARGE_GROUP_EVERY === 0 ? images : 1 + random.below(2);
    const guest = ChaosGuest.make(cloud.host(source), `vm-${episode}`, count, random);
    const { happened, owner, errors } = await chaosEpisode(cloud, guest, source, new Random(random.next()));
    say(
      `${errors.length === 0 ? 'ok  ' : 'FAIL'} ${episode}: ${count} images, ${guest.writes} writes, owner ${owner ?? 'none'} (was ${source}): ${happened.join('; ')}`,
    );
    for (const error of errors) say(`       ${error}`);
    if (errors.length > 0) {
      failures++;
      for (const place of [0, 1] as const)
        for (const line of cloud.host(place).daemon.log.slice(-60)) say(`       ${place} ${line}`);
      break;
    }
    for (const place of [0, 1] as const) await guest.remove(cloud.host(place));
  }
  say(`seed ${seed}: ${failures} failed`);
  return failures;
};

process.exitCode = (await withCleanup(chaos)) > 0 ? 1 : 0;
