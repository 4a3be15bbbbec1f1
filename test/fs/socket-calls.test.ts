/** What `libc.ts` offers for sockets and for waking a thread that waits in poll(2). */
import { readFileSync } from 'node:fs';
import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import type { Test } from 'tap';
import t from 'tap';
import * as libc from '../../src/fs/libc.js';

const EAGAIN = 11;
const EBADF = 9;
const EPIPE = 32;
const CLOEXEC_FLAG = /^flags:\s+0?2\d{6}$/m;

/** Both ends of a TCP connection as descriptors, nothing of Node's left that reads them. */
const descriptors = async (t: Test): Promise<[number, number]> => {
  const server = createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const here = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' });
  await new Promise<void>((resolve) => here.once('connect', resolve));
  const there = await accepted;
  const ends = [here, there].map((socket) => {
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    const own = libc.duplicateCloexec(fd);
    socket.destroy();
    return own;
  }) as [number, number];
  await new Promise((resolve) => server.close(resolve));
  t.teardown(() => ends.forEach(libc.close));
  return ends;
};

t.test('bytes sent are received; without waiting there is EAGAIN where there is nothing', async (t) => {
  const [here, there] = await descriptors(t);
  libc.setBlocking(here, true);
  libc.setBlocking(there, true);
  const room = Buffer.alloc(16);
  t.equal(libc.recv(there, room, room.length, libc.MSG_DONTWAIT), -1);
  t.equal(libc.lastErrno(), EAGAIN);
  t.equal(libc.send(here, Buffer.from('abc'), 3, libc.MSG_NOSIGNAL), 3);
  t.equal(libc.recv(there, room, room.length, 0), 3, 'a blocking descriptor waits for them');
  t.equal(room.toString('latin1', 0, 3), 'abc');
});

t.test('a descriptor can be made to wait or not', async (t) => {
  const [, there] = await descriptors(t);
  const room = Buffer.alloc(1);
  t.equal(libc.setBlocking(there, false), 0);
  t.equal(libc.recv(there, room, 1, 0), -1);
  t.equal(libc.lastErrno(), EAGAIN);
  t.equal(libc.setBlocking(-1, true), -EBADF);
});

t.test('shutdown ends the reading of the peer, and sending here fails without a signal', async (t) => {
  const [here, there] = await descriptors(t);
  libc.setBlocking(there, true);
  t.equal(libc.shutdown(here, libc.SHUT_WR), 0);
  t.equal(libc.recv(there, Buffer.alloc(1), 1, 0), 0);
  t.equal(libc.send(here, Buffer.alloc(1), 1, libc.MSG_NOSIGNAL), -1);
  t.equal(libc.lastErrno(), EPIPE);
});

t.test('a connection shut down both ways hangs up', async (t) => {
  const [here] = await descriptors(t);
  t.equal(libc.shutdown(here, libc.SHUT_RDWR), 0);
  const fds = Int32Array.of(here, libc.POLLIN);
  t.equal(libc.rawPoll(fds, 1, 0), 1);
  t.equal((fds[1]! >> 16) & libc.POLLHUP, libc.POLLHUP);
});

t.test('a larger send buffer takes more of what nobody reads', async (t) => {
  const [here] = await descriptors(t);
  libc.setBlocking(here, false);
  const piece = Buffer.alloc(65_536);
  const fill = (): number => {
    let taken = 0;
    for (;;) {
      const sent = libc.send(here, piece, piece.length, libc.MSG_NOSIGNAL);
      if (sent < 0) return taken;
      taken += sent;
    }
  };
  fill();
  t.equal(libc.setSendBuffer(here, 16 * 1024 * 1024), 32 * 1024 * 1024, 'the kernel counts twice as much');
  t.ok(fill() > 4 * 1024 * 1024);
});

t.test('poll waits for two descriptors at once, and an eventfd wakes it', async (t) => {
  const [here] = await descriptors(t);
  const wake = libc.eventfd(0, libc.EFD_CLOEXEC | libc.EFD_NONBLOCK);
  t.teardown(() => libc.close(wake));
  const fds = Int32Array.of(here, libc.POLLIN | libc.POLLOUT, wake, libc.POLLIN);
  t.equal(libc.rawPoll(fds, 2, 0), 1);
  t.equal(fds[1]! >> 16, libc.POLLOUT);
  t.equal(fds[3]! >> 16, 0);
  const counter = new Uint8Array(BigUint64Array.of(1n).buffer);
  t.equal(libc.write(wake, counter, 8), 8);
  t.equal(libc.rawPoll(fds, 2, 0), 2);
  t.equal(fds[3]! >> 16, libc.POLLIN);
  t.equal(libc.read(wake, counter, 8), 8);
  t.equal(libc.read(wake, counter, 8), -EAGAIN, 'a read clears it');
});

t.test('descriptors made here do not survive exec', async (t) => {
  const [here] = await descriptors(t);
  const wake = libc.eventfd(0, libc.EFD_CLOEXEC);
  t.teardown(() => libc.close(wake));
  for (const fd of [here, wake])
    t.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), CLOEXEC_FLAG, `descriptor ${fd}`);
});
