import { MigrateFsError } from '../../leaves/errors.js';
import type { CutoverPolicy } from '../../leaves/migration.js';
import { CUTOVER_POLICIES } from '../../leaves/migration.js';
import type { Bytes, Generation } from '../../leaves/units.js';
import { bytes, generation } from '../../leaves/units.js';
import { PROTOCOL_VERSION } from '../wire/frame.js';
import { migratefs } from '../wire/generated/data.js';

const IMAGES_MAX = 64;
const ID_SHAPE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const ADDRESS_LENGTH_MAX = 300;
/** More than any image is handed over; beyond it what is counted up could not be counted any more. */
const GENERATION_MAX = 2 ** 32;
/** Characters of what is not understood, in a message. */
const QUOTED_MAX = 100;
/** Priorities run from 0 to 9. */
const PRIORITY_MAX = 9;
/** A replica never becomes set-user-ID or the like on this host because a peer says so. */
const PERMISSION_BITS = 0o777;

export type Purpose = 'start' | 'resume' | 'discard';

export interface ImageTerms {
  readonly name: string;
  readonly size: Bytes;
  readonly allocated: Bytes;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly generation: Generation;
}

/** What a source asks for, checked. Names are checked by the image store, which knows the directory. */
export interface MigrationTerms {
  readonly id: string;
  readonly purpose: Purpose;
  /** The source's data address, for records and messages. */
  readonly source: string;
  readonly images: readonly ImageTerms[];
  readonly cutover: CutoverPolicy;
  readonly priority: number;
}

const invalid = (what: string): MigrateFsError =>
  new MigrateFsError('INVALID_ARGUMENT', `unacceptable hello: ${what}`);

const purposeOf = (purpose: migratefs.data.Hello.Purpose): Purpose => {
  switch (purpose) {
    case migratefs.data.Hello.Purpose.START:
      return 'start';
    case migratefs.data.Hello.Purpose.RESUME:
      return 'resume';
    case migratefs.data.Hello.Purpose.DISCARD:
      return 'discard';
    default:
      throw invalid(`purpose ${purpose}`);
  }
};

const quoted = (text: string | null | undefined): string => `'${(text ?? '').slice(0, QUOTED_MAX)}'`;

const imageTerms = (image: migratefs.data.Image.$Properties): ImageTerms => {
  try {
    return {
      name: image.name ?? '',
      size: bytes(image.size ?? 0),
      allocated: bytes(image.allocated ?? 0),
      mode: (image.mode ?? 0) & PERMISSION_BITS,
      uid: image.uid ?? 0,
      gid: image.gid ?? 0,
      generation: generation(image.generation ?? 0),
    };
  } catch (error) {
    throw invalid(`image ${quoted(image.name)}: ${(error as Error).message}`);
  }
};

/** FAILED_PRECONDITION: another protocol version, both are named. INVALID_ARGUMENT: anything out of its range. */
export const readTerms = (hello: migratefs.data.Hello): MigrationTerms => {
  if (hello.protocolVersion !== PROTOCOL_VERSION)
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `protocol versions differ: the source speaks ${hello.protocolVersion}, this target speaks ${PROTOCOL_VERSION}; ` +
        'run the same release of MigrateFS on both hosts',
    );
  if (!ID_SHAPE.test(hello.migrationId)) throw invalid('migration id');
  if (hello.images.length === 0 || hello.images.length > IMAGES_MAX)
    throw invalid(`${hello.images.length} images, 1 to ${IMAGES_MAX} are possible`);
  const images = hello.images.map(imageTerms);
  if (new Set(images.map(({ name }) => name)).size !== images.length)
    throw invalid('an image is named twice');
  const old = images.find((image) => image.generation > GENERATION_MAX);
  if (old) throw invalid(`image ${quoted(old.name)} of generation ${old.generation}`);
  if (!Number.isSafeInteger(images.reduce((sum, { allocated }) => sum + allocated, 0)))
    throw invalid('more bytes than can be counted');
  const cutover = hello.cutover as CutoverPolicy;
  if (!CUTOVER_POLICIES.includes(cutover)) throw invalid(`cutover ${quoted(hello.cutover)}`);
  if (hello.priority > PRIORITY_MAX) throw invalid(`priority ${hello.priority}`);
  if (hello.sourceAddress.length > ADDRESS_LENGTH_MAX) throw invalid('source address');
  return {
    id: hello.migrationId,
    purpose: purposeOf(hello.purpose),
    source: hello.sourceAddress,
    images,
    cutover,
    priority: hello.priority,
  };
};
