/** Translation between the vocabulary of the program and the messages of proto/migratefs.proto. */
import type { ErrorCode } from '../leaves/errors.js';
import { MigrateFsError } from '../leaves/errors.js';
import type {
  CutoverPolicy,
  DaemonStatus,
  MigrationSnapshot,
  MigrationState,
  VerifyReport,
} from '../leaves/migration.js';
import { CUTOVER_POLICIES, MIGRATION_EDGES } from '../leaves/migration.js';
import type { TransferLoad } from '../leaves/time-left.js';
import type { BytesPerSecond } from '../leaves/units.js';
import { bytes, bytesPerSecond, generation, millis, UNLIMITED } from '../leaves/units.js';
import { linkMessage, linkOf } from './link-message.js';
import type {
  DaemonStatusMessage,
  MigrationMessage,
  TransferLoadMessage,
  VerifyReportMessage,
} from './wire.js';

const KB = 1000;
/** Ranges of one image in a VerifyReport. */
const MISMATCHES_MAX = 1000;

const STATES = Object.keys(MIGRATION_EDGES) as MigrationState[];

const enumName = (prefix: string, word: string): string =>
  `${prefix}_${word.toUpperCase().replaceAll('-', '_')}`;

const wordOf = <Word extends string>(
  prefix: string,
  words: readonly Word[],
  name: string,
): Word | undefined => words.find((word) => enumName(prefix, word) === name);

/** The answer came from a daemon that speaks a newer dialect than this client. */
const notUnderstood = (what: string, name: string): MigrateFsError =>
  new MigrateFsError('UNIMPLEMENTED', `the daemon reports ${what} ${name}, unknown here: update this client`);

export const stateName = (state: MigrationState): string => enumName('MIGRATION_STATE', state);

const stateOf = (name: string): MigrationState => {
  const state = wordOf('MIGRATION_STATE', STATES, name);
  if (!state) throw notUnderstood('state', name);
  return state;
};

export const cutoverName = (policy: CutoverPolicy): string => enumName('CUTOVER_POLICY', policy);

/** Undefined for a number this version does not know. */
export const cutoverOf = (name: string): CutoverPolicy | undefined =>
  name === 'CUTOVER_POLICY_UNSPECIFIED' ? 'on-first-write' : wordOf('CUTOVER_POLICY', CUTOVER_POLICIES, name);

/** KB/s as asked for: whole, and never rounded to 0, which would lift the limit. */
export const wholeKbPerS = (rate: BytesPerSecond): number => (rate === UNLIMITED ? 0 : Math.ceil(rate / KB));

const kbPerS = (rate: BytesPerSecond): number => (rate === UNLIMITED ? 0 : rate / KB);

/** `kb` is in KB/s; 0 is no limit. */
export const rateOfKb = (kb: number): BytesPerSecond => (kb === 0 ? UNLIMITED : bytesPerSecond(kb * KB));

const whole = (value: number | undefined): number | undefined =>
  value === undefined ? undefined : Math.round(value);

const loadMessage = (load: TransferLoad): TransferLoadMessage => ({
  leftBytes: load.left,
  allocatedBytes: load.allocated,
  networkKbPerS: load.netRate / KB,
  dirtyKbPerS: load.dirtyRate / KB,
  diskKbPerS: load.writeRate / KB,
  networkDeviationKbPerS: load.netDeviation / KB,
  dirtyDeviationKbPerS: load.dirtyDeviation / KB,
  converging: load.converging,
});

const loadOf = (message: TransferLoadMessage): TransferLoad => ({
  left: bytes(message.leftBytes),
  allocated: bytes(message.allocatedBytes),
  netRate: message.networkKbPerS * KB,
  dirtyRate: message.dirtyKbPerS * KB,
  writeRate: message.diskKbPerS * KB,
  netDeviation: message.networkDeviationKbPerS * KB,
  dirtyDeviation: message.dirtyDeviationKbPerS * KB,
  converging: message.converging,
});

export const migrationMessage = (snapshot: MigrationSnapshot): MigrationMessage => ({
  id: snapshot.id,
  role: enumName('ROLE', snapshot.role),
  state: stateName(snapshot.state),
  peer: snapshot.peer,
  images: snapshot.images.map((image) => ({
    name: image.name,
    sizeBytes: image.size,
    allocatedBytes: image.allocated,
    leftBytes: image.left,
    dirtyBytes: image.dirty,
    generation: image.generation,
  })),
  cutover: cutoverName(snapshot.cutover),
  priority: snapshot.priority,
  deadlineUnixMs: whole(snapshot.deadline),
  startedUnixMs: Math.round(snapshot.startedAt),
  endedUnixMs: whole(snapshot.endedAt),
  totalBytes: snapshot.bytesTotal,
  leftBytes: snapshot.bytesLeft,
  sentBytes: snapshot.bytesSent,
  resentBytes: snapshot.bytesResent,
  mirroredBytes: snapshot.bytesMirrored,
  networkKbPerS: snapshot.netRate / KB,
  diskKbPerS: snapshot.writeRate / KB,
  dirtyKbPerS: snapshot.dirtyRate / KB,
  networkLimitKbPerS: kbPerS(snapshot.netLimit),
  diskLimitKbPerS: kbPerS(snapshot.diskLimit),
  etaMs: whole(snapshot.eta),
  etaLowMs: whole(snapshot.etaLow),
  etaHighMs: whole(snapshot.etaHigh),
  load: snapshot.load && loadMessage(snapshot.load),
  error: snapshot.error && { ...snapshot.error },
  cutoverStallMs: snapshot.cutoverStall,
  operatorNetworkLimitKbPerS: kbPerS(snapshot.operatorNetLimit ?? UNLIMITED),
  operatorDiskLimitKbPerS: kbPerS(snapshot.operatorDiskLimit ?? UNLIMITED),
  brokerNetworkLimitKbPerS: kbPerS(snapshot.brokerNetLimit ?? UNLIMITED),
  brokerDiskLimitKbPerS: kbPerS(snapshot.brokerDiskLimit ?? UNLIMITED),
  requestId: snapshot.requestId ?? '',
});

