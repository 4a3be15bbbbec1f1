import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseQmpAddress, QmpClient } from '../../src/broker/hypervisor/qmp.js';
import { scratchDir } from '../support/scratch.js';

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\r\n';
const soon = (): AbortSignal => AbortSignal.timeout(10_000);

/** A monitor that answers each line with what `answer` says. */
const serve = async (
  t: Test,
  greeting: string,
  answer: (socket: Socket, command: { execute: string; id: number }) => void,
): Promise<{ path: string }> => {
  const path = join(scratchDir(t, 'qmp'), 'monitor');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined));
    socket.write(greeting);
    socket.on('data', (data) => {
      for (const line of String(data).trim().split('\n')) answer(socket, JSON.parse(line));
    });
  });
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await once(server.listen(path), 'listening');
  return { path };
};

const agree = (socket: Socket, { execute, id }: { execute: string; id: number }): boolean => {
  if (execute !== 'qmp_capabilities') return false;
  socket.write(`${JSON.stringify({ return: {}, id })}\n`);
  return true;
};

t.test('addresses are a socket or a port', async (t) => {
  t.same(parseQmpAddress('unix:/run/a b.sock'), { path: '/run/a b.sock' });
  t.same(parseQmpAddress('tcp:[::1]:4444'), { host: '::1', port: 4444 });
  for (const wrong of ['', '/run/a.sock', 'unix:a.sock', 'tcp:host', 'exec:sh'])
    t.throws(() => parseQmpAddress(wrong), { code: 'INVALID_ARGUMENT' }, wrong);
});

t.test('answers find their questions across events, pieces and refusals', async (t) => {
  const address = await serve(t, GREETING, (socket, command) => {
    if (agree(socket, command)) return;
    const { execute, id } = command;
    const text =
      execute === 'no'
        ? JSON.stringify({ error: { class: 'GenericError', desc: 'not\nnow' }, id })
        : JSON.stringify({ return: { execute }, id });
    socket.write(`{"event": "STOP"}\n${text.slice(0, 9)}`);
    setImmediate(() => socket.write(`${text.slice(9)}\r\n`));
  });
  using client = await QmpClient.open(address, 'the test QEMU', soon());
  t.same(await client.call('yes', {}, soon()), { execute: 'yes' });
  await t.rejects(client.call('no', {}, soon()), {
    code: 'FAILED_PRECONDITION',
    message: 'the test QEMU refused no: not now',
  });
  t.same(await client.call('yes', {}, soon()), { execute: 'yes' }, 'a refusal ends nothing');
});

t.test('who is no monitor, and who goes away, is said in one line', async (t) => {
  const gone = { path: join(scratchDir(t, 'qmp'), 'nobody') };
  await t.rejects(QmpClient.open(gone, 'the test QEMU', soon()), {
    code: 'UNAVAILABLE',
    message: /^the test QEMU cannot be reached: connect ENOENT/,
  });
  for (const greeting of ['HTTP/1.1 400 Bad Request\r\n', 'null\n', 'x'.repeat(5 * 1024 * 1024)])
    await t.rejects(
      QmpClient.open(await serve(t, greeting, () => undefined), 'it', soon()),
      { code: 'UNAVAILABLE', message: /it does not speak QMP/ },
      greeting.slice(0, 8),
    );
  const leaving = await serve(t, GREETING, (socket, command) => {
    if (!agree(socket, command)) socket.destroy();
  });
  using client = await QmpClient.open(leaving, 'it', soon());
  await t.rejects(client.call('stop', {}, soon()), { code: 'UNAVAILABLE', message: /closed the connection/ });
  await t.rejects(client.call('stop', {}, soon()), { code: 'UNAVAILABLE' }, 'and it stays so');
});

t.test('waiting ends with its signal', async (t) => {
  const silent = await serve(t, '', () => undefined);
  const enough = new AbortController();
  const opening = QmpClient.open(silent, 'it', enough.signal);
  enough.abort(new Error('enough'));
  await t.rejects(opening, { message: 'enough' });
  const deaf = await serve(t, GREETING, agree);
  using client = await QmpClient.open(deaf, 'it', soon());
  const impatient = new AbortController();
  const calling = client.call('stop', {}, impatient.signal);
  impatient.abort(new Error('enough'));
  await t.rejects(calling, { message: 'enough' });
});
