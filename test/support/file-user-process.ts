/**
 * `node file-user-process.js FILE` opens FILE read-write, prints `open`, then does what each line on stdin says and
 * prints what came of it: `read OFFSET LENGTH`, `write OFFSET TEXT`, `sync`.
 */
import { openSync, readSync } from 'node:fs';
import { errnoName } from '../../src/fs/errno.js';
import { fsync, pread, pwrite } from '../../src/fs/libc.js';

// A handler, so that the signal interrupts a call instead of ending the process.
process.on('SIGUSR2', () => {});
const fd = openSync(process.argv[2]!, 'r+');
const say = (line: string): void => void process.stdout.write(`${line}\n`);

const perform = (what: string, offset: number, text: string): string => {
  switch (what) {
    case 'read': {
      const data = Buffer.alloc(Number(text));
      const length = pread(fd, data, data.length, offset);
      return length < 0 ? errnoName(length) : data.toString('latin1', 0, length).replaceAll('\0', '.');
    }
    case 'write': {
      const written = pwrite(fd, Buffer.from(text), text.length, offset);
      return written < 0 ? errnoName(written) : String(written);
    }
    default: {
      const result = fsync(fd);
      return result < 0 ? errnoName(result) : 'synced';
    }
  }
};

/** Without an event loop: nothing else would have a turn while a call does not return. */
const lines = function* (): Generator<string> {
  const byte = Buffer.alloc(1);
  let line = '';
  while (readSync(0, byte) === 1) {
    if (byte[0] !== 10) line += byte.toString('latin1');
    else {
      yield line;
      line = '';
    }
  }
};

say('open');
for (const line of lines()) {
  const [what = '', offset = '', text = ''] = line.split(' ');
  say(perform(what, Number(offset), text));
}
