/** Translation between the vocabulary of brokers and the messages of proto/broker.proto; requests are checked. */
import type {
  BackOffAnswer,
  BackOffRequest,
  BrokerChoice,
  BrokerSnapshot,
  BrokerTerms,
  BrokerZone,
  PathLink,
  Sharer,
} from '../leaves/broker.js';
import { MigrateFsError } from '../leaves/errors.js';
import { parseHostPort } from '../leaves/host-port.js';
import type { BytesPerSecond, Millis } from '../leaves/units.js';
import { bytes, millis, UNLIMITED } from '../leaves/units.js';
import type {
  BackOffRequestMessage,
  BrokerMessage,
  BrokerTermsMessage,
  PathLinkMessage,
  SharerMessage,
} from './broker-wire.js';
import { rateOfKb, wholeKbPerS } from './migration-message.js';

const KB = 1000;
const RATIO_MAX = 1000;
const PERIOD_MIN = 100;
const PERIOD_MAX = 600_000;
const QUIET_PERIODS_MAX = 1000;
const RATE_KB_PER_S_MAX = 1e9;
const VMM_TIME_MAX = 86_400_000;
const PATH_LINKS_MAX = 64;
/** Of one link. */
const SHARERS_MAX = 256;
/** Characters of an id or of the name of a link. */
const NAME_LENGTH_MAX = 128;
const VALID_FOR_MAX = 600_000;

const invalid = (message: string): MigrateFsError => new MigrateFsError('INVALID_ARGUMENT', message);

/** A number from `min` to `max` of a message; undefined stays undefined. */
const within = (name: string, value: number | undefined, min: number, max: number): number | undefined => {
  if (value !== undefined && !(value >= min && value <= max))
    throw invalid(`${name} of ${value} is out of range: ${min} to ${max}`);
  return value;
};

const checkedName = (name: string, value: string): string => {
  if (value === '' || value.length > NAME_LENGTH_MAX || /\p{Cc}/u.test(value))
    throw invalid(`${name} is not 1 to ${NAME_LENGTH_MAX} printable characters`);
  return value;
};

export const checkedMigrationId = (id: string): string => checkedName('migration_id', id);

const rate = (name: string, kb: number | undefined): BytesPerSecond | undefined =>
  within(name, kb, 1, RATE_KB_PER_S_MAX) === undefined ? undefined : rateOfKb(kb!);

const duration = (name: string, ms: number | undefined, min: number, max: number): Millis | undefined =>
  within(name, ms, min, max) === undefined ? undefined : millis(ms!);

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** INVALID_ARGUMENT: a term out of range. */
export const brokerChoiceOf = (message: BrokerTermsMessage): BrokerChoice => {
  if (message.off) return 'off';
  const danger = within('danger', message.danger, 1, RATIO_MAX);
  const warning = within('warning', message.warning, 1, RATIO_MAX);
  if (danger === 1 || warning === 1)
    throw invalid('danger or warning of 1 is out of range: give a ratio above 1, such as 3 for 300 %');
  if (danger !== undefined && warning !== undefined && warning < danger)
    throw invalid(`the warning ratio ${warning} is below the danger ratio ${danger}`);
  const terms: Mutable<{ [K in keyof BrokerTerms]?: BrokerTerms[K] | undefined }> = {
    danger,
    warning,
    important: message.important || undefined,
    period: duration('period_ms', message.periodMs, PERIOD_MIN, PERIOD_MAX),
    quietPeriods: within('quiet_periods', message.quietPeriods, 0, QUIET_PERIODS_MAX),
    step: rate('step_kb_per_s', message.stepKbPerS),
    floor: rate('floor_kb_per_s', message.floorKbPerS),
    diskFloor: rate('disk_floor_kb_per_s', message.diskFloorKbPerS),
    vmmTime: duration('vmm_time_ms', message.vmmTimeMs, 0, VMM_TIME_MAX),
  };
  for (const key of Object.keys(terms) as (keyof BrokerTerms)[])
    if (terms[key] === undefined) delete terms[key];
  return terms as Partial<BrokerTerms>;
};

export const brokerTermsMessage = (choice: BrokerChoice): BrokerTermsMessage => {
  if (choice === 'off') return { off: true };
  const { danger, warning, important, period, quietPeriods, step, floor, diskFloor, vmmTime } = choice;
  return {
    important: important ?? false,
    ...(danger !== undefined && { danger }),
    ...(warning !== undefined && { warning }),
    ...(period !== undefined && { periodMs: Math.round(period) }),
    ...(quietPeriods !== undefined && { quietPeriods }),
    ...(step !== undefined && { stepKbPerS: wholeKbPerS(step) }),
    ...(floor !== undefined && { floorKbPerS: wholeKbPerS(floor) }),
    ...(diskFloor !== undefined && { diskFloorKbPerS: wholeKbPerS(diskFloor) }),
    ...(vmmTime !== undefined && { vmmTimeMs: Math.round(vmmTime) }),
  };
};

const sharerOf = ({ server, migrationId }: SharerMessage): Sharer => {
  if (parseHostPort(server).port === 0) throw invalid(`the sharer's server ${server} has no port`);
  return { server, migrationId: checkedName("a sharer's migration_id", migrationId) };
};

const linkOf = ({ link, capacityKbPerS, sharers }: PathLinkMessage): PathLink => {
  checkedName('link', link);
  if (sharers.length > SHARERS_MAX)
    throw invalid(`link ${link} has ${sharers.length} sharers: at most ${SHARERS_MAX}`);
  const capacity = rate('capacity_kb_per_s', capacityKbPerS);
  return { link, sharers: sharers.map(sharerOf), ...(capacity !== undefined && { capacity }) };
};