/** A limit of an operator or a broker; absent when none is set. */
const setLimit = <Key extends string>(key: Key, kb: number): { readonly [K in Key]?: BytesPerSecond } =>
  kb === 0 ? {} : ({ [key]: rateOfKb(kb) } as { readonly [K in Key]: BytesPerSecond });

/** UNIMPLEMENTED: a state or policy this client does not know. */
export const snapshotOf = (message: MigrationMessage): MigrationSnapshot => {
  const cutover = cutoverOf(message.cutover);
  if (!cutover) throw notUnderstood('cutover policy', message.cutover);
  return {
    id: message.id,
    role: message.role === 'ROLE_TARGET' ? 'target' : 'source',
    state: stateOf(message.state),
    peer: message.peer,
    images: message.images.map((image) => ({
      name: image.name,
      size: bytes(image.sizeBytes),
      allocated: bytes(image.allocatedBytes),
      left: bytes(image.leftBytes),
      dirty: bytes(image.dirtyBytes),
      generation: generation(image.generation),
    })),
    cutover,
    priority: message.priority,
    startedAt: millis(message.startedUnixMs),
    bytesTotal: bytes(message.totalBytes),
    bytesLeft: bytes(message.leftBytes),
    bytesSent: bytes(message.sentBytes),
    bytesResent: bytes(message.resentBytes),
    bytesMirrored: bytes(message.mirroredBytes),
    netRate: message.networkKbPerS * KB,
    writeRate: message.diskKbPerS * KB,
    dirtyRate: message.dirtyKbPerS * KB,
    netLimit: rateOfKb(message.networkLimitKbPerS),
    diskLimit: rateOfKb(message.diskLimitKbPerS),
    ...(message.deadlineUnixMs !== undefined && { deadline: millis(message.deadlineUnixMs) }),
    ...(message.endedUnixMs !== undefined && { endedAt: millis(message.endedUnixMs) }),
    ...(message.etaMs !== undefined && { eta: millis(message.etaMs) }),
    ...(message.etaLowMs !== undefined && { etaLow: millis(message.etaLowMs) }),
    ...(message.etaHighMs !== undefined && { etaHigh: millis(message.etaHighMs) }),
    ...(message.load && { load: loadOf(message.load) }),
    ...(message.error && {
      error: { code: message.error.code as ErrorCode, message: message.error.message },
    }),
    ...(message.cutoverStallMs !== undefined && { cutoverStall: millis(message.cutoverStallMs) }),
    ...setLimit('operatorNetLimit', message.operatorNetworkLimitKbPerS),
    ...setLimit('operatorDiskLimit', message.operatorDiskLimitKbPerS),
    ...setLimit('brokerNetLimit', message.brokerNetworkLimitKbPerS),
    ...setLimit('brokerDiskLimit', message.brokerDiskLimitKbPerS),
    ...(message.requestId !== '' && { requestId: message.requestId }),
  };
};

export const verifyReportMessage = (report: VerifyReport): VerifyReportMessage => ({
  image: report.image,
  comparedBytes: report.bytesCompared,
  mismatches: report.mismatches
    .slice(0, MISMATCHES_MAX)
    .map(({ offset, length }) => ({ offsetBytes: offset, lengthBytes: length })),
  mismatchCount: report.mismatches.length,
});

/** A report as a client has it: `mismatchCount` counts also the ranges that the answer left out. */
export type ReceivedVerifyReport = VerifyReport & { readonly mismatchCount: number };

export const verifyReportOf = (message: VerifyReportMessage): ReceivedVerifyReport => ({
  image: message.image,
  bytesCompared: bytes(message.comparedBytes),
  mismatches: message.mismatches.map(({ offsetBytes, lengthBytes }) => ({
    offset: bytes(offsetBytes),
    length: bytes(lengthBytes),
  })),
  mismatchCount: message.mismatchCount,
});

export const statusMessage = ({ startedAt, links = [], ...status }: DaemonStatus): DaemonStatusMessage => ({
  ...status,
  startedUnixMs: Math.round(startedAt),
  links: links.map(linkMessage),
});

export const statusOf = (message: DaemonStatusMessage): DaemonStatus => ({
  version: message.version,
  pid: message.pid,
  hostname: message.hostname,
  imageDir: message.imageDir,
  mountpoint: message.mountpoint,
  transport: message.transport === 'fuse-native' ? 'fuse-native' : 'kernel',
  controlAddress: message.controlAddress,
  dataAddress: message.dataAddress,
  startedAt: millis(message.startedUnixMs),
  ...(message.links.length > 0 && { links: message.links.map(linkOf) }),
});
