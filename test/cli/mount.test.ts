import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import t from 'tap';
import { CLI, type RunResult, runCli, unwatched } from '../support/run.js';
import { guardProcess, releaseProcess, scratchDir } from '../support/scratch.js';
import { fillDisk, smallDisk } from '../support/small-disk.js';
import { waitFor } from '../support/wait-for.js';

t.test('G7: without certificates other than loopback is refused, before anything is mounted', async (t) => {
  const dir = scratchDir(t, 'mount');
  for (const [option, what] of [
    ['--listen', 'control'],
    ['--data', 'data'],
  ] as const) {
    const { code, stderr } = await runCli(['mount', dir, option, '0.0.0.0:0']);
    t.equal(code, 1);
    t.match(
      stderr,
      new RegExp(`^migratefs: will not serve the ${what} port on 0\\.0\\.0\\.0:0 .*--insecure\n$`),
    );
  }
});

t.test('hot spots that are described wrongly are one line, before anything is mounted', async (t) => {
  // Mounting comes later: it would complain of the directory.
  const dir = join(scratchDir(t, 'mount'), 'none');
  mkdirSync(dirname(dir), { recursive: true });
  const file = join(dirname(dir), 'hot-spots.json');
  const ports = ['--listen', '127.0.0.1:0', '--data', '127.0.0.1:0'];
  for (const [config, message] of [
    [{ thresholds: { upper: 'much' } }, /^migratefs: hot-spots\.thresholds\.upper: give a number.*\n$/],
    [
      { alerts: { listen: '127.0.0.1:0', 'token-file': '/none' } },
      /^migratefs: hot-spots: cannot read the token \/none: .*\n$/,
    ],
    [{ alerts: { listen: '0.0.0.0:0' } }, /^migratefs: will not serve the alert port on 0\.0\.0\.0:0 .*\n$/],
  ] as const) {
    writeFileSync(file, JSON.stringify(config));
    const { code, stderr } = await runCli(['mount', dir, ...ports, '--hot-spots', file]);
    t.equal(code, 1);
    t.match(stderr, message);
  }
});

t.test('a configuration file gives what the command line does not', async (t) => {
  const dir = scratchDir(t, 'mount');
  const file = join(dir, 'daemon.json');
  writeFileSync(file, JSON.stringify({ 'image-dir': dir, listen: '10.1.1.1:1', data: '10.2.2.2:2' }));
  t.match((await runCli(['mount', '--config', file])).stderr, /control port on 10\.1\.1\.1:1 /);
  const { stderr } = await runCli(['mount', '--config', file, '--listen', '127.0.0.1:0']);
  t.match(stderr, /data port on 10\.2\.2\.2:2 /, 'the command line wins, the rest of the file stays');
});

t.test('a log that cannot be written stops nothing', async (t) => {
  const dir = scratchDir(t, 'mount');
  const disk = join(scratchDir(t, 'log'), 'disk');
  await smallDisk(t, disk, 64 * 1024);
  const socket = createServer().listen(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address() as AddressInfo;
  socket.close();
  await once(socket, 'close');
  const server = `127.0.0.1:${port}`;
  const ports = `--listen ${server} --data 127.0.0.1:0`;
  const command = `exec "${process.execPath}" "${CLI}" mount "${dir}" ${ports} --log-level debug >"${disk}/log"`;
  await fillDisk(disk, 4096);
  const child = spawn(...unwatched('sh', ['-c', command]), { stdio: ['ignore', 'ignore', 'inherit'] });
  guardProcess(child.pid!);
  const ended = once(child, 'exit');
  const asked = (): Promise<RunResult> => runCli(['status', 'none', '--server', server]);
  await waitFor(async () => /no migration 'none'/.test((await asked()).stderr), 'it serves');
  for (let i = 0; i < 8; i++) t.match((await asked()).stderr, /no migration 'none'/);
  writeFileSync(join(dir, 'file'), 'written');
  rmSync(join(disk, 'ballast'));
  t.match((await asked()).stderr, /no migration 'none'/, 'also when there is room again');
  t.match(readFileSync(join(disk, 'log'), 'utf8').trimEnd().split('\n').at(-1), /"level"/, 'and says so');
  child.kill('SIGTERM');
  t.same(await ended, [0, null]);
  releaseProcess(child.pid!);
  t.equal(readFileSync(join(dir, 'file'), 'utf8'), 'written');
});

t.test('a directory that is not there is one line and exit code 1', async (t) => {
  const dir = join(scratchDir(t, 'mount'), 'none');
  const { code, stderr } = await runCli(['mount', dir, '--listen', '127.0.0.1:0', '--data', '127.0.0.1:0']);
  t.equal(code, 1);
  t.match(stderr, /^migratefs: .*none.*\n$/);
});
