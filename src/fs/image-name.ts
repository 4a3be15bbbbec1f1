import { MigrateFsError } from '../leaves/errors.js';

const IMAGE_NAME_BYTES_MAX = 4095;
const COMPONENT_BYTES_MAX = 255;

const invalid = (name: string, why: string): MigrateFsError =>
  new MigrateFsError(
    'INVALID_ARGUMENT',
    `image name ${JSON.stringify(name.slice(0, 256))} ${why}; give a path relative to the exported directory`,
  );

/**
 * The components of an image name: a relative path without `.`, `..`, empty components or NUL. At least one.
 * INVALID_ARGUMENT otherwise. Symlinks are the store's matter.
 */
export const parseImageName = (name: string): readonly string[] => {
  if (typeof name !== 'string' || name === '') throw invalid(String(name), 'is empty');
  if (name.startsWith('/')) throw invalid(name, 'is absolute');
  if (name.includes('\0')) throw invalid(name, 'contains NUL');
  if (Buffer.byteLength(name) > IMAGE_NAME_BYTES_MAX) throw invalid(name, 'is too long');
  const components = name.split('/');
  for (const component of components) {
    if (component === '..') throw invalid(name, 'contains ".."');
    if (component === '' || component === '.') throw invalid(name, 'has an empty or "." component');
    if (Buffer.byteLength(component) > COMPONENT_BYTES_MAX)
      throw invalid(name, 'has a component over 255 bytes');
  }
  return components;
};
