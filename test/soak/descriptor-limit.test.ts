import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { runOk } from '../support/run.js';
import { TestDaemon } from '../support/test-daemon.js';
import { dropInodes } from './descriptors-return.js';
import { sampleProcess } from './process-sample.js';

/** Each inode that the kernel knows costs the daemon a descriptor. */
const FILES = 400;
const LIMIT = 250;

t.test(
  'out of descriptors: more names are refused, open images go on, and all is well once some are free',
  async (t) => {
    const daemon = await TestDaemon.start(t);
    mkdirSync(daemon.below('many'));
    for (let i = 0; i < FILES; i++) writeFileSync(daemon.below(join('many', `f${i}`)), `${i}`);
    await runOk('prlimit', ['--pid', String(daemon.pid), `--nofile=${LIMIT}:${LIMIT}`]);
    await using image = await open(daemon.at('vm.raw'), 'w+');
    const codes = new Set<string>();
    for (let i = 0; i < FILES; i++)
      try {
        statSync(daemon.at(join('many', `f${i}`)));
      } catch (error) {
        codes.add((error as NodeJS.ErrnoException).code ?? String(error));
      }
    t.strictSame([...codes], ['ENFILE'], 'not EMFILE, which would blame the caller');
    const { nodes } = sampleProcess(daemon.pid);
    t.ok(nodes < LIMIT, `${nodes} inodes known`);
    t.equal((await image.write('written', 0)).bytesWritten, 7, 'an image that is open is written');
    await image.sync();
    t.equal((await image.read(Buffer.alloc(7), 0, 7, 0)).buffer.toString(), 'written', 'and read');
    await dropInodes(daemon.mountpoint);
    t.equal(await readFile(daemon.at(join('many', `f${FILES - 1}`)), 'utf8'), `${FILES - 1}`);
    await image.close();
    await daemon.stop();
  },
);
