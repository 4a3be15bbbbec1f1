import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { TRANSPORTS } from '../posix/compare.js';
import { CLI, type RunResult, run, runCli } from '../support/run.js';
import { mountsBelow, scratchDir } from '../support/scratch.js';
import { TestDaemon, type Transport } from '../support/test-daemon.js';

const mountArgs = (transport: Transport, imageDir: string, mountpoint: string): string[] => [
  'mount',
  imageDir,
  mountpoint,
  '--listen=127.0.0.1:0',
  '--data=127.0.0.1:0',
  `--transport=${transport}`,
];

/** Exit status 1 and one line that names the cause and the remedy (DESIGN 6). */
const refusedWith = (t: Test, { code, stderr }: RunResult, cause: RegExp, remedy: RegExp): void => {
  t.equal(code, 1, 'exit status');
  t.equal(stderr.trimEnd().split('\n').length, 1, 'one line');
  t.match(stderr, cause, 'the cause');
  t.match(stderr, remedy, 'the remedy');
};

for (const transport of TRANSPORTS) {
  void t.test(transport, async (t) => {
    const scratch = scratchDir(t, 'bad');
    const images = join(scratch, 'images');
    const mountpoint = join(scratch, 'mount');
    const file = join(scratch, 'file');
    mkdirSync(images);
    mkdirSync(mountpoint);
    writeFileSync(file, '');
    const attempt = (imageDir: string, point: string): Promise<RunResult> =>
      runCli(mountArgs(transport, imageDir, point));

    await t.test('no such image folder', async (t) =>
      refusedWith(t, await attempt(join(scratch, 'none'), mountpoint), /none.* does not exist/, /mkdir/),
    );
    await t.test('no such mount point', async (t) =>
      refusedWith(t, await attempt(images, join(scratch, 'none')), /none does not exist/, /mkdir/),
    );
    await t.test('a file for a mount point', async (t) =>
      refusedWith(t, await attempt(images, file), /file is not a directory/, /./),
    );
    await t.test('a mount point inside the image folder', async (t) => {
      mkdirSync(join(images, 'inside'));
      refusedWith(t, await attempt(images, join(images, 'inside')), /inside the image directory/, /outside/);
    });
    await t.test('no /dev/fuse', async (t) => {
      const hidden = 'mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && exec "$@"';
      const command = [process.execPath, CLI, ...mountArgs(transport, images, mountpoint)];
      const result = await run('unshare', ['-m', 'sh', '-c', hidden, 'sh', ...command]);
      refusedWith(t, result, /\/dev\/fuse is missing/, /modprobe fuse/);
    });
    await t.test('root without the right to mount', async (t) => {
      const command = [process.execPath, CLI, ...mountArgs(transport, images, mountpoint)];
      const result = await run('setpriv', ['--bounding-set=-sys_admin', ...command]);
      refusedWith(t, result, /no permission to mount/, /run as root/);
    });
    await t.test('not root', async (t) => {
      // It may read the checkout, wherever that is.
      const reader = ['--inh-caps=+dac_override', '--ambient-caps=+dac_override'];
      const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', ...reader];
      const command = [process.execPath, CLI, ...mountArgs(transport, images, mountpoint)];
      refusedWith(t, await run('setpriv', [...nobody, ...command]), /no permission/, /run as root/);
    });
    await t.test('a mount point that is taken', async (t) => {
      const daemon = await TestDaemon.start(t, { transport, imageDir: images, mountpoint });
      refusedWith(t, await attempt(images, mountpoint), /busy/, /unmount/);
      writeFileSync(daemon.at('still'), 'served');
      await daemon.stop();
    });
    await t.test('a mount whose daemon has died', async (t) => {
      const daemon = await TestDaemon.start(t, { transport, imageDir: images, mountpoint });
      await daemon.kill({ leaveMount: true });
      refusedWith(t, await attempt(images, mountpoint), /daemon has died/, /umount -l/);
      await daemon.kill();
    });
    await t.test('a port that is taken', async (t) => {
      const other = await TestDaemon.start(t);
      const args = mountArgs(transport, images, mountpoint);
      for (const [port, address] of [
        ['--listen', other.controlAddress],
        ['--data', other.dataAddress],
      ]) {
        const result = await runCli([...args, `${port}=${address}`], { timeout: 30_000 });
        refusedWith(t, result, new RegExp(`${address}|in use|EADDRINUSE`), /./);
        t.strictSame(mountsBelow(scratch), [], 'nothing stays mounted');
      }
      await other.stop();
    });
    t.strictSame(mountsBelow(scratch), []);
  });
}
