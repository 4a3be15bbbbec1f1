/** The hypervisor drivers of the scheduler's configuration (docs/SCHEDULER.md). */
import { type ConfigFields, configError } from '../../leaves/config-fields.js';
import { NO_DRIVER } from '../../leaves/scheduler.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { LibvirtSettings } from '../hypervisor/libvirt-driver.js';
import type { QemuSettings } from '../hypervisor/qemu-driver.js';
import { parseQmpAddress } from '../hypervisor/qmp.js';
import type { ExecSettings } from './exec-driver.js';

export type DriverConfig = ExecDriverConfig | QemuDriverConfig | LibvirtDriverConfig;

interface Named<Type extends string> {
  readonly type: Type;
  readonly name: string;
}

type ExecDriverConfig = Named<'exec'> & ExecSettings;
type LibvirtDriverConfig = Named<'libvirt'> & LibvirtSettings;
type QemuDriverConfig = Named<'qemu'> &
  QemuSettings & {
    /** Starts the QEMU on the target. */
    readonly start?: readonly string[];
  };

const [SECOND, MINUTE, DAY] = [1000, 60_000, 86_400_000];
const ARGUMENTS_MAX = 64;
const CAPABILITIES_MAX = 16;
const DRIVERS_MAX = 64;
const DRIVER_NAME = /^[a-z][a-z0-9-]{0,31}$/;
const CAPABILITY = /^[a-z][a-z0-9-]{0,63}$/;
const PLACEHOLDER = /\{(?!(?:vm|source|target)\})[^}]*\}?/;
/** Those of QEMU that start no program. */
const MIGRATION_URI = /^(?:tcp:.+:\d{1,5}|unix:\/.+)$/;
/** Such as `qemu+ssh://root@host/system`: to another machine, or through a socket. */
const LIBVIRT_URI = /^qemu(?:\+[a-z]+)?:\/\/\S*\/\S+$/;
const RAM_URI = /^(?:tcp|rdma|unix):\/\/\S+$/;
/** What changes neither storage nor which of two hosts has the VM after a failure. */
const LIBVIRT_OPTIONS = ['--auto-converge', '--compressed', '--parallel', '--tls', '--tunnelled'];
const VIRSH_DEFAULT = '/usr/bin/virsh';
const TIMEOUT_DEFAULT = millis(10 * MINUTE);

const commandOf = (fields: ConfigFields, key: string): readonly string[] => {
  const value = fields.raw(key);
  const fits =
    Array.isArray(value) &&
    value.length > 0 &&
    value.length <= ARGUMENTS_MAX &&
    value.every((part) => typeof part === 'string' && !part.includes('\0')) &&
    (value[0] as string).startsWith('/');
  if (!fits)
    throw configError(
      `${fields.where}.${key}`,
      `give a list of 1 to ${ARGUMENTS_MAX} texts: the program by its absolute path, and its arguments`,
    );
  return value as string[];
};

/** An address in which `{vm}`, `{source}` and `{target}` stand for the names in the task. */
const patternOf = (fields: ConfigFields, key: string): string => {
  const text = fields.text(key);
  const unknown = PLACEHOLDER.exec(text)?.[0];
  if (unknown !== undefined)
    throw configError(
      `${fields.where}.${key}`,
      `'${unknown}' stands for nothing: give {vm}, {source} or {target}`,
    );
  return text;
};

const monitorOf = (fields: ConfigFields, key: string): string => {
  const text = patternOf(fields, key);
  try {
    parseQmpAddress(text.replace(/\{[a-z]+\}/g, 'name'));
  } catch (error) {
    throw configError(`${fields.where}.${key}`, (error as Error).message);
  }
  return text;
};

const migrationOf = (fields: ConfigFields): string => {
  const text = patternOf(fields, 'migrate');
  if (!MIGRATION_URI.test(text))
    throw configError(
      `${fields.where}.migrate`,
      `not a way to send a VM: '${text}'; give tcp:HOST:PORT or unix:/PATH`,
    );
  return text;
};

const capabilitiesOf = (fields: ConfigFields): readonly string[] => {
  const value = fields.raw('capabilities') ?? [];
  const fits =
    Array.isArray(value) &&
    value.length <= CAPABILITIES_MAX &&
    value.every((name) => typeof name === 'string' && CAPABILITY.test(name));
  if (!fits)
    throw configError(
      `${fields.where}.capabilities`,
      `give a list of at most ${CAPABILITIES_MAX} names of migration capabilities of QEMU`,
    );
  return value as string[];
};

