import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { AddressInfo, Server, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import type { Test } from 'tap';
import t from 'tap';
import { type Clock, systemClock } from '../../src/leaves/clock.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import type { TlsIdentity } from '../../src/leaves/tls-identity.js';
import { bytes, millis } from '../../src/leaves/units.js';
import type { Frame } from '../../src/replica/wire/frame.js';
import { encodeFrame } from '../../src/replica/wire/frame.js';
import { PeerConnection } from '../../src/replica/wire/peer-connection.js';
import type { ListenOptions } from '../../src/replica/wire/peer-listener.js';
import { PeerListener } from '../../src/replica/wire/peer-listener.js';
import { ManualClock } from '../support/manual-clock.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';

const clock = systemClock;
const MIB = 1024 * 1024;

/** A server whose one accepted socket is the other end. */
const pair = async (t: Test, peerTimeout = 5000, time: Clock = clock) => {
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const { port } = server.address() as AddressInfo;
  const here = await PeerConnection.connect({
    host: '127.0.0.1',
    port,
    clock: time,
    peerTimeout: millis(peerTimeout),
  });
  const socket = await accepted;
  t.teardown(() => {
    here.destroy();
    socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return { here, socket };
};

const framesOf = (connection: PeerConnection, count: number): Promise<{ frame: Frame; payload: Buffer }[]> =>
  new Promise((resolve) => {
    const frames: { frame: Frame; payload: Buffer }[] = [];
    connection.onFrame((frame, payload) => {
      frames.push({ frame, payload: Buffer.concat(payload as Buffer[]) });
      if (frames.length === count) resolve(frames);
    });
  });

t.test('frames arrive whole and in order, both ways', async (t) => {
  const { here, socket } = await pair(t);
  const there = new PeerConnection(socket, { clock });
  t.teardown(() => there.destroy());
  const count = 64;
  const atThere = framesOf(there, count);
  const atHere = framesOf(here, count);
  for (let seq = 1; seq <= count; seq++) {
    here.send({ seq, data: { image: 0, offset: seq } }, [Buffer.alloc(seq * 5000, seq)]);
    there.send({ seq, sync: {} });
  }
  for (const [index, { frame, payload }] of (await atThere).entries()) {
    const seq = index + 1;
    if (frame.seq !== seq || !payload.equals(Buffer.alloc(seq * 5000, seq))) t.fail(`frame ${seq}`);
  }
  t.same(
    (await atHere).map(({ frame }) => frame.seq),
    Array.from({ length: count }, (_, index) => index + 1),
  );
  t.equal(here.bytesSent, there.bytesReceived);
  t.equal(there.bytesSent, here.bytesReceived);
});

t.test('a receiver that stops reading pushes back, and drained tells when there is room', async (t) => {
  const { here, socket } = await pair(t);
  const there = new PeerConnection(socket, { clock });
  t.teardown(() => there.destroy());
  let received = 0;
  there.onFrame((_frame, payload) => {
    for (const chunk of payload) received += chunk.length;
  });
  there.pause();
  const payload = Buffer.alloc(MIB, 1);
  for (let i = 0; i < 64; i++) here.send({ seq: i + 1, data: {} }, [payload]);
  let room = false;
  const drained = here.drained(bytes(MIB)).then(() => {
    room = true;
  });
  await new Promise((resolve) => clock.after(millis(50), () => resolve(undefined)));
  t.equal(room, false, 'the kernel does not take 64 MiB that nobody reads');
  t.ok(here.queuedBytes > 32 * MIB);
  t.ok(received < 32 * MIB);
  there.resume();
  await drained;
  t.ok(here.queuedBytes <= MIB);
});

t.test('a silent peer is lost after the timeout; one that pings is not', async (t) => {
  const timeout = 200;
  const time = new ManualClock();
  const { here, socket } = await pair(t, timeout, time);
  const there = new PeerConnection(socket, { clock: time, peerTimeout: millis(timeout) });
  let lost = 0;
  for (const end of [here, there]) {
    end.onFrame(() => {});
    void end.closed.then(() => lost++);
  }
  for (let tenth = 0; tenth < 50; tenth++) await time.advance(timeout / 10);
  t.equal(lost, 0, 'pings keep an idle connection');

  const silent = await pair(t, timeout, time);
  silent.socket.resume();
  silent.here.onFrame(() => {});
  void silent.here.closed.then(() => lost++);
  await time.advance(timeout);
  t.equal(lost, 0, 'not before the timeout');
  await time.advance(timeout / 4);
  t.match(await silent.here.closed, { code: 'UNAVAILABLE', message: /silent/ });
  await t.rejects(silent.here.drained(bytes(0)), { code: 'UNAVAILABLE' });
});

/** Two streams, each of which reads what the other writes: with a clock by hand, nothing depends on the machine. */
const joined = (): [Duplex, Duplex] => {
  const end = (other: () => Duplex): Duplex =>
    new Duplex({
      read: () => {},
      write: (chunk, _encoding, done) => {
        other().push(chunk);
        done();
      },
    });
  const one = end(() => two);
  const two = end(() => one);
  return [one, two];
};

t.test('two ends that wait for different times keep each other', async (t) => {
  const time = new ManualClock();
  const ends = (timeoutHere: number | undefined, timeoutThere: number | undefined): PeerConnection[] => {
    const timeouts = [timeoutHere, timeoutThere];
    return joined().map((stream, i) => {
      const timeout = timeouts[i];
      const peerTimeout = timeout === undefined ? undefined : millis(timeout);
      return new PeerConnection(stream, { clock: time, peerTimeout });
    });
  };
  const idle = async (connections: readonly PeerConnection[]): Promise<void> => {
    await time.advance(120_000);
    for (const connection of connections) {
      t.equal(connection.isClosed, false);
      connection.destroy();
    }
  };

  // As while a hello is being answered: neither knows of the other.
  const ungreeted = ends(undefined, 30_000);
  for (const connection of ungreeted) connection.onFrame(() => {});
  await idle(ungreeted);

  for (const [source, target] of [
    [300, undefined],
    [undefined, 300],
    [30_000, 300],
  ]) {
    const [here, there] = ends(source, target) as [PeerConnection, PeerConnection];
    const hello = framesOf(there, 1);
    here.send({ hello: {} });
    await hello;
    const reply = framesOf(here, 1);
    there.send({ helloReply: {} });
    await reply;
    await idle([here, there]);
  }
});

t.test('a connection that breaks says why; within a frame, too', async (t) => {
  const { here, socket } = await pair(t);
  here.onFrame(() => {});
  const head = encodeFrame({ seq: 1, data: {} }, [Buffer.alloc(10)])[0]!;
  socket.end(head);
  t.match(await here.closed, { code: 'UNAVAILABLE', message: /within a frame/ });
  here.send({ ping: {} });
});

t.test('what cannot be understood is counted and closes the connection', async (t) => {
  const { here, socket } = await pair(t);
  let frames = 0;
  here.onFrame(() => frames++);
  const whole = Buffer.concat(encodeFrame({ seq: 1, sync: {} }));
  whole[whole.length - 1]! ^= 1;
  socket.write(whole);
  t.match(await here.closed, { code: 'DATA_LOSS' });
  t.equal(here.framesRejected, 1);
  t.equal(frames, 0);
});

t.test('close lets queued frames leave first', async (t) => {
  const { here, socket } = await pair(t);
  const there = new PeerConnection(socket, { clock });
  const frames = framesOf(there, 9);
  for (let seq = 1; seq <= 8; seq++) here.send({ seq, data: {} }, [Buffer.alloc(300_000)]);
  here.send({ failure: { code: 'CANCELLED' } });
  here.close();
  t.equal((await frames)[8]?.frame.body, 'failure');
  t.match(await there.closed, { code: 'UNAVAILABLE' });
  t.match(await here.closed, { code: 'CANCELLED' });
});

t.test('connecting fails in time, with a reason, and when it is aborted', async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  await t.rejects(PeerConnection.connect({ host: '127.0.0.1', port, clock }), {
    code: 'UNAVAILABLE',
    message: /ECONNREFUSED/,
  });
  const reason = new Error('cancelled');
  await t.rejects(
    PeerConnection.connect({ host: '127.0.0.1', port, clock, signal: AbortSignal.abort(reason) }),
    reason,
  );
  // TEST-NET-1 (RFC 5737) routes nowhere: either nothing answers or the network says so.
  await t.rejects(
    PeerConnection.connect({ host: '192.0.2.1', port: 9, clock, connectTimeout: millis(100) }),
    { code: 'UNAVAILABLE' },
  );
});

const listen = async (t: Test, options: Partial<ListenOptions> = {}) => {
  const log: string[] = [];
  const listener = await PeerListener.listen({
    host: '127.0.0.1',
    port: 0,
    clock,
    onHello: (connection, hello) => {
      connection.send({ helloReply: { targetHost: hello.sourceHost } });
      connection.onFrame(() => {});
      connection.resume();
    },
    log: (_level, message) => log.push(message),
    ...options,
  });
  t.teardown(() => listener.close());
  return { listener, log, address: parseHostPort(listener.address) };
};

t.test('the listener hands over who says hello, and drops who says something else or nothing', async (t) => {
  const { address, listener } = await listen(t, { helloTimeout: millis(100) });
  const good = await PeerConnection.connect({ ...address, clock });
  const reply = framesOf(good, 1);
  good.send({ hello: { sourceHost: 'host-a' } });
  t.match((await reply)[0]?.frame, { helloReply: { targetHost: 'host-a' } });
  const rude = await PeerConnection.connect({ ...address, clock });
  rude.onFrame(() => {});
  rude.send({ sync: {} });
  t.match(await rude.closed, { code: 'UNAVAILABLE' });
  t.equal(listener.framesRejected, 1);
  const mute = await PeerConnection.connect({ ...address, clock });
  mute.onFrame(() => {});
  t.match(await mute.closed, { code: 'UNAVAILABLE' });
  t.equal(good.isClosed, false, 'who has said hello stays');
  good.close();
});

t.test('connections that have not said hello are limited, and give their place back', async (t) => {
  const { address, log } = await listen(t);
  const sockets = Array.from({ length: 70 }, () => connect(address));
  for (const socket of sockets) socket.on('error', () => {});
  const dropped = await new Promise<number>((resolve) => {
    let count = 0;
    for (const socket of sockets) socket.once('close', () => ++count === 6 && resolve(count));
  });
  t.equal(dropped, 6);
  t.ok(log.includes('too many connections without a hello'));
  for (const socket of sockets) socket.destroy();
  const replies: Frame[] = [];
  // The listener has still to see that they have closed.
  await waitFor(async () => {
    const late = await PeerConnection.connect({ ...address, clock });
    const reply = framesOf(late, 1);
    late.send({ hello: { sourceHost: 'late' } });
    const served = await Promise.race([reply, late.closed.then(() => [])]);
    replies.push(...served.map(({ frame }) => frame));
    late.close();
    return replies.length > 0;
  }, 'a place is free again');
  t.match(replies, [{ helloReply: { targetHost: 'late' } }], 'a later peer is served');
});

const openssl = (dir: string, ...args: string[]): void => {
  execFileSync('openssl', args, { cwd: dir, stdio: 'ignore' });
};

/** A certificate for 127.0.0.1, signed by `authority`. */
const identity = (dir: string, authority: string, name: string): TlsIdentity => {
  openssl(
    dir,
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.csr`,
    '-subj',
    `/CN=${name}`,
    '-addext',
    'subjectAltName=IP:127.0.0.1',
  );
  openssl(
    dir,
    'x509',
    '-req',
    '-in',
    `${name}.csr`,
    '-CA',
    `${authority}.pem`,
    '-CAkey',
    `${authority}.key`,
    '-CAcreateserial',
    '-copy_extensions',
    'copy',
    '-days',
    '1',
    '-out',
    `${name}.pem`,
  );
  const read = (file: string): string => readFileSync(join(dir, file), 'utf8');
  return { ca: read(`${authority}.pem`), cert: read(`${name}.pem`), key: read(`${name}.key`) };
};

const makeAuthority = (dir: string, name: string): void =>
  openssl(
    dir,
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '1',
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.pem`,
    '-subj',
    `/CN=${name}`,
  );

t.test('with TLS both ends need a certificate of the cluster (G7)', async (t) => {
  const dir = scratchDir(t, 'B-tls');
  makeAuthority(dir, 'cluster');
  makeAuthority(dir, 'stranger');
  const target = identity(dir, 'cluster', 'target');
  const source = identity(dir, 'cluster', 'source');
  const stranger = identity(dir, 'stranger', 'intruder');
  const { address } = await listen(t, { tls: target, helloTimeout: millis(1000) });

  const exchange = await PeerConnection.connect({ ...address, clock, tls: source });
  const answer = framesOf(exchange, 1);
  exchange.send({ hello: { sourceHost: 'host-a' } });
  t.match((await answer)[0]?.frame, { helloReply: { targetHost: 'host-a' } });
  exchange.close();

  await t.rejects(PeerConnection.connect({ ...address, clock, tls: stranger }), {
    code: 'PERMISSION_DENIED',
  });

  // Trusts the target, but is itself unknown: TLS 1.3 tells it only after the handshake.
  const unknown = await PeerConnection.connect({ ...address, clock, tls: { ...stranger, ca: target.ca } });
  unknown.onFrame(() => t.fail('an unknown peer got an answer'));
  unknown.send({ hello: {} });
  t.match(
    (await unknown.closed).code,
    /PERMISSION_DENIED|UNAVAILABLE/,
    'the alert may be overtaken by the close',
  );

  const old = connectTls({
    ...address,
    ca: target.ca,
    cert: source.cert,
    key: source.key,
    maxVersion: 'TLSv1.2',
  });
  t.ok(await new Promise((resolve) => old.once('error', resolve)), 'TLS 1.2 is refused');

  const plain = await PeerConnection.connect({ ...address, clock });
  plain.onFrame(() => t.fail('an answer without TLS'));
  plain.send({ hello: {} });
  t.match(await plain.closed, { code: 'UNAVAILABLE' });
});
