/**
 * One end of a plain copy over TCP with Node's streams: `receive FILE` prints its port, `send FILE PORT` connects.
 * What the bulk copy is measured against: no dirty tracking, no checksum, no acknowledgement.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { pipeline } from 'node:stream/promises';

const CHUNK_BYTES = 512 * 1024;

const [role, file, port] = process.argv.slice(2);
switch (role) {
  case 'receive': {
    const server = createServer((socket) => {
      server.close();
      void pipeline(socket, createWriteStream(file!, { highWaterMark: CHUNK_BYTES }));
    });
    server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
    break;
  }
  case 'send':
    await pipeline(
      createReadStream(file!, { highWaterMark: CHUNK_BYTES }),
      connect({ port: Number(port), host: '127.0.0.1', noDelay: true }),
    );
    break;
  default:
    throw new Error(`unknown role ${role}`);
}
