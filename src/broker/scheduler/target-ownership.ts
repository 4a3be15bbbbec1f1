import { MigrateFsError } from '../../leaves/errors.js';
import type { ImageDescription } from '../../leaves/migration.js';
import type { HostControl } from './host-control.js';
import type { Task } from './task.js';

const generationOf = (image: ImageDescription | undefined): number | undefined =>
  image && 'generation' in image ? image.generation : undefined;

/** Whether the images of a task have been handed over, by the records of both sides. Undefined: they cannot be asked. */
export const targetOwns = async (
  hosts: HostControl,
  { source, target, images }: Task,
  signal: AbortSignal,
): Promise<boolean | undefined> => {
  try {
    const there = await hosts.describe(target, images, signal);
    if (!there.every((image) => 'role' in image && image.role === 'owner')) return false;
    // A file of that name that was there before is its own owner, too.
    const here = await hosts.describe(source, images, signal);
    return here.every(
      (image, at) =>
        'role' in image && image.role === 'fenced' && image.generation === generationOf(there[at]),
    );
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof MigrateFsError)) throw error;
    return undefined;
  }
};
