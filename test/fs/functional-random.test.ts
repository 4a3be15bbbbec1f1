import t from 'tap';
import { compareTransports } from '../posix/compare.js';
import { randomData } from '../posix/random-data.js';
import { randomNames } from '../posix/random-names.js';
import { seedFromEnvironment } from '../support/random.js';
import type { Transport } from '../support/test-daemon.js';

const NAME_OPERATIONS = 10_000;
/** fuse-native answers several times slower. */
const DATA_OPERATIONS: Readonly<Record<Transport, number>> = { kernel: 20_000, 'fuse-native': 5_000 };

const seed = seedFromEnvironment();
t.comment(`seed ${seed}: replay with MIGRATEFS_SEED=${seed}`);

compareTransports((transport) => {
  const libfuse2 = transport === 'fuse-native';
  return {
    [`operations on names, seed ${seed}`]: (w) =>
      randomNames(w, { seed, operations: NAME_OPERATIONS, libfuse2 }),
    [`operations on data, seed ${seed}`]: (w) =>
      randomData(w, { seed, operations: DATA_OPERATIONS[transport], holes: !libfuse2 }),
  };
});