const uriOf = (fields: ConfigFields, key: string, form: RegExp, example: string): string => {
  const text = patternOf(fields, key);
  if (!form.test(text))
    throw configError(`${fields.where}.${key}`, `cannot be used: '${text}'; give a URI such as ${example}`);
  return text;
};

const connectionOf = (fields: ConfigFields, key: string): string =>
  uriOf(fields, key, LIBVIRT_URI, `qemu+ssh://root@{${key === 'source' ? 'source' : 'target'}}/system`);

const libvirtOptionsOf = (fields: ConfigFields): readonly string[] => {
  const value = fields.raw('options') ?? [];
  const fits = Array.isArray(value) && value.every((option) => LIBVIRT_OPTIONS.includes(option));
  if (!fits)
    throw configError(`${fields.where}.options`, `give a list of any of ${LIBVIRT_OPTIONS.join(', ')}`);
  return [...new Set(value as string[])];
};

const absoluteOf = (fields: ConfigFields, key: string, fallback: string): string => {
  const path = fields.optionalText(key) ?? fallback;
  if (!path.startsWith('/')) throw configError(`${fields.where}.${key}`, 'give an absolute path');
  return path;
};

const libvirtOf = (fields: ConfigFields, name: string, timeout: Millis): LibvirtDriverConfig => {
  const target = connectionOf(fields, 'target');
  return {
    ...{ type: 'libvirt', name, timeout, target },
    source: connectionOf(fields, 'source'),
    peer: fields.has('peer') ? connectionOf(fields, 'peer') : target,
    ...(fields.has('migrate-uri') && {
      migrateUri: uriOf(fields, 'migrate-uri', RAM_URI, 'tcp://{target}'),
    }),
    domain: fields.has('domain') ? patternOf(fields, 'domain') : '{vm}',
    options: libvirtOptionsOf(fields),
    ...(fields.has('downtime') && {
      downtime: fields.duration('downtime', millis(1), millis(MINUTE), millis(0)),
    }),
    otherDisks: fields.flag('other-disks', false),
    virsh: absoluteOf(fields, 'virsh', VIRSH_DEFAULT),
  };
};

const qemuOf = (fields: ConfigFields, name: string, timeout: Millis): QemuDriverConfig => ({
  ...{ type: 'qemu', name, timeout },
  source: monitorOf(fields, 'source'),
  target: monitorOf(fields, 'target'),
  migrate: migrationOf(fields),
  capabilities: capabilitiesOf(fields),
  ...(fields.has('start') && { start: commandOf(fields, 'start') }),
});

const execOf = (fields: ConfigFields, name: string, timeout: Millis): ExecDriverConfig => ({
  ...{ type: 'exec', name, timeout },
  command: commandOf(fields, 'command'),
  ...(fields.has('rollback') && { rollback: commandOf(fields, 'rollback') }),
});

/** By the type that a configuration names. */
const READERS: Readonly<
  Record<string, (fields: ConfigFields, name: string, timeout: Millis) => DriverConfig>
> = { exec: execOf, libvirt: libvirtOf, qemu: qemuOf };

const driverOf = (fields: ConfigFields, name: string): DriverConfig => {
  if (!DRIVER_NAME.test(name) || name === NO_DRIVER)
    throw configError(
      fields.where,
      `'${name}' cannot be the name of a driver: lower-case letters, digits and hyphens, not '${NO_DRIVER}'`,
    );
  const type = fields.optionalText('type') ?? 'exec';
  const read = Object.hasOwn(READERS, type) ? READERS[type] : undefined;
  if (!read)
    throw configError(
      `${fields.where}.type`,
      `there are no drivers of type '${type}': give ${Object.keys(READERS).join(', ')}`,
    );
  const timeout = fields.duration('timeout', millis(SECOND), millis(DAY), TIMEOUT_DEFAULT);
  const driver = read(fields, name, timeout);
  fields.end();
  return driver;
};

/** INVALID_ARGUMENT names the place and what is accepted. */
export const driversOf = (fields: ConfigFields): readonly DriverConfig[] => {
  const names = fields.keys();
  if (names.length > DRIVERS_MAX) throw configError(fields.where, `give at most ${DRIVERS_MAX} drivers`);
  return names.map((name) => driverOf(fields.object(name), name));
};
