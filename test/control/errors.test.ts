import { createServer } from 'node:net';
import t from 'tap';
import { connect } from '../../src/control/control-client.js';
import { serveControl } from '../../src/control/control-server.js';
import { SchedulerClient } from '../../src/control/scheduler-client.js';
import type { ErrorCode } from '../../src/leaves/errors.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { millis, UNLIMITED } from '../../src/leaves/units.js';
import { controlFixture, daemonStatusExample } from '../support/control-fixture.js';
import { FakeMigrationControl, snapshotExample } from '../support/fake-migration-control.js';

const fixture = await controlFixture();
const { control } = fixture;
const client = connect({ server: parseHostPort(fixture.server.address) });
t.teardown(async () => {
  client.close();
  await fixture.server.close();
});
t.beforeEach(() => {
  control.put(snapshotExample);
  control.calls.length = 0;
});

t.test('every code of an error arrives with its message', async (t) => {
  const codes: ErrorCode[] = [
    'INVALID_ARGUMENT',
    'NOT_FOUND',
    'ALREADY_EXISTS',
    'PERMISSION_DENIED',
    'RESOURCE_EXHAUSTED',
    'FAILED_PRECONDITION',
    'ABORTED',
    'CANCELLED',
    'UNAVAILABLE',
    'DEADLINE_EXCEEDED',
    'UNIMPLEMENTED',
    'DATA_LOSS',
  ];
  for (const code of codes) {
    control.failure = new MigrateFsError(code, `cause of ${code}: naïve “remedy” 100 %`);
    await t.rejects(client.get('m1'), { code, message: `cause of ${code}: naïve “remedy” 100 %` });
  }
});

t.test('a message that is cut within a character arrives, and ends nobody', async (t) => {
  for (const before of ['', 'a']) {
    control.failure = new MigrateFsError('NOT_FOUND', `${before}${'😀'.repeat(1500)}`);
    const asked = client.get('m1');
    await t.rejects(asked, { code: 'NOT_FOUND', message: /^a?😀{999,1000}\uFFFD?$/u });
    const watch = client.watch(`${before}${'😀'.repeat(1500)}`, new AbortController().signal);
    await t.rejects(watch[Symbol.asyncIterator]().next(), { code: 'NOT_FOUND' });
  }
  control.failure = undefined;
  t.equal((await client.get('m1')).id, 'm1');
});

t.test('a bug shows the client a reference, and the log its stack', async (t) => {
  for (const bug of [
    new TypeError('secret detail'),
    new MigrateFsError('INTERNAL', 'secret detail\n at x'),
  ]) {
    fixture.logged.length = 0;
    control.failure = bug;
    const error = await client.pause('m1').then(
      () => t.fail('did not reject'),
      (e: MigrateFsError) => e,
    );
    t.match(error, { code: 'INTERNAL', message: /reference [0-9a-f]{8}/ });
    t.notMatch(error, { message: /secret/ });
    const reference = /reference ([0-9a-f]{8})/.exec((error as MigrateFsError).message)?.[1];
    const line = fixture.logged.find((entry) => entry['reference'] === reference);
    t.match(line, { level: 'error', method: 'Pause', err: { message: /secret detail/, stack: /./ } });
  }
});

