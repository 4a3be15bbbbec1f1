import type { ControlClient } from '../control/control-client.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { CutoverPolicy, MigrationSnapshot, MigrationState } from '../leaves/migration.js';
import { isFinal } from '../leaves/migration.js';
import type { Reporter } from './reporter.js';

const IN_SYNC: readonly MigrationState[] = ['mirroring', 'cutover', 'completed'];

/** What is up to the operator once both sides are equal. */
const IN_SYNC_HINTS: Readonly<Record<CutoverPolicy, (id: string) => string>> = {
  'on-first-write': (id) => `resume the VM on the target, or \`migratefs cutover ${id}\``,
  explicit: (id) => `hand over with \`migratefs cutover ${id}\`, then resume the VM on the target`,
  'when-in-sync': () => '',
};

interface FollowOptions {
  readonly reporter: Reporter;
  /** `in-sync`: stop at the first snapshot that is in sync or past it. */
  readonly until: 'in-sync' | 'end';
  /** What the error says to do when the daemon or the network to it is lost meanwhile. */
  readonly again: string;
}

/** Shows a migration until it ends, or is in sync; returns its last snapshot. */
export const follow = async (
  client: ControlClient,
  id: string,
  { reporter, until, again }: FollowOptions,
): Promise<MigrationSnapshot> => {
  let last: MigrationSnapshot | undefined;
  let told = false;
  try {
    for await (const snapshot of client.watch(id)) {
      last = snapshot;
      reporter.show(snapshot);
      if (until === 'in-sync' && IN_SYNC.includes(snapshot.state)) return snapshot;
      if (snapshot.state === 'mirroring' && !told) {
        told = true;
        const hint = IN_SYNC_HINTS[snapshot.cutover](id);
        if (hint && snapshot.role === 'source') reporter.note(`in sync: ${hint}`);
      }
    }
  } catch (error) {
    reporter.end();
    if (last && error instanceof MigrateFsError && error.code === 'UNAVAILABLE')
      throw new MigrateFsError('UNAVAILABLE', `lost the daemon at ${client.server}: ${again}`, {
        cause: error,
      });
    throw error;
  }
  if (!last || !isFinal(last.state))
    throw new MigrateFsError('UNAVAILABLE', `the daemon at ${client.server} stopped reporting: ${again}`);
  return last;
};

/** Throws unless the migration is completed; the message says why it is not. */
export const assertCompleted = ({ id, state, error }: MigrationSnapshot): void => {
  if (state === 'completed') return;
  if (state === 'cancelled') throw new MigrateFsError('CANCELLED', `migration ${id} was cancelled`);
  throw new MigrateFsError(
    error?.code ?? 'ABORTED',
    `migration ${id} is ${state}: ${error?.message ?? 'no reason given'}`,
  );
};
