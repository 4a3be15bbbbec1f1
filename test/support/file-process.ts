/**
 * A process with one open file: `node file-process.js PATH FLAGS`. Prints `"ready"`, then answers each line on stdin,
 * a command with its arguments as a JSON array, with one line of JSON: the result, or the name of the error.
 */
import { openSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { errnoName, libc, SharedMapping } from '../posix/libc.js';

const [path = '', flags = '0'] = process.argv.slice(2);
const F_SETLK = 6;
const F_OFD_SETLK = 37;

let fd = openSync(path, Number(flags));
let mapping: SharedMapping | null = null;

const lock = (command: number, type: number, start: number, length: number): number => {
  const packed = Buffer.alloc(32);
  packed.writeInt16LE(type, 0);
  packed.writeBigInt64LE(BigInt(start), 8);
  packed.writeBigInt64LE(BigInt(length), 16);
  return libc.fcntlLock(fd, command, packed);
};

const text = (bytes: Buffer, length: number): number | string =>
  length < 0 ? length : bytes.toString('latin1', 0, length);

const commands: Record<string, (...args: never[]) => number | string> = {
  open: () => {
    fd = openSync(path, Number(flags));
    return 0;
  },
  close: () => libc.close(fd),
  posix: (type: number, start: number, length: number) => lock(F_SETLK, type, start, length),
  ofd: (type: number, start: number, length: number) => lock(F_OFD_SETLK, type, start, length),
  flock: (operation: number) => libc.flock(fd, operation),
  write: (offset: number, contents: string) =>
    libc.pwrite(fd, Buffer.from(contents), contents.length, offset),
  read: (offset: number, length: number) => {
    const bytes = Buffer.alloc(length);
    return text(bytes, libc.pread(fd, bytes, length, offset));
  },
  map: (length: number) => {
    mapping = new SharedMapping(fd, length);
    return 0;
  },
  'read mapped': (offset: number, length: number) => text(mapping!.read(offset, length), length),
  'write mapped': (offset: number, contents: string) => {
    mapping!.write(offset, Buffer.from(contents));
    return contents.length;
  },
};

const say = (answer: unknown): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);

createInterface({ input: process.stdin }).on('line', (line) => {
  const [command, ...args] = JSON.parse(line) as [string, ...never[]];
  const result = commands[command]!(...args);
  say(typeof result === 'number' && result < 0 ? errnoName(-result) : result);
});
say('ready');
