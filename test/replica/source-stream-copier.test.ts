/** Runs of blocks as records, whatever the offsets at which data begins (G2). */
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { close } from '../../src/fs/libc.js';
import { MirrorLane } from '../../src/fs/mirror-lane.js';
import { RecordReader } from '../../src/leaves/record-reader.js';
import { RECORD_KIND } from '../../src/leaves/stream-record.js';
import { KiB } from '../../src/leaves/units.js';
import { StreamCopier } from '../../src/replica/source/stream-copier.js';
import { receive } from '../support/raw-socket.js';
import { scratchDir } from '../support/scratch.js';
import { socketPair } from '../support/socket-pair.js';

t.test('an image that has grown from an odd size, with zeroes before it, is copied', async (t) => {
  const [fd, peer] = await socketPair();
  const lane = new MirrorLane();
  const copier = new StreamCopier(fd, null, lane);
  const path = join(scratchDir(t), 'odd');
  const image = openSync(path, 'w+');
  const batch = { image: 0, fd: image, runs: Float64Array.of(0, 4 * KiB), piece: 64 * KiB };
  writeSync(image, Buffer.alloc(1001), 0, 1001, 0);
  t.match(copier.advance({ id: 1, ...batch }, 0), { runs: 1 }, 'now it knows where data ends');
  const grown = Buffer.alloc(2000, 7);
  writeSync(image, grown, 0, grown.length, 1001);
  const sent = copier.advance({ id: 2, ...batch }, 0);
  t.ok(sent);
  const reader = new RecordReader(null);
  const copy = Buffer.alloc(4 * KiB, 0xee);
  for (let last = 0; last < sent!.sequence; ) {
    const record = reader.next();
    if (!record) {
      const bytes = await receive(peer, 1);
      reader.space().set(bytes);
      reader.received(bytes.length);
      continue;
    }
    if (record.kind === RECORD_KIND.data) copy.set(record.payload, record.offset);
    else copy.fill(0, record.offset, record.offset + record.length);
    last = record.seq;
  }
  const expected = Buffer.alloc(4 * KiB);
  expected.set(grown, 1001);
  t.ok(copy.equals(expected), 'the same on the other side');
  closeSync(image);
  close(fd);
  close(peer);
});
