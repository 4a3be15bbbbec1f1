import t from 'tap';
import type { MigrationRequest } from '../../src/leaves/migration.js';
import { bytes, generation } from '../../src/leaves/units.js';
import { controlFixture } from '../support/control-fixture.js';
import { runCli } from '../support/run.js';

const { control, server: fixture } = await controlFixture();
t.teardown(() => fixture.close());
const server = ['--server', fixture.address];

control.descriptions = [
  {
    name: 'vm1/a.raw',
    size: bytes(40_960),
    allocated: bytes(4096),
    role: 'fenced',
    generation: generation(2),
    peer: '10.0.0.2:7071',
  },
];

t.test('images shows who owns each, a path below the mount point included', async (t) => {
  const { code, stdout } = await runCli(['images', '/mnt/images/vm1/a.raw', 'vm1/b.raw', ...server]);
  t.equal(code, 0);
  t.strictSame(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/ {2,}/)),
    [
      ['IMAGE', 'ROLE', 'GENERATION', 'SIZE', 'PEER', 'MIGRATION'],
      ['vm1/a.raw', 'fenced', '2', '40.0 KiB', '10.0.0.2:7071', '-'],
      ['vm1/b.raw', 'NOT_FOUND', '-', '-', '-', '-', 'no image vm1/b.raw'],
    ],
  );
});

t.test('a name with control characters keeps to its line and does not steer the terminal', async (t) => {
  const { stdout } = await runCli(['images', 'vm1/a\n\u001b[2J.raw', ...server]);
  const lines = stdout.trimEnd().split('\n');
  t.equal(lines.length, 2);
  t.match(lines[1], /^vm1\/a\\x0a\\x1b\[2J\.raw {2}NOT_FOUND/);
  t.notOk(stdout.includes('\u001b'));
});

t.test('images --json is one line each, in the order asked for, however many', async (t) => {
  const names = Array.from({ length: 70 }, (_, index) => `vm1/${index}.raw`);
  const { stdout } = await runCli(['images', ...names, 'vm1/a.raw', '--json', ...server]);
  const found = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { name: string; role?: string; error?: { code: string } });
  t.strictSame(
    found.map(({ name }) => name),
    [...names, 'vm1/a.raw'],
  );
  t.equal(found[0]!.error?.code, 'NOT_FOUND');
  t.equal(found[70]!.role, 'fenced');
});

t.test('an image elsewhere is refused', async (t) => {
  const { code, stderr } = await runCli(['images', '/etc/passwd', ...server]);
  t.equal(code, 1);
  t.match(stderr, /^migratefs: \/etc\/passwd is not below \/mnt\/images/);
});

t.test('migrate --request-id passes the id on', async (t) => {
  const args = ['migrate', 'a', '--to', '127.0.0.1:7171', '--detach', '--request-id', 'one-7-3', ...server];
  t.equal((await runCli(args)).code, 0);
  const [, request] = control.calls.find((call) => (call as unknown[])[0] === 'start') as [
    string,
    MigrationRequest,
  ];
  t.equal(request.requestId, 'one-7-3');
});
