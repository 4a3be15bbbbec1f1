import { MigrateFsError } from '../../leaves/errors.js';

/** INVALID_ARGUMENT: it does not end below 2^53. */
export const checkExtent = (offset: number, length: number): void => {
  if (
    !Number.isSafeInteger(offset) ||
    !Number.isSafeInteger(length) ||
    !Number.isSafeInteger(offset + length)
  )
    throw new MigrateFsError('INVALID_ARGUMENT', `extent out of range: offset ${offset}, length ${length}`);
};
