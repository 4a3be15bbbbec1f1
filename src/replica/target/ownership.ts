import { MigrateFsError } from '../../leaves/errors.js';
import type { MigrationTerms } from './migration-terms.js';
import type { TargetContext } from './target-context.js';
import type { TargetImage } from './target-image.js';

/** INVALID_ARGUMENT: not one generation for each image, the one after the source's own ownership. */
export const checkGenerations = (images: readonly TargetImage[], generations: readonly number[]): void => {
  if (generations.length !== images.length)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `cutover offer with ${generations.length} generations for ${images.length} images`,
    );
  images.forEach(({ name, generation }, index) => {
    const offered = generations[index]!;
    if (offered !== generation + 1)
      throw new MigrateFsError(
        'INVALID_ARGUMENT',
        `cutover offer of '${name}' with generation ${offered}, the source's was ${generation}`,
      );
  });
};

/**
 * Persists that this host owns the images, once every byte of every one is on stable storage: an owner's record on
 * any image proves that all are whole. Repeatable after an error.
 */
export const takeOwnership = async (
  { writeRecord }: Pick<TargetContext, 'writeRecord'>,
  terms: MigrationTerms,
  images: readonly TargetImage[],
  generations: readonly number[],
): Promise<void> => {
  await Promise.all(
    images.map(async (image) => {
      await image.drained();
      await image.file.datasync();
    }),
  );
  images.forEach(({ file }, index) => {
    writeRecord(file.fd, {
      role: 'owner',
      generation: generations[index]!,
      migration: terms.id,
      peer: terms.source,
      inode: 0,
    });
  });
};
