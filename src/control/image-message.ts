/** Translation between the description of an image and its message. */
import type { ErrorCode } from '../leaves/errors.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { ImageDescription } from '../leaves/migration.js';
import { bytes, generation } from '../leaves/units.js';
import type { ImageDescriptionMessage } from './wire.js';

const ROLES = {
  owner: 'IMAGE_ROLE_OWNER',
  fenced: 'IMAGE_ROLE_FENCED',
  replica: 'IMAGE_ROLE_REPLICA',
} as const;
type Role = keyof typeof ROLES;

const UNKNOWN = {
  sizeBytes: 0,
  allocatedBytes: 0,
  role: 'IMAGE_ROLE_UNSPECIFIED',
  generation: 0,
  peer: '',
  migrationId: '',
};

export const imageDescriptionMessage = (image: ImageDescription): ImageDescriptionMessage => {
  const { name } = image;
  if ('error' in image) return { ...UNKNOWN, name, error: image.error };
  return {
    name,
    sizeBytes: image.size,
    allocatedBytes: image.allocated,
    role: ROLES[image.role],
    generation: image.generation,
    peer: image.peer ?? '',
    migrationId: image.migrationId ?? '',
  };
};

/** UNIMPLEMENTED: a role this client does not know. */
export const imageDescriptionOf = (message: ImageDescriptionMessage): ImageDescription => {
  const { name, error, peer, migrationId } = message;
  if (error) return { name, error: { code: error.code as ErrorCode, message: error.message } };
  const role = (Object.keys(ROLES) as Role[]).find((each) => ROLES[each] === message.role);
  if (!role)
    throw new MigrateFsError(
      'UNIMPLEMENTED',
      `the daemon reports role ${message.role}, unknown here: update this client`,
    );
  return {
    name,
    size: bytes(message.sizeBytes),
    allocated: bytes(message.allocatedBytes),
    role,
    generation: generation(message.generation),
    ...(peer !== '' && { peer }),
    ...(migrationId !== '' && { migrationId }),
  };
};
