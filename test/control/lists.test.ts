/** Answers that list more than one message holds. */
import fc from 'fast-check';
import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { pageOf } from '../../src/control/page.js';
import { SchedulerClient } from '../../src/control/scheduler-client.js';
import { serveScheduler } from '../../src/control/scheduler-server.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { SchedulerControl, TaskSnapshot } from '../../src/leaves/scheduler.js';
import { bytes, millis } from '../../src/leaves/units.js';
import { controlFixture } from '../support/control-fixture.js';
import { brokerExample, FakeBrokerControl } from '../support/fake-broker-control.js';
import { snapshotExample } from '../support/fake-migration-control.js';
import { taskExample } from '../support/task-example.js';

/** What 40 such images or links take is well beyond one message where there are a hundred of it. */
const LONG = 'n'.repeat(4000);
const COUNT = 110;

const brokers = new FakeBrokerControl();
const fixture = await controlFixture(undefined, brokers);
const client = connect({ server: parseHostPort(fixture.server.address) });
t.teardown(async () => {
  client.close();
  await fixture.server.close();
});

t.test('more migrations than one answer holds come a page at a time, each once, oldest first', async (t) => {
  const { control } = fixture;
  const [image] = snapshotExample.images;
  const images = Array.from({ length: 40 }, (_, at) => ({ ...image!, name: `${LONG}${at}` }));
  for (let at = COUNT; at > 0; at--)
    control.put({ ...snapshotExample, id: `m${at}`, images, startedAt: millis(1e12 + Math.floor(at / 3)) });
  const all = await client.list();
  t.equal(new Set(all.map(({ id }) => id)).size, COUNT);
  t.equal(all.length, COUNT);
  const starts = all.map(({ startedAt }) => startedAt);
  t.same(starts, [...starts].sort());
});

t.test('so do brokers', async (t) => {
  const path = Array.from({ length: 64 }, (_, at) => ({
    link: `link${at}`,
    sharers: Array.from({ length: 17 }, (_, n) => ({
      server: `host${n}:7070`,
      migrationId: 'm'.repeat(128),
    })),
  }));
  for (let at = 1; at <= COUNT; at++)
    brokers.brokers.set(`m${at}`, { ...brokerExample, migrationId: `m${at}`, path });
  t.equal(new Set((await client.brokers()).map(({ migrationId }) => migrationId)).size, COUNT);
});

t.test('a page of tasks is cut where it would not fit', async (t) => {
  const { state: _state, number: _number, vmMoved: _moved, cancelWanted: _wanted, ...rest } = taskExample;
  const images = Array.from({ length: 40 }, (_, at) => `${LONG}${at}`);
  const tasks = Array.from(
    { length: COUNT },
    (_, at): TaskSnapshot => ({ ...rest, id: `t${at + 1}`, state: 'waiting', images }),
  );
  const scheduler = {
    list: ({ after = 't0', limit }) => {
      const from = tasks.filter(({ id }) => Number(id.slice(1)) > Number(after.slice(1)));
      const page = from.slice(0, limit);
      return { tasks: page, ...(from.length > limit && { next: page.at(-1)!.id }) };
    },
  } as Pick<SchedulerControl, 'list'> as SchedulerControl;
  const server = await serveScheduler({
    scheduler,
    status: () => t.fail('not asked') as never,
    listen: { host: '127.0.0.1', port: 0 },
    log: () => {},
  });
  t.teardown(() => server.close());
  using schedulerClient = new SchedulerClient({ server: parseHostPort(server.address) });
  const seen: string[] = [];
  let after: string | undefined;
  let pages = 0;
  do {
    const page = await schedulerClient.list({
      states: [],
      limit: 100,
      ...(after !== undefined && { after }),
    });
    seen.push(...page.tasks.map(({ id }) => id));
    after = page.next;
    pages++;
  } while (after !== undefined);
  t.same(
    seen,
    tasks.map(({ id }) => id),
  );
  t.ok(pages >= 4, `${pages} pages`);
});

t.test('what comes or goes between two pages neither repeats nor hides anything else', (t) => {
  const name = (key: number): string => String(key).padStart(5, '0');
  const bulk = 'x'.repeat(300);
  const result = fc.check(
    fc.property(
      fc.uniqueArray(fc.nat(99_999), { minLength: 1, maxLength: 12 }),
      fc.array(fc.record({ leaves: fc.nat(11), comes: fc.nat(99_999) }), { maxLength: 12 }),
      (start, changes) => {
        const items = new Set(start);
        const stayed = new Set(start);
        const seen: number[] = [];
        let token = '';
        for (let round = 0; ; round++) {
          const page = pageOf([...items], name, (key) => ({ key, bulk }), token, bytes(1000));
          seen.push(...page.messages.map(({ key }) => key));
          if (page.nextPageToken === '') break;
          token = page.nextPageToken;
          const change = changes[round];
          if (!change) continue;
          const gone = [...items][change.leaves % items.size]!;
          items.delete(gone);
          stayed.delete(gone);
          if (!seen.includes(change.comes)) items.add(change.comes);
        }
        return new Set(seen).size === seen.length && [...stayed].every((key) => seen.includes(key));
      },
    ),
    { numRuns: 60 },
  );
  t.notOk(result.failed, fc.defaultReportMessage(result) ?? 'each once');
  t.end();
});
