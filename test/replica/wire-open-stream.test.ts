/**
 * A connection becomes a stream: from a frame on, both ends receive exactly the bytes that the other end sends by
 * send(2), whoever is first, and nothing of TLS.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import type { Test } from 'tap';
import t from 'tap';
import { close, SHUT_WR, shutdown } from '../../src/fs/libc.js';
import { systemClock } from '../../src/leaves/clock.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { parseHostPort } from '../../src/leaves/host-port.js';
import { RecordReader } from '../../src/leaves/record-reader.js';
import { RECORD_KEY_BYTES, RecordSeal } from '../../src/leaves/record-seal.js';
import { RECORD_HEAD_BYTES, RECORD_KIND, RecordHead } from '../../src/leaves/stream-record.js';
import type { TlsIdentity } from '../../src/leaves/tls-identity.js';
import { readTlsIdentity } from '../../src/leaves/tls-identity.js';
import { millis } from '../../src/leaves/units.js';
import { encodeFrame, PROTOCOL_VERSION } from '../../src/replica/wire/frame.js';
import { FrameReader } from '../../src/replica/wire/frame-reader.js';
import { acceptStream, openStream, refuseStream } from '../../src/replica/wire/open-stream.js';
import { PeerConnection } from '../../src/replica/wire/peer-connection.js';
import type { ListenOptions } from '../../src/replica/wire/peer-listener.js';
import { PeerListener } from '../../src/replica/wire/peer-listener.js';
import type { StreamSocket } from '../../src/replica/wire/taken-socket.js';
import { ManualClock } from '../support/manual-clock.js';
import { openSockets, receive, sendAll } from '../support/raw-socket.js';
import { scratchDir } from '../support/scratch.js';
import { makeTlsFiles, signCertificate } from '../support/tls-files.js';
import { waitFor } from '../support/wait-for.js';

const clock = systemClock;
const folder = scratchDir(t, 'open-stream');
const target = readTlsIdentity(makeTlsFiles(folder, 'target'))!;
const source = readTlsIdentity(signCertificate(folder, 'target', 'source', '/CN=source/OU=peer'))!;
const LABEL = 'EXPORTER-migratefs-stream';
const TOKEN = Buffer.from('a token of the target');
const TERMS = { migrationId: 'm-1', token: TOKEN };

interface Transport {
  readonly name: string;
  readonly serverTls?: TlsIdentity;
  readonly tls?: TlsIdentity;
}
const TRANSPORTS: readonly Transport[] = [{ name: 'plain' }, { name: 'TLS', serverTls: target, tls: source }];

type OnStream = NonNullable<ListenOptions['onStream']>;

/** A target's data port that takes streams with the right token; what it has accepted, in order. */
const listen = async (t: Test, { serverTls }: Transport, options: Partial<ListenOptions> = {}) => {
  const accepted: Promise<StreamSocket>[] = [];
  const waiters: ((stream: Promise<StreamSocket>) => void)[] = [];
  const log: string[] = [];
  const accept = (connection: PeerConnection, signal?: AbortSignal): void => {
    const stream = acceptStream(connection, signal);
    stream.catch(() => {});
    const waiter = waiters.shift();
    if (waiter) waiter(stream);
    else accepted.push(stream);
  };
  const onStream: OnStream = (connection, hello) => {
    if (TOKEN.equals(hello.token)) accept(connection);
    else refuseStream(connection, new MigrateFsError('PERMISSION_DENIED', 'no such stream is expected'));
  };
  const listener = await PeerListener.listen({
    host: '127.0.0.1',
    port: 0,
    tls: serverTls,
    clock,
    onHello: (connection) => connection.destroy(),
    onStream,
    log: (_level, message) => log.push(message),
    ...options,
  });
  t.teardown(() => listener.close());
  const next = (): Promise<StreamSocket> => {
    const stream = accepted.shift() ?? new Promise<StreamSocket>((resolve) => waiters.push(resolve));
    stream.catch(() => {});
    return stream;
  };
  return { listener, address: parseHostPort(listener.address), accept, next, log };
};

type Target = Awaited<ReturnType<typeof listen>>;

const openBoth = async (t: Test, { address, next }: Target, { tls }: Transport) => {
  const [here, there] = await Promise.all([openStream({ ...address, clock, tls }, TERMS), next()]);
  t.teardown(() => [here.fd, there.fd].forEach(close));
  return { here, there };
};

const descriptorOf = (socket: Socket): number =>
  (socket as unknown as { readonly _handle: { readonly fd: number } })._handle.fd;

