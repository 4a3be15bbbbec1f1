/** The configuration of the scheduler, as an operator writes it (docs/SCHEDULER.md). */
import { ConfigFields, configError } from '../../leaves/config-fields.js';
import type { HostPort } from '../../leaves/host-port.js';
import { parseHostPort } from '../../leaves/host-port.js';
import { NO_DRIVER } from '../../leaves/scheduler.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { HotSpotsConfig } from '../hot-spots/config.js';
import { hotSpotsConfigOf } from '../hot-spots/config.js';
import type { PlanLimits } from '../policy/task.js';
import type { DriverConfig } from './driver-config.js';
import { driversOf } from './driver-config.js';

export interface SchedulerConfig {
  readonly listen: HostPort;
  /** Folder of the queue; relative to the configuration file where it is relative, as every file of it. */
  readonly store: string;
  /** Path of the topology file, or the topology itself. */
  readonly topology: string | object;
  readonly plan: PlanLimits;
  readonly tasksMax: number;
  readonly attemptsMax: number;
  readonly movesPerHost: number;
  readonly answerWait: Millis;
  readonly vmmTime: Millis;
  readonly firstWriteWait: Millis;
  readonly drivers: readonly DriverConfig[];
  readonly defaultDriver: string;
  /** Path of a file of their own, or the configuration itself. */
  readonly hotSpots: string | HotSpotsConfig;
  readonly tlsFiles: {
    readonly ca?: string | undefined;
    readonly cert?: string | undefined;
    readonly key?: string | undefined;
  };
  readonly insecure: boolean;
}

const LISTEN_DEFAULT = '127.0.0.1:7080';
const [SECOND, DAY] = [1000, 86_400_000];
const ANSWER_WAIT_DEFAULT = millis(3600 * SECOND);
const VMM_TIME_DEFAULT = millis(10 * SECOND);
const FIRST_WRITE_DEFAULT = millis(30 * SECOND);

const whole = (fields: ConfigFields, key: string, min: number, max: number, fallback: number): number => {
  const value = fields.number(key, min, max, fallback);
  if (!Number.isInteger(value)) throw configError(`${fields.where}.${key}`, 'give a whole number');
  return value;
};

const topologyOf = (fields: ConfigFields): string | object => {
  const value = fields.raw('topology');
  if (typeof value === 'string' && value !== '') return value;
  if (typeof value === 'object' && value !== null) return value;
  throw configError(`${fields.where}.topology`, 'give the path of the topology file, or the topology itself');
};

/** The interfaces of the scheduler's host say nothing about those that migrations use. */
export const schedulerHotSpotsOf = (value: unknown): HotSpotsConfig => hotSpotsConfigOf(value, false);

const hotSpotsIn = (fields: ConfigFields): string | HotSpotsConfig => {
  const value = fields.raw('hot-spots') ?? {};
  return typeof value === 'string' && value !== '' ? value : schedulerHotSpotsOf(value);
};

const limitsOf = (
  fields: ConfigFields,
): Pick<
  SchedulerConfig,
  'plan' | 'tasksMax' | 'attemptsMax' | 'movesPerHost' | 'answerWait' | 'vmmTime' | 'firstWriteWait'
> => {
  const limits = {
    plan: {
      perHost: whole(fields, 'per-host', 1, 32, 2),
      perLink: whole(fields, 'per-link', 1, 256, 4),
      share: fields.number('share', 0.01, 1, 0.8),
    },
    tasksMax: whole(fields, 'tasks', 1, 100_000, 10_000),
    attemptsMax: whole(fields, 'attempts', 1, 100, 3),
    movesPerHost: whole(fields, 'moves-per-host', 1, 32, 1),
    answerWait: fields.duration('answer-wait', millis(SECOND), millis(DAY), ANSWER_WAIT_DEFAULT),
    vmmTime: fields.duration('vmm-time', millis(0), millis(DAY), VMM_TIME_DEFAULT),
    firstWriteWait: fields.duration('first-write-wait', millis(0), millis(DAY), FIRST_WRITE_DEFAULT),
  };
  fields.end();
  return limits;
};

/** Reads the value of a JSON configuration. INVALID_ARGUMENT names the place and what is accepted. */
export const schedulerConfigOf = (value: unknown): SchedulerConfig => {
  const fields = new ConfigFields('scheduler', value);
  const tls = fields.object('tls');
  const drivers = driversOf(fields.object('drivers'));
  const defaultDriver = fields.optionalText('default-driver') ?? NO_DRIVER;
  if (defaultDriver !== NO_DRIVER && !drivers.some(({ name }) => name === defaultDriver))
    throw configError(`${fields.where}.default-driver`, `there is no driver '${defaultDriver}'`);
  const config = {
    listen: parseHostPort(fields.optionalText('listen') ?? LISTEN_DEFAULT),
    store: fields.text('store'),
    topology: topologyOf(fields),
    ...limitsOf(fields.object('limits')),
    drivers,
    defaultDriver,
    hotSpots: hotSpotsIn(fields),
    tlsFiles: {
      ca: tls.optionalText('ca'),
      cert: tls.optionalText('cert'),
      key: tls.optionalText('key'),
    },
    insecure: fields.flag('insecure', false),
  };
  tls.end();
  fields.end();
  return config;
};
