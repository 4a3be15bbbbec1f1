/** Replies leave whole, wherever their body was put. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { PAGE_BYTES } from '../../src/fs/kernel/aligned-memory.js';
import { ReplyBuffer } from '../../src/fs/kernel/reply.js';
import { addressOf } from '../../src/fs/libc.js';
import { KiB } from '../../src/leaves/units.js';

const BODY_BYTES = 64 * KiB;
const HEADER_BYTES = 16;
/** Closer than this, addresses of source and target look as if they overlapped. */
const ALIAS_BYTES = 64;

const inPage = (memory: Uint8Array): number => Number(addressOf(memory) % BigInt(PAGE_BYTES));

t.test(
  'a body for a device begins a page, a body that is copied is far from where others begin',
  async (t) => {
    const reply = new ReplyBuffer(BODY_BYTES);
    t.equal(inPage(reply.body), 0);
    const place = inPage(reply.staggered().body);
    t.ok(place >= ALIAS_BYTES, `${place} bytes after a page of the page cache`);
    t.ok(
      PAGE_BYTES + HEADER_BYTES - place >= ALIAS_BYTES,
      `${place} bytes into a page, before a caller's buffer`,
    );
  },
);

t.test(
  'each reply carries the body that was asked for last, and the next one is an ordinary one again',
  async (t) => {
    const path = join(t.testdir(), 'replies');
    const fd = openSync(path, 'w+');
    t.teardown(() => closeSync(fd));
    const reply = new ReplyBuffer(BODY_BYTES);
    const expect = (header: readonly number[], body: Uint8Array): void => {
      const size = HEADER_BYTES + body.length;
      const got = Buffer.alloc(size);
      t.equal(readSync(fd, got, 0, size, fstatSync(fd).size - size), size);
      t.same([...new Int32Array(got.buffer, got.byteOffset, 4)], [size, ...header]);
      t.equal(Buffer.compare(got.subarray(HEADER_BYTES), body), 0, `a body of ${body.length} bytes`);
    };
    const data = Buffer.from(Uint8Array.from({ length: BODY_BYTES }, (_, at) => at * 7));
    reply.staggered().body.set(data);
    reply.send(fd, 11, 12, BODY_BYTES);
    expect([0, 11, 12], data);
    reply.words[0] = 0x04030201;
    reply.send(fd, 13, 0, 4);
    expect([0, 13, 0], Uint8Array.of(1, 2, 3, 4));
    reply.staggered();
    reply.send(fd, 15, 0, -5); // a read that failed
    expect([-5, 15, 0], new Uint8Array(0));
    reply.words[0] = 0x08070605;
    reply.send(fd, 17, 0, 4);
    expect([0, 17, 0], Uint8Array.of(5, 6, 7, 8));
  },
);
