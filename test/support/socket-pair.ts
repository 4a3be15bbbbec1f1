import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { duplicateCloexec, setBlocking } from '../../src/fs/libc.js';

/** Both ends of a TCP connection as descriptors that wait, nothing of Node's left that reads them. */
export const socketPair = async (): Promise<readonly [number, number]> => {
  const server = createServer({ pauseOnConnect: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection');
  const here = connect((server.address() as AddressInfo).port, '127.0.0.1');
  await once(here, 'connect');
  const [there] = (await accepted) as [Socket];
  const own = (socket: Socket): number => {
    const fd = duplicateCloexec((socket as unknown as { _handle: { fd: number } })._handle.fd);
    socket.destroy();
    setBlocking(fd, true);
    return fd;
  };
  const ends = [own(here), own(there)] as const;
  server.close();
  return ends;
};
