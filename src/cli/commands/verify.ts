import { Command } from 'commander';
import type { ReceivedVerifyReport } from '../../control/migration-message.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { formatSize } from '../../leaves/quantity.js';
import { imageNameOf } from '../image-argument.js';
import type { ClientOptions } from '../option-parsers.js';
import { addClientOptions, withClient } from '../option-parsers.js';
import { toJson } from '../render.js';

const HELP = `
Reads every byte on both sides, so it takes as long as reading the images does. The migration must be in sync.
Exit code 1 when anything differs.

Examples:
  migratefs verify 7e9d59369d58
  migratefs verify vm1/root.qcow2`;

interface VerifyFlags extends ClientOptions {
  readonly json: boolean;
}

const line = ({ image, bytesCompared, mismatches, mismatchCount }: ReceivedVerifyReport): string =>
  mismatchCount === 0
    ? `${image}: identical, ${formatSize(bytesCompared)} compared`
    : `${image}: DIFFERS in ${mismatchCount} ranges of ${formatSize(bytesCompared)} compared, ` +
      `the first at offset ${mismatches[0]!.offset}, ${mismatches[0]!.length} bytes`;

const verify = async (what: string, flags: VerifyFlags): Promise<void> => {
  await withClient(flags, async (client) => {
    const isPath = /^(\/|\.\.?(\/|$))/.test(what);
    const reports = await client.verify(
      isPath ? imageNameOf(what, await client.status(), process.cwd()) : what,
    );
    for (const report of reports) console.log(flags.json ? toJson(report) : line(report));
    const differing = reports.filter(({ mismatchCount }) => mismatchCount > 0);
    if (differing.length > 0)
      throw new MigrateFsError(
        'DATA_LOSS',
        `source and target differ in ${differing.map(({ image }) => image).join(', ')}: do not cut over, ` +
          'cancel the migration and report this',
      );
  });
};

export const verifyCommand = (): Command =>
  addClientOptions(
    new Command('verify')
      .description('compare source and target of a migration byte by byte')
      .argument('<id|image>', 'a migration, or an image that is migrating')
      .option('--json', 'a line of JSON for each image', false),
  )
    .addHelpText('after', HELP)
    .action(verify);
