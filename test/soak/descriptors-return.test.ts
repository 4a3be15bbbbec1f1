import t from 'tap';
import { Random, seedFromEnvironment } from '../support/random.js';
import { TestDaemon } from '../support/test-daemon.js';
import { descriptorsReturn } from './descriptors-return.js';
import { startLoad } from './endurance-load.js';
import { sampleProcess } from './process-sample.js';

t.test('after every kind of load the daemon holds the descriptors it began with', async (t) => {
  const seed = seedFromEnvironment();
  t.comment(`seed ${seed}`);
  const daemon = await TestDaemon.start(t);
  const before = sampleProcess(daemon.pid);
  const stop = new AbortController();
  stop.abort();
  const load = startLoad(daemon.mountpoint, new Random(seed), stop);
  await load.ended;
  t.ok((load.counts.get('files made') ?? 0) > 0, 'there was load');
  const after = await descriptorsReturn(daemon, before);
  t.equal(after.opened, before.opened, 'descriptors of handles');
  t.equal(after.nodes, before.nodes, 'descriptors of inodes');
  t.equal(after.threads <= before.threads, true, `threads: ${after.threads}, before ${before.threads}`);
  await daemon.stop();
});