t.test('a start request that can never work is refused before the replica layer sees it', async (t) => {
  const good = {
    images: ['a'],
    target: 'b:1',
    cutover: 'explicit',
    netLimit: UNLIMITED,
    diskLimit: UNLIMITED,
    priority: 0,
  } as const;
  const bad: [string, object, RegExp][] = [
    ['no image', { images: [] }, /0 images/],
    ['too many images', { images: Array.from({ length: 65 }, (_, i) => `${i}`) }, /65 images/],
    ['an image twice', { images: ['a', 'b', 'a'] }, /"a" is given twice/],
    ['an absolute path', { images: ['/etc/shadow'] }, /absolute/],
    ['dot dot', { images: ['vm/../../etc/shadow'] }, /plain relative/],
    ['an empty part', { images: ['vm//disk'] }, /plain relative/],
    ['an empty name', { images: [''] }, /empty/],
    ['NUL', { images: ['a\0b'] }, /NUL/],
    ['a long part', { images: ['x'.repeat(256)] }, /too long/],
    ['no port', { target: 'host-b' }, /not an address/],
    ['port 0', { target: 'host-b:0' }, /no port/],
    ['priority', { priority: 10 }, /priority 10/],
    ['a past deadline', { deadline: millis(1000) }, /1970-01-01T00:00:01.000Z is .* in the past/],
    ['a deadline beyond all dates', { deadline: millis(2 ** 53 - 1) }, /after all dates/],
    ['the same from now', { deadlineAfter: millis(2 ** 53 - 1) }, /after all dates/],
    ['a deadline now', { deadlineAfter: millis(0) }, /cannot be met/],
    ['a huge limit', { netLimit: 1e15 }, /out of range/],
  ];
  for (const [name, change, message] of bad)
    await t.rejects(client.start({ ...good, ...change }), { code: 'INVALID_ARGUMENT', message }, name);
  t.same(control.calls, []);
});

t.test('an empty id is refused', async (t) => {
  await t.rejects(client.get(''), { code: 'INVALID_ARGUMENT', message: /migration_id/ });
  await t.rejects(client.verify(''), { code: 'INVALID_ARGUMENT', message: /what/ });
});

t.test('a message that is too large is refused', async (t) => {
  const images = Array.from({ length: 64 }, (_, i) => `${i}/${'x'.repeat(250)}`.repeat(20));
  await t.rejects(
    client.start({
      images,
      target: 'b:1',
      cutover: 'explicit',
      netLimit: UNLIMITED,
      diskLimit: UNLIMITED,
      priority: 0,
    }),
    { code: 'RESOURCE_EXHAUSTED' },
  );
});

t.test('a daemon that is not there is one line with the remedy', async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  using nobody = connect({ server: { host: '127.0.0.1', port } });
  const expected = {
    code: 'UNAVAILABLE',
    message: `cannot reach the daemon at 127.0.0.1:${port}: is \`migratefs mount\` running there?`,
  };
  await t.rejects(nobody.status(), expected);
  await t.rejects(nobody.watch('').next(), expected);
});

t.test('a daemon that is asked for what the scheduler does says whom to ask', async (t) => {
  using misled = new SchedulerClient({ server: parseHostPort(fixture.server.address) });
  await t.rejects(misled.status(), { code: 'UNIMPLEMENTED', message: /is it `migratefs scheduler`/ });
});

t.test('UNAVAILABLE from the daemon itself is not taken for an unreachable daemon', async (t) => {
  control.failure = new MigrateFsError('UNAVAILABLE', 'the peer host-b:7071 does not answer');
  await t.rejects(client.get('m1'), {
    code: 'UNAVAILABLE',
    message: 'the peer host-b:7071 does not answer',
  });
});

const listenOptions = (change: object) => ({
  service: new FakeMigrationControl(),
  status: () => daemonStatusExample,
  listen: { host: '127.0.0.1', port: 0 },
  log: () => {},
  ...change,
});

t.test('a taken port is named with the remedy', async (t) => {
  const { port } = fixture.server;
  await t.rejects(serveControl(listenOptions({ listen: { host: '127.0.0.1', port } })), {
    code: 'FAILED_PRECONDITION',
    message: new RegExp(`127.0.0.1:${port}: it is in use.*--listen`),
  });
});

t.test('without certificates only loopback is served, unless insecure', async (t) => {
  await t.rejects(serveControl(listenOptions({ listen: { host: '0.0.0.0', port: 0 } })), {
    code: 'FAILED_PRECONDITION',
    message: /--tls-ca.*127\.0\.0\.1.*--insecure/,
  });
  const server = await serveControl(listenOptions({ listen: { host: '0.0.0.0', port: 0 }, insecure: true }));
  t.match(server.address, /^0\.0\.0\.0:[1-9]/);
  await server.close();
});
