/** A short, fixed piece of the long suite (`npm run test:posix`): the same operations, with seeds that never change. */
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/leaves/units.js';
import { concurrentTrees } from '../conformance/concurrent-trees.js';
import { FIO_PASSES, fioPassName, fioVerify } from '../conformance/fio-verify.js';
import { type FileAccess, RandomFile } from '../conformance/random-file.js';
import { TRANSPORTS } from '../posix/compare.js';
import { scratchDir } from '../support/scratch.js';
import { TestDaemon, type Transport } from '../support/test-daemon.js';

const SEED = 20_260;
const FIO_BYTES = 8 * MiB;
const FIO_BLOCK = 64 * 1024;
const ACCESSES: readonly FileAccess[] = ['buffered', 'direct', 'both', 'sync'];
/** fuse-native answers several times slower. */
const FILE_OPERATIONS: Readonly<Record<Transport, number>> = { kernel: 1500, 'fuse-native': 300 };
const TREE_OPERATIONS: Readonly<Record<Transport, number>> = { kernel: 500, 'fuse-native': 100 };

for (const transport of TRANSPORTS)
  void t.test(transport, async (t) => {
    const daemon = await TestDaemon.start(t, { transport });

    for (const access of ACCESSES)
      for (const mapped of [false, true])
        await t.test(`one file, ${access}${mapped ? ', mapped' : ''}`, async (t) => {
          const name = `${access}-${mapped}`;
          const operations = FILE_OPERATIONS[transport];
          const file = new RandomFile({
            path: daemon.at(name),
            backing: daemon.below(name),
            seed: SEED,
            operations,
            access,
            mapped,
            holes: transport === 'kernel',
          });
          t.teardown(() => file.close());
          t.doesNotThrow(() => file.run(operations));
          t.doesNotThrow(() => file.finish());
          const performed = Object.values(file.counts).reduce((sum, count) => sum + count, 0);
          t.equal(performed, operations, 'all operations were performed');
        });

    await t.test('trees that several processes change', async (t) => {
      const { faults, answers } = await concurrentTrees(daemon, {
        processes: 3,
        operations: TREE_OPERATIONS[transport],
        seed: SEED,
        folder: 'trees',
      });
      t.strictSame(faults, []);
      t.ok(answers['done']! > 0, 'calls in the shared tree have succeeded');
    });

    const plain = scratchDir(t, 'plain');
    for (const pass of FIO_PASSES) {
      if (pass.blockBytes !== FIO_BLOCK || pass.jobs !== (pass.engine === 'mmap' ? 1 : 4)) continue;
      // A container may forbid io_uring altogether.
      const refusal =
        pass.engine === 'io_uring' ? await fioVerify(join(plain, 'fio'), pass, FIO_BYTES, SEED) : '';
      await t.test(
        `fio verify, ${fioPassName(pass)}`,
        refusal ? { skip: `not in a plain folder either: ${refusal}` } : {},
        async (t) => t.equal(await fioVerify(daemon.at('fio'), pass, FIO_BYTES, SEED), ''),
      );
    }

    await daemon.stop();
  });
