import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import t from 'tap';
import { TRANSPORTS } from '../posix/compare.js';
import { runOk } from '../support/run.js';
import { TestDaemon, within } from '../support/test-daemon.js';

const END_MAX_MS = 20_000;

for (const transport of TRANSPORTS) {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    void t.test(`${transport}: ${signal} unmounts`, async (t) => {
      const daemon = await TestDaemon.start(t, { transport });
      writeFileSync(daemon.at('file'), 'kept');
      process.kill(daemon.pid, signal);
      const { code } = await within(daemon.exited, END_MAX_MS, () => 'the daemon does not end');
      t.equal(code, 0);
      t.notOk(daemon.mounted);
      t.equal(readFileSync(daemon.below('file'), 'utf8'), 'kept');
    });
  }

  void t.test(`${transport}: an administrator's umount ends the daemon`, async (t) => {
    const daemon = await TestDaemon.start(t, { transport });
    await runOk('umount', [daemon.mountpoint]);
    const { code } = await within(daemon.exited, END_MAX_MS, () => 'the daemon does not end');
    t.equal(code, 0);
  });

  void t.test(`${transport}: while a file is open, a signal does not take it away`, async (t) => {
    const daemon = await TestDaemon.start(t, { transport });
    const fd = openSync(daemon.at('disk'), 'w+');
    const refused = daemon.logged((line) => /busy|in use/.test(line));
    process.kill(daemon.pid, 'SIGTERM');
    t.match(await within(refused, END_MAX_MS, () => 'the refusal is not logged'), /close its files/);
    t.equal(writeSync(fd, 'still served'), 12);
    t.equal(readFileSync(daemon.at('disk'), 'utf8'), 'still served');
    closeSync(fd);
    await daemon.stop();
  });
}
