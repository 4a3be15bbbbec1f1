import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runCli } from '../support/run.js';
import { scratchDir } from '../support/scratch.js';

const expectUsage = async (t: Tap, args: string[], message: RegExp): Promise<void> => {
  const { code, stdout, stderr } = await runCli(args);
  t.equal(code, 2, args.join(' '));
  t.equal(stdout, '');
  t.match(stderr, message);
  t.match(stderr, /^migratefs: /);
};
type Tap = Pick<typeof t, 'equal' | 'match'>;

t.test('bad input exits with 2 and says what is accepted', async (t) => {
  const to = ['--to', 'b:7071'];
  await expectUsage(t, ['frobnicate'], /unknown command 'frobnicate'/);
  await expectUsage(t, ['migrate', ...to], /missing required argument 'image'/);
  await expectUsage(t, ['migrate', 'a'], /required option '--to <host:port>'/);
  await expectUsage(t, ['migrate', 'a', '--to', 'b'], /give HOST:PORT/);
  await expectUsage(t, ['migrate', 'a', '--to', 'b:0'], /port 0/);
  await expectUsage(t, ['migrate', 'a', ...to, '--net-limit', '50'], /KB\/s, MB\/s, GB\/s/);
  await expectUsage(t, ['migrate', 'a', ...to, '--disk-limit', 'fast'], /KiB\/s/);
  await expectUsage(t, ['migrate', 'a', ...to, '--deadline', 'soon'], /2h30m.*ISO time/);
  await expectUsage(t, ['migrate', 'a', ...to, '--priority', '10'], /0 to 9/);
  await expectUsage(
    t,
    ['migrate', 'a', ...to, '--cutover', 'never'],
    /explicit, on-first-write, when-in-sync/,
  );
  await expectUsage(t, ['migrate', 'a', ...to, '--until', 'then'], /in-sync, completed/);
  await expectUsage(t, ['scheduler'], /required option '--config <file>'/);
  await expectUsage(t, ['submit', 'vm1', 'a', '--from', 'x'], /required option '--to <host>'/);
  await expectUsage(t, ['submit', 'vm1', '--from', 'x', '--to', 'y'], /missing required argument 'image'/);
  await expectUsage(t, ['submit', 'v', 'a', '--from', 'x', '--to', 'y', '--danger', '1'], /above 1/);
  await expectUsage(t, ['tasks', '--state', 'gone'], /waiting, starting, copying/);
  await expectUsage(t, ['tasks', 't1', '--state', 'waiting'], /an id or --state/);
  await expectUsage(t, ['limit', 'm1'], /--net RATE, --disk RATE/);
  await expectUsage(t, ['status', '--server', 'nowhere'], /HOST:PORT/);
  await expectUsage(t, ['status', '', '--watch'], /'id'.*give an id, or leave it out/);
  await expectUsage(t, ['tasks', '', '--watch'], /'id'.*give an id, or leave it out/);
  await expectUsage(t, ['status', 'a', 'b'], /too many arguments/);
  await expectUsage(t, ['mount'], /missing required argument 'image-dir'/);
  await expectUsage(t, ['mount', '/tmp', '--workers', '0'], /1 to 64/);
  await expectUsage(t, ['mount', '/tmp', '--transport', 'nfs'], /kernel, fuse-native/);
  await expectUsage(t, ['mount', '/tmp', '--peer-timeout', '1ms'], /100ms to 10m/);
  await expectUsage(t, ['mount', '/tmp', '--block-size', '48KiB'], /power of two from 4KiB to 1MiB/);
});

t.test('a bad server in the environment is a usage error that names the variable', async (t) => {
  const { code, stderr } = await runCli(['status'], { env: { ...process.env, MIGRATEFS_SERVER: 'x' } });
  t.equal(code, 2);
  t.match(stderr, /MIGRATEFS_SERVER/);
});

t.test('every command has help with an example, on stdout, with exit code 0', async (t) => {
  const top = await runCli(['--help']);
  const names = [...top.stdout.matchAll(/^ {2}([a-z][a-z-]+) .*?\s{2,}\w/gm)].map(([, name]) => name!);
  t.same(names.filter((name) => !['help', 'migratefs'].includes(name)).sort(), [
    'cancel',
    'cutover',
    'doctor',
    'images',
    'limit',
    'migrate',
    'mount',
    'pause',
    'resume',
    'scheduler',
    'status',
    'submit',
    'task-cancel',
    'tasks',
    'unmount',
    'verify',
  ]);
  for (const name of [...names.filter((name) => !['help', 'migratefs'].includes(name))]) {
    const { code, stdout, stderr } = await runCli([name, '--help']);
    t.equal(code, 0, name);
    t.equal(stderr, '');
    t.match(stdout, new RegExp(`Examples?:\n  (id=\\$\\()?migratefs ${name}|Example:\n  migratefs migrate`));
  }
});

t.test('a configuration file is checked key by key', async (t) => {
  const file = join(scratchDir(t, 'config'), 'daemon.json');
  const expect = async (content: unknown, code: number, message: RegExp): Promise<void> => {
    writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
    const result = await runCli(['mount', '--config', file]);
    t.match(result.stderr, message);
    t.equal(result.code, code, JSON.stringify(content));
  };
  await expect({ 'image-dir': '/tmp', colour: 'red' }, 2, /daemon.json: unknown key 'colour'/);
  await expect({ 'image-dir': '/tmp', listen: 'x' }, 2, /'listen': not an address/);
  await expect({ 'image-dir': '/tmp', insecure: 'yes' }, 2, /'insecure' cannot be "yes"/);
  await expect({ 'image-dir': '/tmp', workers: [4] }, 2, /'workers' cannot be \[4\]/);
  await expect({ listen: '127.0.0.1:0' }, 2, /missing required argument 'image-dir'/);
  await expect('{"listen"', 1, /cannot read .*daemon.json: .*JSON/);
  await expect([], 1, /does not hold one JSON object/);
  await expect({ 'image-dir': '/tmp', 'hot-spots': '/none' }, 2, /'hot-spots': cannot read \/none/);
  await expect({ 'image-dir': '/tmp', 'hot-spots': null }, 2, /'hot-spots' cannot be null/);
  await expect({ 'image-dir': '/tmp', 'tls-ca': '/none' }, 1, /--tls-ca, --tls-cert and --tls-key/);
});