/** The first connection that calls it. */
const firstOf = () => {
  let resolve!: (connection: PeerConnection) => void;
  const connection = new Promise<PeerConnection>((settle) => {
    resolve = settle;
  });
  return { connection, resolve };
};

const helloFrame = (token: Uint8Array = TOKEN): Buffer =>
  Buffer.concat(
    encodeFrame({ streamHello: { protocolVersion: PROTOCOL_VERSION, migrationId: 'm-1', token } }),
  );

/** A source that a test plays by hand. */
const handConnected = async (t: Test, { address }: Target, { tls }: Transport): Promise<Socket> => {
  const socket = tls ? connectTls({ ...address, ...tls }) : connect(address);
  t.teardown(() => socket.destroy());
  await new Promise<void>((resolve) => socket.once(tls ? 'secureConnect' : 'connect', () => resolve()));
  return socket.setNoDelay(true);
};

const replyTo = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    const reader = new FrameReader();
    socket.on('data', (chunk: Buffer) => reader.push(chunk, (frame) => resolve(frame.body)));
  });

for (const transport of TRANSPORTS) {
  t.test(
    `${transport.name}: each end receives what the other sends from the moment it may, and no byte else`,
    async (t) => {
      const port = await listen(t, transport);
      const before = openSockets();
      for (let round = 0; round < 15; round++) {
        const streams = Array.from({ length: 8 }, async () => {
          const [fromSource, fromTarget] = [randomBytes(1 + round * 997), randomBytes(1 + round * 1009)];
          const talk = async (stream: Promise<StreamSocket>, data: Buffer): Promise<Buffer> => {
            const { fd } = await stream;
            await sendAll(fd, data);
            shutdown(fd, SHUT_WR);
            const received = await receive(fd);
            close(fd);
            return received;
          };
          const atTarget = talk(port.next(), fromTarget);
          const atSource = talk(
            openStream({ ...port.address, clock, tls: transport.tls }, TERMS),
            fromSource,
          );
          return { fromSource, fromTarget, atTarget: await atTarget, atSource: await atSource };
        });
        const all = await Promise.all(streams);
        const hex = (what: keyof (typeof all)[number]): string[] =>
          all.map((one) => one[what].toString('hex')).sort();
        t.ok(hex('atTarget').join() === hex('fromSource').join(), `round ${round}: what the source sent`);
        t.ok(hex('atSource').join() === hex('fromTarget').join(), `round ${round}: what the target sent`);
      }
      await waitFor(() => openSockets() === before, 'every socket is closed');
    },
  );

  t.test(`${transport.name}: the target does not send before the source has taken over`, async (t) => {
    const port = await listen(t, transport);
    const socket = await handConnected(t, port, transport);
    const reply = replyTo(socket);
    socket.write(helloFrame());
    let taken = false;
    const there = port.next().then((stream) => {
      taken = true;
      return stream;
    });
    t.equal(await reply, 'streamReply');
    await sleep(50);
    t.equal(taken, false, 'Node still reads at the source');
    await sendAll(descriptorOf(socket), Buffer.from('\0what follows at once'));
    const stream = await there;
    t.teardown(() => close(stream.fd));
    t.equal((await receive(stream.fd, 100, 50)).toString(), 'what follows at once', 'one byte is taken');
  });

  t.test(`${transport.name}: nothing follows by itself, neither pings nor TLS`, async (t) => {
    const port = await listen(t, transport, {
      peerTimeout: millis(40),
      onStream: (connection) => void sleep(150).then(() => port.accept(connection)),
    });
    const [here, there] = await Promise.all([
      openStream({ ...port.address, clock, tls: transport.tls, peerTimeout: millis(80) }, TERMS),
      port.next(),
    ]);
    const received = await Promise.all([receive(here.fd, 1, 200), receive(there.fd, 1, 200)]);
    t.same(received, [Buffer.alloc(0), Buffer.alloc(0)]);
    shutdown(here.fd, SHUT_WR);
    t.same(await receive(there.fd), Buffer.alloc(0));
    close(here.fd);
    close(there.fd);
  });

  t.test(`${transport.name}: what was sent before the take-over arrives before it`, async (t) => {
    const payload = randomBytes(1024 * 1024);
    const count = 24;
    const last = count - 1;
    const takenAtLast = (connection: PeerConnection): Promise<{ frames: number; fd: number }> =>
      new Promise((resolve) => {
        let frames = 0;
        connection.onFrame((frame, chunks) => {
          if (Buffer.concat(chunks as Buffer[]).equals(payload)) frames++;
          if (frame.seq === last) resolve(connection.takeOver(LABEL).then(({ fd }) => ({ frames, fd })));
        });
      });
    const greeted = firstOf();
    const port = await listen(t, transport, { onHello: greeted.resolve });
    const here = await PeerConnection.connect({ ...port.address, clock, tls: transport.tls });
    here.send({ hello: {} });
    const arrived = takenAtLast(here);
    const there = await greeted.connection;
    for (let seq = 0; seq < count; seq++) there.send({ seq, data: { offset: seq } }, [payload]);
    const [{ fd }, received] = await Promise.all([there.takeOver(LABEL), arrived]);
    t.equal(received.frames, count);
    await sendAll(fd, Buffer.from('raw'));
    t.equal((await receive(received.fd, 3)).toString(), 'raw');
    t.match(await Promise.all([here.closed, there.closed]), [{ code: 'CANCELLED' }, { code: 'CANCELLED' }]);
    for (const each of [fd, received.fd]) close(each);
  });

  t.test(`${transport.name}: the descriptor waits in calls and does not survive exec`, async (t) => {
    const { here, there } = await openBoth(t, await listen(t, transport), transport);
    for (const { fd } of [here, there]) {
      const flags = Number.parseInt(
        /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!,
        8,
      );
      t.equal(flags & 0o4000, 0, 'O_NONBLOCK');
      t.equal(flags & 0o2000000, 0o2000000, 'O_CLOEXEC');
    }
  });

  t.test(`${transport.name}: bytes behind the hello end the connection`, async (t) => {
    const port = await listen(t, transport);
    const before = openSockets();
    const ping = Buffer.concat(encodeFrame({ seq: 1, sync: {} }));
    for (const behind of [ping, ping.subarray(0, 5)]) {
      const socket = await handConnected(t, port, transport);
      const ended = new Promise((resolve) => socket.once('close', resolve));
      socket.on('error', () => {});
      socket.resume();
      const stream = port.next();
      socket.write(Buffer.concat([helloFrame(), behind]));
      await t.rejects(stream, { code: 'INVALID_ARGUMENT' }, `${behind.length} bytes`);
      await ended;
    }
    await waitFor(() => port.listener.framesRejected === 2, 'both were counted');
    await waitFor(() => openSockets() === before, 'every socket is closed');
  });

  t.test(`${transport.name}: a connection that is gone is not taken over`, async (t) => {
    const gone = firstOf();
    const port = await listen(t, transport, { onStream: gone.resolve });
    const before = openSockets();
    const socket = await handConnected(t, port, transport);
    socket.write(helloFrame());
    const connection = await gone.connection;
    connection.destroy();
    await t.rejects(acceptStream(connection), { code: 'UNAVAILABLE' });
    socket.destroy();
    await waitFor(() => openSockets() === before, 'every socket is closed');
  });

  t.test(
    `${transport.name}: a source that leaves, or never takes over, is not waited for (bounded)`,
    async (t) => {
      const manual = new ManualClock();
      const port = await listen(t, transport, { clock: manual });
      const before = openSockets();
      const leaver = await handConnected(t, port, transport);
      leaver.once('data', () => leaver.destroy());
      leaver.write(helloFrame());
      await t.rejects(port.next(), { code: 'UNAVAILABLE' });

      const mute = await handConnected(t, port, transport);
      const reply = replyTo(mute);
      mute.write(helloFrame());
      const stream = port.next();
      await reply;
      await waitFor(() => openSockets() === before + 2, 'the target waits with one descriptor');
      await manual.advance(5_000);
      await t.rejects(stream, { code: 'UNAVAILABLE', message: /taken over/ });
      mute.destroy();
      await waitFor(() => openSockets() === before, 'every socket is closed');
    },
  );

  t.test(`${transport.name}: opening can be aborted at every point, and nothing is left`, async (t) => {
    // A target that has come as far as that has a stream, and sees its end.
    const port = await listen(t, transport, {
      onStream: (connection) =>
        void acceptStream(connection).then(
          ({ fd }) => close(fd),
          () => {},
        ),
    });
    const before = openSockets();
    let aborted = 0;
    let opened = 0;
    for (let turns = 0; opened < 5 && turns < 500; turns++) {
      const controller = new AbortController();
      const reason = new Error(`aborted after ${turns} turns`);
      const opening = openStream(
        { ...port.address, clock, tls: transport.tls, signal: controller.signal },
        TERMS,
      );
      const outcome = opening.then(
        ({ fd }) => {
          opened++;
          close(fd);
        },
        (error) => {
          aborted++;
          t.equal(error, reason);
        },
      );
      for (let turn = 0; turn < turns; turn++) await immediate();
      controller.abort(reason);
      await outcome;
    }
    t.ok(aborted > 3 && opened === 5, `${aborted} aborted, ${opened} opened`);
    await waitFor(() => openSockets() === before, 'every socket is closed');
  });

  t.test(`${transport.name}: accepting can be aborted`, async (t) => {
    const controllers: AbortController[] = [];
    const port = await listen(t, transport, {
      onStream: (connection) => {
        const controller = new AbortController();
        controllers.push(controller);
        port.accept(connection, controller.signal);
      },
    });
    const before = openSockets();
    const reason = new Error('the target stops');
    const socket = await handConnected(t, port, transport);
    const reply = replyTo(socket);
    socket.on('error', () => {});
    socket.write(helloFrame());
    const stream = port.next();
    await reply;
    await sleep(20);
    controllers[0]!.abort(reason);
    await t.rejects(stream, reason);
    socket.destroy();
    await waitFor(() => openSockets() === before, 'every socket is closed');
  });

  t.test(`${transport.name}: what comes once reading has stopped stays in the kernel`, async (t) => {
    const asking = firstOf();
    const port = await listen(t, transport, { onStream: asking.resolve });
    const socket = await handConnected(t, port, transport);
    socket.write(helloFrame());
    const connection = await asking.connection;
    await sendAll(descriptorOf(socket), Buffer.from('\0early'));
    // Turns in which it would be read.
    for (let turn = 0; turn < 3; turn++) await immediate();
    port.accept(connection);
    const { fd } = await port.next();
    t.equal((await receive(fd, 5)).toString(), 'early');
    close(fd);
  });

  t.test(
    `${transport.name}: a take-over can be aborted while output waits, and at its last moment`,
    async (t) => {
      const greeted: PeerConnection[] = [];
      const port = await listen(t, transport, { onHello: (connection) => greeted.push(connection) });
      const before = openSockets();
      const reason = new Error('aborted');
      for (const moment of ['output waits', 'the last']) {
        const here = await PeerConnection.connect({ ...port.address, clock, tls: transport.tls });
        here.send({ hello: {} });
        await waitFor(() => greeted.length > 0, 'the hello has come');
        const there = greeted.pop()!;
        const controller = new AbortController();
        if (moment === 'the last') void here.closed.then(() => controller.abort(reason));
        else for (let i = 0; i < 24; i++) here.send({ data: {} }, [Buffer.alloc(1024 * 1024)]);
        const taking = here.takeOver(LABEL, controller.signal);
        taking.catch(() => {});
        if (moment === 'output waits') {
          await sleep(20);
          controller.abort(reason);
        }
        await t.rejects(taking, reason, moment);
        there.destroy();
      }
      await waitFor(() => openSockets() === before, 'every socket is closed');
    },
  );

  t.test(`${transport.name}: a refusal arrives with its code`, async (t) => {
    const port = await listen(t, transport);
    const before = openSockets();
    for (const token of [Buffer.alloc(0), Buffer.from('another token of the target')])
      await t.rejects(
        openStream({ ...port.address, clock, tls: transport.tls }, { migrationId: 'm-1', token }),
        {
          code: 'PERMISSION_DENIED',
          message: 'no such stream is expected',
        },
      );
    await waitFor(() => openSockets() === before, 'every socket is closed');
  });

  t.test(`${transport.name}: a target that takes no streams drops who asks for one`, async (t) => {
    const port = await listen(t, transport, { onStream: undefined });
    await t.rejects(openStream({ ...port.address, clock, tls: transport.tls }, TERMS), {
      code: 'UNAVAILABLE',
    });
    t.equal(port.listener.framesRejected, 1);
  });
}

