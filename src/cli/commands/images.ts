import { Command } from 'commander';
import type { ImageDescription } from '../../leaves/migration.js';
import { formatSize } from '../../leaves/quantity.js';
import { imageNameOf } from '../image-argument.js';
import type { ClientOptions } from '../option-parsers.js';
import { addClientOptions, withClient } from '../option-parsers.js';
import { table, toJson } from '../render.js';

/** What the daemon answers in one call. */
const NAMES_PER_CALL = 64;

const HELP = `
An owner accepts writes; a fenced image was taken over by the peer; a replica is an unfinished copy, sent by the peer. An
image that does not exist, or cannot be used, has an error instead. Exit code 0 in any of these cases.

Examples:
  migratefs images vm1/root.qcow2
  migratefs images /var/lib/images/vm1/* --json`;

interface ImagesFlags extends ClientOptions {
  readonly json: boolean;
}

const row = (image: ImageDescription): string[] =>
  'error' in image
    ? [image.name, image.error.code, '-', '-', '-', '-', image.error.message]
    : [
        image.name,
        image.role,
        String(image.generation),
        formatSize(image.size),
        image.peer ?? '-',
        image.migrationId ?? '-',
        '',
      ];

const images = async (given: readonly string[], flags: ImagesFlags): Promise<void> => {
  await withClient(flags, async (client) => {
    const daemon = await client.status();
    const names = given.map((image) => imageNameOf(image, daemon, process.cwd()));
    const found: ImageDescription[] = [];
    for (let index = 0; index < names.length; index += NAMES_PER_CALL)
      found.push(...(await client.describeImages(names.slice(index, index + NAMES_PER_CALL))));
    if (flags.json) for (const image of found) console.log(toJson(image));
    else
      console.log(
        table([['IMAGE', 'ROLE', 'GENERATION', 'SIZE', 'PEER', 'MIGRATION', ''], ...found.map(row)]),
      );
  });
};

export const imagesCommand = (): Command =>
  addClientOptions(
    new Command('images')
      .description('show who owns images')
      .argument('<image...>', 'names, or paths below the mount point')
      .option('--json', 'a line of JSON for each image', false),
  )
    .addHelpText('after', HELP)
    .action(images);
