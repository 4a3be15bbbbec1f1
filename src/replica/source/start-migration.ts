import { blockSizeFor } from '../../fs/dirty-bitmap.js';
import { foreignWriters } from '../../fs/foreign-writers.js';
import { probeRecord } from '../../fs/image-record.js';
import type { PinnedImage } from '../../fs/image-store.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { MigrationRequest } from '../../leaves/migration.js';
import { CUTOVER_POLICIES } from '../../leaves/migration.js';
import { millis } from '../../leaves/units.js';
import { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import { discardReplicas } from './discard.js';
import type { SourceEnvironment } from './environment.js';
import { FileImage } from './file-image.js';
import { greet } from './handshake.js';
import { SourceImage } from './source-image.js';
import type { Introduction } from './source-migration.js';
import { SourceMigration } from './source-migration.js';
import { failureOf } from './source-wire.js';

/** From connecting to the target's answer to hello. */
const ACCEPT_TIMEOUT = millis(5_000);
const PRIORITY_MAX = 9;
/** As many as a target takes. */
const IMAGES_MAX = 64;

type Hello = migratefs.data.Hello.$Properties;

export interface StartHooks {
  /** Routes the changes of an image to it; called before the image leaves mode `idle`. */
  readonly register: (image: SourceImage, migration: SourceMigration) => void;
  /** The migrations under way, to name the one in the way. */
  readonly active: () => readonly { readonly id: string; readonly images: readonly string[] }[];
}

/**
 * Starts a migration; resolves once the target has accepted it and the writers are tracked. On an error nothing is
 * left, on either side. Errors: INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION from what is asked for;
 * UNAVAILABLE for an unreachable target; what the target answers.
 */
export const startMigration = async (
  environment: SourceEnvironment,
  id: string,
  request: MigrationRequest,
  hooks: StartHooks,
): Promise<SourceMigration> => {
  checkRequest(environment, request);
  const pins: PinnedImage[] = [];
  try {
    for (const name of request.images) pins.push(await pinOwned(environment, name, hooks));
    await refuseForeignWriters(environment, request.images, pins);
    checkDeadline(environment, request, pins);
    checkRecords(id, request, pins);
    const hello = helloOf(environment, id, request, pins);
    const migration = new SourceMigration(environment, id, request, hello);
    const introduction = await introduce(environment, migration, request.target, hello);
    const images = pins.map((pinned, index) => sourceImage(environment, migration, index, pinned));
    try {
      for (const image of images) hooks.register(image, migration);
      for (const image of images) image.track(Number.isFinite(request.diskLimit));
      const slots = pins.map(({ slot }) => slot);
      await environment.grace.elapsed(slots, environment.turn);
    } catch (error) {
      for (const image of images) image.idle();
      migration.abandon();
      void discardReplicas(
        environment,
        migration.wire.detach(),
        request.target,
        hello,
        new AbortController().signal,
      );
      throw error;
    }
    migration.begin(images, introduction);
    return migration;
  } catch (error) {
    for (const { slot } of pins) await environment.store.release(slot, false);
    throw error;
  }
};

const checkRequest = ({ clock }: SourceEnvironment, request: MigrationRequest): void => {
  const { images, deadline, priority, cutover } = request;
  if (images.length === 0 || images.length > IMAGES_MAX)
    throw new MigrateFsError('INVALID_ARGUMENT', `give 1 to ${IMAGES_MAX} images, not ${images.length}`);
  if (new Set(images).size !== images.length)
    throw new MigrateFsError('INVALID_ARGUMENT', 'an image is named twice');
  if (!CUTOVER_POLICIES.includes(cutover))
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `cutover policy '${cutover}': give ${CUTOVER_POLICIES.join(', ')}`,
    );
  if (!Number.isInteger(priority) || priority < 0 || priority > PRIORITY_MAX)
    throw new MigrateFsError('INVALID_ARGUMENT', `priority ${priority}: give 0 to ${PRIORITY_MAX}`);
  if (deadline !== undefined && deadline <= clock.wall())
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `the deadline ${new Date(deadline).toISOString()} is in the past`,
    );
};

const pinOwned = async (
  { store }: SourceEnvironment,
  name: string,
  { active }: StartHooks,
): Promise<PinnedImage> => {
  const pinned = await store.pin(name).catch((error: unknown) => {
    if (!(error instanceof MigrateFsError) || error.code !== 'FAILED_PRECONDITION') throw error;
    const others = active();
    const same = others.find(({ images }) => images.includes(name));
    if (same)
      throw new MigrateFsError('FAILED_PRECONDITION', `image '${name}' is migrating already: ${same.id}`);
    // Two names of one file: in another migration, or in this very request.
    const ids = others.map(({ id }) => id).join(', ');
    if (ids === '') throw new MigrateFsError('INVALID_ARGUMENT', `${error.message}; is it named twice?`);
    throw new MigrateFsError('FAILED_PRECONDITION', `${error.message}; migrations under way: ${ids}`);
  });
  const { record } = pinned;
  if (!record || record.role === 'owner') return pinned;
  await store.release(pinned.slot, false);
  throw new MigrateFsError(
    'FAILED_PRECONDITION',
    record.role === 'fenced'
      ? `image '${name}' is owned by ${record.peer} since migration ${record.migration}: migrate it from there`
      : `image '${name}' is an unfinished replica of migration ${record.migration} from ${record.peer}`,
  );
};