t.test('from the hello to the reply the source sends nothing, and waits for so long', async (t) => {
  const chunks: Buffer[] = [];
  const server: Server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as { port: number };
  const manual = new ManualClock();
  const before = openSockets();
  const opening = openStream({ host: '127.0.0.1', port, clock: manual, peerTimeout: millis(60_000) }, TERMS);
  opening.catch(() => {});
  await waitFor(() => chunks.length > 0, 'the hello has come');
  await manual.advance(4_900);
  await sleep(20);
  t.same(Buffer.concat(chunks), helloFrame());
  await manual.advance(100);
  await t.rejects(opening, { code: 'UNAVAILABLE', message: /no answer/ });
  await waitFor(() => openSockets() === before, 'every socket is closed');
});

t.test('a silent connection pings until the hello of a stream, and not after it', async (t) => {
  const bodies: string[] = [];
  const server: Server = createServer((socket) => {
    const reader = new FrameReader();
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => reader.push(chunk, ({ body }) => bodies.push(body)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as { port: number };
  const connection = await PeerConnection.connect({
    host: '127.0.0.1',
    port,
    clock,
    peerTimeout: millis(40),
  });
  t.teardown(() => connection.destroy());
  await waitFor(() => bodies.includes('ping'), 'a ping');
  connection.send({ streamHello: {} });
  await sleep(100);
  t.equal(bodies.at(-1), 'streamHello');
  t.throws(() => connection.send({ ping: {} }), { code: 'ERR_ASSERTION' });
});

t.test('without TLS there are no keys', async (t) => {
  const [plain] = TRANSPORTS;
  const { here, there } = await openBoth(t, await listen(t, plain!), plain!);
  t.equal(here.keys, null);
  t.equal(there.keys, null);
});

t.test('with TLS each end has the keys of the other, of this one session (RFC 8446, 7.5)', async (t) => {
  const transport = TRANSPORTS[1]!;
  const port = await listen(t, transport);
  const first = await openBoth(t, port, transport);
  const second = await openBoth(t, port, transport);
  for (const { here, there } of [first, second]) {
    t.equal(here.keys?.send.length, RECORD_KEY_BYTES);
    t.equal(here.keys?.receive.length, RECORD_KEY_BYTES);
    t.same(here.keys?.send, there.keys?.receive);
    t.same(here.keys?.receive, there.keys?.send);
  }
  const { send, receive: received } = first.here.keys!;
  t.equal(
    new Set([send, received, second.here.keys!.send].map((key) => Buffer.from(key).toString('hex'))).size,
    3,
  );

  const socket = await handConnected(t, port, transport);
  const reply = replyTo(socket);
  socket.write(helloFrame());
  await reply;
  const material = (socket as ReturnType<typeof connectTls>).exportKeyingMaterial(72, LABEL, Buffer.alloc(0));
  await sendAll(descriptorOf(socket), Buffer.alloc(1));
  const { keys, fd } = await port.next();
  close(fd);
  t.same(keys?.receive, material.subarray(0, 36));
  t.same(keys?.send, material.subarray(36));
});

t.test('records sealed at one end are opened at the other', async (t) => {
  for (const transport of TRANSPORTS) {
    const { here, there } = await openBoth(t, await listen(t, transport), transport);
    for (const [from, to] of [
      [here, there],
      [there, here],
    ] as const) {
      const record = new Uint8Array(RECORD_HEAD_BYTES + 5000).fill(9);
      new RecordHead(record.buffer, 0).put(RECORD_KIND.data, 1, 4096, 5000, 1);
      const sent = new RecordSeal(from.keys?.send ?? null).seal(record, 0);
      await sendAll(from.fd, sent);
      const received = await receive(to.fd, sent.length);
      if (transport.tls) t.equal(received.includes(Buffer.alloc(16, 9)), false, 'not in the clear');
      const reader = new RecordReader(to.keys?.receive ?? null);
      reader.space().set(received);
      reader.received(received.length);
      t.match(reader.next(), { kind: RECORD_KIND.data, image: 1, offset: 4096, length: 5000, seq: 1 });
    }
  }
});

t.test("a stranger's certificate opens no stream, nor does a broker's (G7)", async (t) => {
  const port = await listen(t, TRANSPORTS[1]!, {
    onStream: () => t.fail('a stranger came as far as the token'),
  });
  const stranger = readTlsIdentity(makeTlsFiles(folder, 'stranger'))!;
  const broker = readTlsIdentity(signCertificate(folder, 'target', 'broker', '/CN=a/OU=broker'))!;
  const before = openSockets();
  await t.rejects(openStream({ ...port.address, clock, tls: stranger }, TERMS), {
    code: 'PERMISSION_DENIED',
  });
  for (const tls of [{ ...stranger, ca: target.ca }, broker])
    await t.rejects(openStream({ ...port.address, clock, tls }, TERMS), {
      code: /PERMISSION_DENIED|UNAVAILABLE/,
    });
  await t.rejects(openStream({ ...port.address, clock }, TERMS), { code: 'UNAVAILABLE' }, 'no TLS at all');
  await waitFor(() => openSockets() === before, 'every socket is closed');
});
