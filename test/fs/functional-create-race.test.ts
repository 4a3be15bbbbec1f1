/** Two processes make files of the same names, one through the mount and one behind it. */
import { spawn } from 'node:child_process';
import { chmodSync, closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { TRANSPORTS } from '../posix/compare.js';
import { guardProcess, releaseProcess, scratchDir } from '../support/scratch.js';
import { TestDaemon } from '../support/test-daemon.js';

const LATE_CREATOR = fileURLToPath(new URL('../support/late-creator-process.js', import.meta.url));
const COUNT = 400;

for (const transport of TRANSPORTS)
  t.test(
    `${transport}: who creates a file that another has just made gets no more of it than is his`,
    async (t) => {
      const daemon = await TestDaemon.start(t, { transport });
      chmodSync(daemon.below(''), 0o1777);
      const counter = join(scratchDir(t, 'counter'), 'counter');
      writeFileSync(counter, Buffer.alloc(8));
      chmodSync(counter, 0o666);
      const command = [process.execPath, LATE_CREATOR, counter, daemon.mountpoint, String(COUNT)];
      const child = spawn('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', ...command], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      guardProcess(child.pid!);
      const said = text(child.stdout);
      const shared = openSync(counter, 'r+');
      const word = Buffer.alloc(4);
      let made = 0;
      for (let n = 0; n < COUNT; n++) {
        do readSync(shared, word, 0, 4, 0);
        while (word.readInt32LE(0) <= n && child.exitCode === null);
        for (const until = performance.now() + (n % 50) * 0.004; performance.now() < until; );
        try {
          closeSync(openSync(daemon.below(String(n)), 'wx', 0o600));
          made++;
        } catch {
          // The other one was first.
        }
        word.writeInt32LE(n + 1, 0);
        writeSync(shared, word, 0, 4, 4);
      }
      closeSync(shared);
      const refused = Number(await said);
      releaseProcess(child.pid!);
      t.equal(refused, made, `of ${COUNT}, the others are his own`);
    },
  );
