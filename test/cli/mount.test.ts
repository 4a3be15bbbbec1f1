import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
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
