import { join } from 'node:path';
import t from 'tap';
import { AlertFile } from '../../src/broker/hot-spots/alert-file.js';
import { TestScheduler } from '../support/test-scheduler.js';

const TOPOLOGY = {
  hosts: [{ name: 'a', control: '127.0.0.1:1', data: '127.0.0.1:2' }],
  switches: ['tor'],
  links: [{ name: 'link-a', between: ['a', 'tor'], capacity: '1Gbit/s' }],
};

t.test('a scheduler that is started again knows from its store what is hot', async (t) => {
  const scheduler = await TestScheduler.start(t, {
    topology: TOPOLOGY,
    'hot-spots': { alerts: { listen: '127.0.0.1:0' } },
  });
  t.strictSame((await scheduler.connect(t).status()).hot, []);
  await scheduler.kill();
  const at = Date.now();
  new AlertFile(join(scheduler.folder, 'queue', 'alerts.json'), () => t.fail()).write([
    { key: 'alert a', link: 'link-a', name: 'Saturated', at, until: at + 3_600_000 },
  ]);
  await scheduler.restart();
  t.strictSame((await scheduler.connect(t).status()).hot, ['link-a: alert Saturated']);
});
