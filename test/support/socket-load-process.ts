/**
 * One end of a plain TCP load: `sink ADDRESS` prints its port, then every 100 ms the bytes it has received so far;
 * `source ADDRESS PORT RATE CONNECTIONS` sends at RATE bytes per second over all connections, or as fast as it goes
 * when RATE is 0. Both end with their standard input.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setInterval } from 'node:timers';

const CHUNK_BYTES = 64 * 1024;
const REPORT_MS = 100;
const PACE_MS = 5;
/** What a source that was held up may send at once afterwards, seconds of its rate. */
const CATCH_UP_SECONDS = 0.05;

const sink = (address: string): void => {
  let received = 0;
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
  });
  server.listen(0, address, () => {
    process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
    setInterval(() => process.stdout.write(`${received}\n`), REPORT_MS);
  });
};

const greedy = (socket: Socket, chunk: Buffer): void => {
  const fill = (): void => {
    while (socket.write(chunk));
  };
  socket.on('drain', fill);
  fill();
};

const paced = (socket: Socket, chunk: Buffer, rate: number): void => {
  let due = 0;
  let before = performance.now();
  setInterval(() => {
    const now = performance.now();
    due = Math.min(due + ((now - before) / 1000) * rate, rate * CATCH_UP_SECONDS);
    before = now;
    // What the connection does not take is not offered again later: a stream of data that gets old.
    while (due >= 1 && !socket.writableNeedDrain) {
      const part = Math.min(due, chunk.length);
      socket.write(chunk.subarray(0, part));
      due -= Math.floor(part);
    }
  }, PACE_MS);
};

const source = (address: string, port: number, rate: number, connections: number): void => {
  const chunk = Buffer.alloc(CHUNK_BYTES, 'load');
  for (let i = 0; i < connections; i++) {
    const socket = connect({ host: address, port, noDelay: true });
    socket.on('error', () => process.exit(1));
    socket.once('connect', () =>
      rate === 0 ? greedy(socket, chunk) : paced(socket, chunk, rate / connections),
    );
  }
};

const [role, address, port, rate, connections] = process.argv.slice(2);
process.stdin.resume().on('close', () => process.exit(0));
if (role === 'sink') sink(address!);
else source(address!, Number(port), Number(rate), Number(connections));
