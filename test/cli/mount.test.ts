import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { runCli } from '../support/run.js';
import { scratchDir } from '../support/scratch.js';

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

t.test('a directory that is not there is one line and exit code 1', async (t) => {
  const dir = join(scratchDir(t, 'mount'), 'none');
  const { code, stderr } = await runCli(['mount', dir, '--listen', '127.0.0.1:0', '--data', '127.0.0.1:0']);
  t.equal(code, 1);
  t.match(stderr, /^migratefs: .*none.*\n$/);
});