/** What is written past the mount would be missing on the target, and nothing would keep its writer from going on. */
const refuseForeignWriters = async (
  { turn }: SourceEnvironment,
  names: readonly string[],
  pins: readonly PinnedImage[],
): Promise<void> => {
  const [first, ...others] = await foreignWriters(
    pins.map(({ fd }) => fd),
    turn,
  );
  if (!first) return;
  throw new MigrateFsError(
    'FAILED_PRECONDITION',
    `image '${names[first.file]}' is open for writing past the mount, by ${first.who}` +
      `${others.length > 0 ? ` and ${others.length} more` : ''}: close it there, then open it below the mount point ` +
      '(a VM that was started before the mount was made has to be started again)',
  );
};

/** Refuses what cannot be in time even if nothing is written meanwhile. */
const checkDeadline = (
  { clock }: SourceEnvironment,
  { deadline, netLimit }: MigrationRequest,
  pins: readonly PinnedImage[],
): void => {
  if (deadline === undefined || !Number.isFinite(netLimit)) return;
  const allocated = pins.reduce((sum, pinned) => sum + pinned.allocated, 0);
  const needed = allocated / netLimit;
  const given = (deadline - clock.wall()) / 1000;
  if (needed <= given) return;
  throw new MigrateFsError(
    'FAILED_PRECONDITION',
    `the deadline cannot be met: ${allocated} bytes at ${netLimit} bytes/s take ${needed.toFixed(1)} s, ` +
      `there are ${given.toFixed(1)} s`,
  );
};

/** The cutover is too late to find out that an image cannot be fenced. Errors: what writing the record would throw. */
const checkRecords = (id: string, { target }: MigrationRequest, pins: readonly PinnedImage[]): void => {
  const fenced = { role: 'fenced', generation: 1, migration: id, peer: target, inode: 0 } as const;
  for (const { fd, record } of pins) if (!record) probeRecord(fd, fenced);
};

const helloOf = (
  { instance, hostname, dataAddress, blockSize }: SourceEnvironment,
  id: string,
  { images, cutover, priority }: MigrationRequest,
  pins: readonly PinnedImage[],
): Hello => ({
  migrationId: id,
  sourceInstance: instance,
  sourceHost: hostname,
  sourceAddress: dataAddress(),
  purpose: migratefs.data.Hello.Purpose.START,
  images: pins.map(({ size, allocated, mode, uid, gid, record }, i) => ({
    name: images[i]!,
    size,
    allocated,
    mode: mode & 0o7777,
    uid,
    gid,
    generation: record?.generation ?? 0,
  })),
  cutover,
  priority,
  // Of the largest image; the target needs to know nothing of it.
  blockSize: blockSize ?? Math.max(...pins.map(({ size }) => blockSizeFor(size))),
});

/** Connects and says hello; the migration's wire is attached to the connection when this resolves. */
const introduce = async (
  environment: SourceEnvironment,
  migration: SourceMigration,
  target: string,
  hello: Hello,
): Promise<Introduction> => {
  const { clock, connect, instance } = environment;
  const late = new AbortController();
  const forget = clock.after(ACCEPT_TIMEOUT, () =>
    late.abort(
      new MigrateFsError('UNAVAILABLE', `${target} did not answer within ${ACCEPT_TIMEOUT / 1000} s`),
    ),
  );
  let connection: PeerConnection | undefined;
  try {
    connection = await connect(target, late.signal);
    const open = connection;
    const reply = await greet(connection, hello, late.signal, ({ failure, targetInstance }) => {
      if (!failure && targetInstance !== instance && !late.signal.aborted) migration.wire.attach(open);
    });
    if (reply.targetInstance === instance)
      throw new MigrateFsError(
        'INVALID_ARGUMENT',
        `${target} is this daemon itself: give the data address of another host`,
      );
    if (reply.failure) throw failureOf(reply.failure);
    late.signal.throwIfAborted();
    // It was accepted: that there is no stream is no reason to give up.
    forget();
    await migration.openStream(connection, reply.streamToken, late.signal);
    return { connection, adopted: reply.adopted, instance: reply.targetInstance };
  } catch (error) {
    migration.wire.detach();
    connection?.close();
    throw unreachable(target, error);
  } finally {
    forget();
  }
};

const unreachable = (target: string, error: unknown): unknown =>
  error instanceof MigrateFsError && error.code === 'UNAVAILABLE' && !error.message.startsWith('target:')
    ? new MigrateFsError(
        'UNAVAILABLE',
        `cannot reach ${target}: ${error.message}; is \`migratefs mount --data ${target}\` running there?`,
        { cause: error },
      )
    : error;

const sourceImage = (
  environment: SourceEnvironment,
  migration: SourceMigration,
  index: number,
  pinned: PinnedImage,
): SourceImage => {
  const { blockSize, table, calls, buffers, announce } = environment;
  const name = migration.request.images[index]!;
  return new SourceImage({
    index,
    name,
    pinned,
    blockSize,
    table,
    calls,
    port: new FileImage(pinned.fd, name),
    wire: migration.wire,
    buffers,
    counters: migration.progress,
    takeDisk: (amount, by) => migration.limits.disk.take(amount, 'write', by),
    takeNet: (amount, by) => migration.pacing.take(amount, 'write', by),
    mirrorWindow: migration.group.mirrorWindow,
    syncBothSides: () => migration.state === 'mirroring' || migration.state === 'cutover',
    announce,
    onProgress: () => migration.onProgress(),
    onSettled: (amount) => migration.onSettled(amount),
  });
};
