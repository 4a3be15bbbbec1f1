/** Runs cases below a mount and in a plain folder of the same file system, and compares the transcripts. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon, type Transport } from '../support/test-daemon.js';
import { type Case, type Cases, Workbench } from './workbench.js';

/** Case name to the reason why a transport cannot pass it. */
export type Exclusions = Readonly<Record<string, string>>;

export const TRANSPORTS: readonly Transport[] = ['kernel', 'fuse-native'];

/** ext4 keeps the list of more than four extents in a block of its own, and the free space decides how many there are. */
const EXTENT_LIST_BYTES = 4096;

const performed = (body: Case, parent: string, folder: string): Workbench => {
  const bench = new Workbench(join(parent, folder));
  mkdirSync(bench.folder);
  try {
    body(bench);
  } finally {
    bench.closeAll();
  }
  return bench;
};

/** One test for each case: what the mount answered equals what the plain folder answered. */
export const runCases = (
  test: typeof t,
  cases: Cases,
  mount: string,
  plain: string,
  exclusions: Exclusions,
): void => {
  let number = 0;
  for (const [name, body] of Object.entries(cases)) {
    const folder = `case-${number++}`;
    const skip = exclusions[name];
    void test.test(name, skip === undefined ? {} : { skip }, async (t) => {
      const wanted = performed(body, plain, folder);
      t.ok(wanted.transcript.length > 0, 'the case calls something');
      t.strictSame(wanted.faults, [], 'the plain folder answers what the case expects');
      const found = performed(body, mount, folder);
      t.strictSame(found.transcript, wanted.transcript, 'the mount answers like a plain folder');
      const farOff = wanted.allocations.filter(
        (bytes, i) => !(Math.abs(found.allocations[i]! - bytes) <= EXTENT_LIST_BYTES),
      );
      t.strictSame(farOff, [], `as much is allocated: ${found.allocations} for ${wanted.allocations} bytes`);
    });
  }
};

/** The cases through both transports, each with a daemon of its own. */
export const compareTransports = (
  casesFor: (transport: Transport) => Cases,
  exclusions: Readonly<Partial<Record<Transport, Exclusions>>> = {},
): void => {
  for (const transport of TRANSPORTS) {
    void t.test(transport, async (t) => {
      const cases = casesFor(transport);
      const plain = scratchDir(t, 'plain');
      const daemon = await TestDaemon.start(t, { transport });
      await t.test('cases', async (t) =>
        runCases(t as typeof import('tap').t, cases, daemon.mountpoint, plain, exclusions[transport] ?? {}),
      );
      await daemon.stop();
    });
  }
};
