/**
 * A file that stops answering: `node stuck-file-process.js FILE SIZE` mounts a FUSE file system of one regular file
 * over FILE. Its I/O is served from memory, or, after the line `hold` on stdin, kept waiting until `release`. Its
 * attributes stay valid for a day, as an inode in memory does when its disk dies. After `lose` a sync fails, once for each
 * open file, as the kernel has it when pages could not be written. After `damage N` nothing from byte N on can be read: a read
 * across it is short, as pread(2) is, and one from there on fails. Prints `ready`, then `held N` each time another request
 * is kept.
 */
import { read } from 'node:fs';
import { createInterface } from 'node:readline';
import { openFuseDevice } from '../../src/fs/kernel/mount-point.js';
import {
  InitFlag,
  Opcode,
  OpenReplyFlag,
  putU64,
  TRANSFER_BYTES_MAX,
  TRANSFER_PAGES_MAX,
  u64,
  WRITE_PAYLOAD_OFFSET,
} from '../../src/fs/kernel/protocol.js';
import { NO_REPLY, ReplyBuffer } from '../../src/fs/kernel/reply.js';
import { cString, MNT_DETACH, mount, umount2 } from '../../src/fs/libc.js';

const [file = '', size = '0'] = process.argv.slice(2);
const content = Buffer.alloc(Number(size));
const fuseFd = openFuseDevice();
const reply = new ReplyBuffer(TRANSFER_BYTES_MAX);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

const DAY_SECONDS = 86_400;
const REGULAR = 0o100666;
const BLOCK = 512;
const ENOSYS = 38;
const EINTR = 4;
const EIO = 5;

/** Where what cannot be read begins. */
let damagedFrom = content.length;
/** Requests that are kept, as they came. */
const kept: Uint32Array[] = [];
let holding = false;
/** By open file, how many losses its syncs have told of. */
const told: number[] = [];
let losses = 0;

const putAttributes = (): number => {
  const words = reply.words;
  words.fill(0, 0, 26);
  putU64(words, 0, DAY_SECONDS);
  putU64(words, 4, 1); // inode
  putU64(words, 6, content.length);
  putU64(words, 8, Math.ceil(content.length / BLOCK));
  words[19] = REGULAR;
  words[20] = 1; // links
  words[24] = 4096;
  return 104;
};

const initialise = (): number => {
  const words = reply.words;
  words.fill(0, 0, 16);
  words[0] = 7;
  words[1] = 41;
  words[3] = InitFlag.ASYNC_READ | InitFlag.BIG_WRITES | InitFlag.ASYNC_DIO | InitFlag.MAX_PAGES;
  words[4] = 1024 | (1024 << 16);
  words[5] = TRANSFER_BYTES_MAX;
  words[6] = 1;
  words[7] = TRANSFER_PAGES_MAX;
  return 64;
};

/** As with NFS, whoever waits can be killed; nothing else sends signals to the threads of a daemon. */
const interrupt = (words: Uint32Array): number => {
  const at = kept.findIndex((request) => request[2] === words[10] && request[3] === words[11]);
  if (at >= 0) kept.splice(at, 1);
  if (at >= 0) reply.send(fuseFd, words[10]!, words[11]!, -EINTR);
  return NO_REPLY;
};

const answer = (words: Uint32Array): number => {
  const out = reply.words;
  switch (words[1]) {
    case Opcode.INIT:
      return initialise();
    case Opcode.GETATTR:
      return putAttributes();
    case Opcode.OPEN:
      out.fill(0, 0, 4);
      out[0] = told.push(losses) - 1;
      out[2] = OpenReplyFlag.DIRECT_IO | OpenReplyFlag.PARALLEL_DIRECT_WRITES;
      return 16;
    case Opcode.READ: {
      const offset = u64(words, 12);
      if (offset >= damagedFrom && offset < content.length) return -EIO;
      const part = content.subarray(offset, Math.min(offset + words[14]!, damagedFrom));
      reply.body.set(part);
      return part.length;
    }
    case Opcode.WRITE: {
      const bytes = new Uint8Array(words.buffer, words.byteOffset + WRITE_PAYLOAD_OFFSET, words[14]!);
      content.set(bytes, u64(words, 12));
      out[0] = bytes.length;
      out[1] = 0;
      return 8;
    }
    case Opcode.FSYNC: {
      const file = words[10]!;
      const lost = losses > told[file]!;
      told[file] = losses;
      return lost ? -EIO : 0;
    }
    case Opcode.RELEASE:
      return 0;
    case Opcode.FORGET:
    case Opcode.BATCH_FORGET:
      return NO_REPLY;
    case Opcode.INTERRUPT:
      return interrupt(words);
    default:
      return -ENOSYS;
  }
};

const serve = (words: Uint32Array): void => {
  const length = answer(words);
  if (length !== NO_REPLY) reply.send(fuseFd, words[2]!, words[3]!, length);
};

const IO: readonly number[] = [Opcode.READ, Opcode.WRITE, Opcode.FSYNC];

const loop = (): void => {
  const buffer = new Uint8Array(TRANSFER_BYTES_MAX + 8192);
  read(fuseFd, buffer, 0, buffer.length, null, (error) => {
    if (error?.code === 'ENODEV') return process.exit(0);
    if (!error) {
      const words = new Uint32Array(buffer.buffer);
      if (holding && IO.includes(words[1]!)) {
        kept.push(words);
        say(`held ${kept.length}`);
      } else serve(words);
    }
    loop();
  });
};

const options = `fd=${fuseFd},rootmode=100000,user_id=0,group_id=0,allow_other`;
const mounted = mount(cString('stuck-file'), cString(file), cString('fuse.stuck'), 0, cString(options));
if (mounted < 0) throw new Error(`cannot mount: errno ${-mounted}`);
process.once('exit', () => umount2(cString(file), MNT_DETACH));
createInterface({ input: process.stdin })
  .on('line', (line) => {
    if (line === 'lose') losses++;
    else if (line.startsWith('damage ')) damagedFrom = Number(line.slice('damage '.length));
    else holding = line === 'hold';
    if (!holding) for (const words of kept.splice(0)) serve(words);
    say(line);
  })
  .once('close', () => process.exit(0));
loop();
say('ready');