/** INVALID_ARGUMENT: too long, a bad name or address, a link twice. */
export const pathOf = (messages: readonly PathLinkMessage[]): readonly PathLink[] => {
  if (messages.length > PATH_LINKS_MAX)
    throw invalid(`a path of ${messages.length} links: at most ${PATH_LINKS_MAX}`);
  const path = messages.map(linkOf);
  if (new Set(path.map(({ link }) => link)).size !== path.length)
    throw invalid('a link is twice in the path');
  return path;
};

export const pathMessage = (path: readonly PathLink[]): readonly PathLinkMessage[] =>
  path.map(({ link, capacity, sharers }) => ({
    link,
    sharers,
    ...(capacity !== undefined && { capacityKbPerS: wholeKbPerS(capacity) }),
  }));

const ZONES: Readonly<Record<BrokerZone, string>> = {
  calm: 'BROKER_ZONE_CALM',
  warning: 'BROKER_ZONE_WARNING',
  danger: 'BROKER_ZONE_DANGER',
};

const ANSWERS: Readonly<Record<BackOffAnswer, string>> = {
  obeyed: 'ANSWER_OBEYED',
  'in-danger': 'ANSWER_IN_DANGER',
  ended: 'ANSWER_ENDED',
};

/** The daemon speaks a newer dialect than this client. */
const keyOf = <Key extends string>(names: Readonly<Record<Key, string>>, name: string): Key => {
  const key = (Object.keys(names) as Key[]).find((candidate) => names[candidate] === name);
  if (key === undefined)
    throw new MigrateFsError('UNIMPLEMENTED', `the daemon reports ${name}, unknown here: update this client`);
  return key;
};

const kbPerS = (limit: BytesPerSecond): number => (limit === UNLIMITED ? 0 : limit / KB);

export const brokerMessage = (snapshot: BrokerSnapshot): BrokerMessage => ({
  migrationId: snapshot.migrationId,
  terms: brokerTermsMessage({ ...snapshot.terms, period: snapshot.period }),
  path: pathMessage(snapshot.path),
  zone: ZONES[snapshot.zone],
  ...(snapshot.ratio !== undefined && { ratio: snapshot.ratio }),
  networkLimitKbPerS: kbPerS(snapshot.netLimit),
  diskLimitKbPerS: kbPerS(snapshot.diskLimit),
  hotLinks: snapshot.hotLinks,
  askedBy: snapshot.askedBy,
  leftBytes: snapshot.bytesLeft,
  reason: snapshot.reason,
  ...(snapshot.decidedAt !== undefined && { decidedUnixMs: Math.round(snapshot.decidedAt) }),
  decisions: snapshot.decisions,
  ended: snapshot.ended,
});

const termsOf = (message: BrokerTermsMessage): BrokerTerms => ({
  danger: message.danger ?? Number.NaN,
  warning: message.warning ?? Number.NaN,
  important: message.important ?? false,
  period: millis(message.periodMs ?? 0),
  quietPeriods: message.quietPeriods ?? 0,
  step: rateOfKb(message.stepKbPerS ?? 0),
  floor: rateOfKb(message.floorKbPerS ?? 0),
  diskFloor: rateOfKb(message.diskFloorKbPerS ?? 0),
  vmmTime: millis(message.vmmTimeMs ?? 0),
});

/** UNIMPLEMENTED: a zone this client does not know. */
export const brokerSnapshotOf = (message: BrokerMessage): BrokerSnapshot => {
  const terms = termsOf(message.terms ?? {});
  return {
    migrationId: message.migrationId,
    terms,
    period: terms.period ?? millis(0),
    path: message.path.map(({ link, capacityKbPerS, sharers }) => ({
      link,
      sharers: sharers.map(({ server, migrationId }) => ({ server, migrationId })),
      ...(capacityKbPerS !== undefined && { capacity: rateOfKb(capacityKbPerS) }),
    })),
    zone: keyOf(ZONES, message.zone),
    ...(message.ratio !== undefined && { ratio: message.ratio }),
    netLimit: rateOfKb(message.networkLimitKbPerS),
    diskLimit: rateOfKb(message.diskLimitKbPerS),
    hotLinks: message.hotLinks,
    askedBy: message.askedBy,
    bytesLeft: bytes(message.leftBytes),
    reason: message.reason,
    ...(message.decidedUnixMs !== undefined && { decidedAt: millis(message.decidedUnixMs) }),
    decisions: message.decisions,
    ended: message.ended,
  };
};

/** INVALID_ARGUMENT: a field is missing or out of range. */
export const backOffRequestOf = (message: BackOffRequestMessage): BackOffRequest => {
  if (!Number.isFinite(message.ratio)) throw invalid('ratio is not a finite number');
  return {
    migrationId: checkedMigrationId(message.migrationId),
    from: checkedName('from', message.from),
    link: checkedName('link', message.link),
    validFor: duration('valid_for_ms', message.validForMs, 1, VALID_FOR_MAX)!,
    ratio: message.ratio,
  };
};

export const backOffRequestMessage = (request: BackOffRequest): BackOffRequestMessage => ({
  migrationId: request.migrationId,
  from: request.from,
  link: request.link,
  validForMs: Math.max(1, Math.round(request.validFor)),
  ratio: request.ratio,
});

export const backOffAnswerName = (answer: BackOffAnswer): string => ANSWERS[answer];

export const backOffAnswerOf = (name: string): BackOffAnswer => keyOf(ANSWERS, name);
