import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { controlFixture } from '../support/control-fixture.js';
import { CLI, runCli, runOk } from '../support/run.js';
import { scratchDir } from '../support/scratch.js';

interface Finding {
  readonly level: string;
  readonly what: string;
  readonly found: string;
  readonly remedy?: string;
}

const doctor = async (...args: string[]) => {
  const { code, stdout, stderr } = await runCli(['doctor', '--json', ...args]);
  const findings = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Finding);
  return { code, stderr, of: (what: string) => findings.find((finding) => finding.what === what) };
};

t.test('a host that runs these tests is fit, and nothing is left in the directory', async (t) => {
  const dir = scratchDir(t, 'doctor');
  const { code, stderr, of } = await doctor(dir, '--listen', '127.0.0.1:0', '--data', '127.0.0.1:0');
  t.equal(code, 0, stderr);
  for (const what of ['node', 'kernel', '/dev/fuse', 'rights', 'libc', 'control port', 'data port'])
    t.match(of(what)?.level, /ok|warn/, what);
  t.match(of('backing file system'), { level: 'ok' });
  t.same(readdirSync(dir), []);
});

t.test('a missing directory fails with the remedy, and exits with 1', async (t) => {
  const dir = join(scratchDir(t, 'doctor'), 'none');
  const { code, stderr, of } = await doctor(dir);
  t.equal(code, 1);
  t.match(of('image directory'), { level: 'fail', found: /ENOENT/, remedy: /create it/ });
  t.match(
    stderr,
    /^migratefs: this host is not ready: image directory, backing file system \(see above\)\n$/,
  );
});

t.test('a port that something else uses is a warning, our own daemon is not', async (t) => {
  const stranger = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
  t.teardown(() => stranger.close());
  await using fixture = await controlFixture();
  const taken = `127.0.0.1:${(stranger.address() as { port: number }).port}`;
  const { code, of } = await doctor('--listen', fixture.server.address, '--data', taken);
  t.equal(code, 0);
  t.match(of('control port'), { level: 'ok', found: /served by migratefs 0\.1\.0, pid 4242/ });
  t.match(of('data port'), { level: 'warn', found: /in use/, remedy: /--data/ });
});

t.test('without CAP_NET_ADMIN it says what that costs', async (t) => {
  const doctor = [CLI, 'doctor', '--json', '--listen=127.0.0.1:0', '--data=127.0.0.1:0'];
  const without = ['--bounding-set', '-net_admin', process.execPath, ...doctor];
  const { stdout } = await runOk('setpriv', without);
  // A host may have raised the limit.
  t.match(stdout, /"send buffers","found":"(without CAP_NET_ADMIN, )?net.core.wmem_max /);
});

t.test('lines for people begin with the level', async (t) => {
  const { stdout } = await runCli(['doctor', '--listen', '127.0.0.1:0', '--data', '127.0.0.1:0']);
  for (const line of stdout.trim().split('\n')) t.match(line, /^(ok {2}|warn|fail) {2}[a-z/]/);
});
