/**
 * What Alertmanager posts to a webhook, version 4 of its format
 * (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config).
 */
import { MigrateFsError } from '../../leaves/errors.js';

export interface Alert {
  /** The same for every message about this alert. */
  readonly fingerprint: string;
  readonly name: string;
  readonly link: string;
  readonly firing: boolean;
  /** Wall clock; absent: not known, as always while it fires. */
  readonly endsAt?: number;
}

interface AlertLabels {
  /** The label that names the link. */
  readonly label: string;
  readonly names: ReadonlyMap<string, string>;
}

const VERSION = '4';
const ALERTS_MAX = 4096;
const LABELS_MAX = 256;
const FINGERPRINT = /^[0-9a-f]{1,64}$/;

const malformed = (what: string): MigrateFsError =>
  new MigrateFsError('INVALID_ARGUMENT', `not a message of Alertmanager: ${what}`);

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const labelsOf = (value: unknown): Readonly<Record<string, string>> => {
  if (!isObject(value)) throw malformed('an alert without labels');
  const entries = Object.entries(value);
  if (entries.length > LABELS_MAX || !entries.every(([, text]) => typeof text === 'string'))
    throw malformed('labels that are not texts, or too many');
  return value as Record<string, string>;
};

/** Undefined: an alert without that label is about something else. */
const alertOf = (item: unknown, { label, names }: AlertLabels): Alert | undefined => {
  if (!isObject(item)) throw malformed('an alert that is not an object');
  const { status, fingerprint, endsAt } = item;
  if (status !== 'firing' && status !== 'resolved')
    throw malformed('an alert that is neither firing nor resolved');
  const labels = labelsOf(item['labels']);
  const value = Object.hasOwn(labels, label) ? labels[label]! : '';
  const link = names.get(value) ?? value;
  if (link === '') return undefined;
  const end = typeof endsAt === 'string' ? Date.parse(endsAt) : Number.NaN;
  return {
    fingerprint:
      typeof fingerprint === 'string' && FINGERPRINT.test(fingerprint)
        ? fingerprint
        : JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))),
    name: labels['alertname'] ?? 'without a name',
    link,
    firing: status === 'firing',
    // The zero time of Go stands for none.
    ...(end > 0 ? { endsAt: end } : {}),
  };
};

/** Reads a message; `ignored` counts alerts without the label of a link. INVALID_ARGUMENT: it is malformed. */
export const parseAlerts = (
  body: string,
  labels: AlertLabels,
): { readonly alerts: readonly Alert[]; readonly ignored: number } => {
  let message: unknown;
  try {
    message = JSON.parse(body);
  } catch (error) {
    throw malformed((error as Error).message);
  }
  if (!isObject(message)) throw malformed('not an object');
  const { version, alerts: items } = message;
  if (version !== VERSION)
    throw malformed(`version ${JSON.stringify(version)?.slice(0, 20)}; ${VERSION} is known`);
  if (!Array.isArray(items) || items.length > ALERTS_MAX)
    throw malformed(`no list of at most ${ALERTS_MAX} alerts`);
  const found = items.map((item) => alertOf(item, labels));
  const alerts = found.filter((alert) => alert !== undefined);
  return { alerts, ignored: found.length - alerts.length };
};
