/** Options as commander reads them: bad input becomes a usage error that says what is accepted. */
import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import type { ControlClient } from '../control/control-client.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { HostPort } from '../leaves/host-port.js';
import { parseHostPort } from '../leaves/host-port.js';
import { readTlsIdentity } from '../leaves/tls-identity.js';

export const CONTROL_DEFAULT = '127.0.0.1:7070';
export const DATA_DEFAULT = '127.0.0.1:7071';

/** `parse` throws INVALID_ARGUMENT for what it does not accept. */
export const checkedBy =
  <T>(parse: (text: string) => T) =>
  (text: string): T => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof MigrateFsError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };

/** INVALID_ARGUMENT: it is empty, as a variable of a script may be that was never set. */
export const nonEmpty = (text: string): string => {
  if (text !== '') return text;
  throw new MigrateFsError('INVALID_ARGUMENT', 'give an id, or leave it out');
};

/** A whole number from `min` to `max`. */
export const wholeNumber =
  (min: number, max: number) =>
  (text: string): number => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max))
      throw new MigrateFsError('INVALID_ARGUMENT', `give a whole number from ${min} to ${max}`);
    return value;
  };

const RATIO_MAX = 1000;

/** A ratio above 1, as a percentage: 3 for `300%`. */
export const parsePercentage = (text: string): number => {
  const ratio = /^\d{1,6}(\.\d{1,3})?%$/.test(text) ? Number(text.slice(0, -1)) / 100 : Number.NaN;
  if (!(ratio > 1 && ratio <= RATIO_MAX))
    throw new MigrateFsError('INVALID_ARGUMENT', `give a percentage above 100%, such as 300%`);
  return ratio;
};

/** An address that something can be sent to: not port 0. */
export const parsePeer = (text: string): HostPort => {
  const address = parseHostPort(text);
  if (address.port === 0) throw new MigrateFsError('INVALID_ARGUMENT', `port 0 cannot be reached: '${text}'`);
  return address;
};

interface TlsOptions {
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
}

/** What every client command takes. */
export interface ClientOptions extends TlsOptions {
  readonly server: HostPort;
}

export const addTlsOptions = (command: Command): Command =>
  command
    .addOption(new Option('--tls-ca <file>', 'certificates of the cluster (PEM)').env('MIGRATEFS_TLS_CA'))
    .addOption(new Option('--tls-cert <file>', 'own certificate (PEM)').env('MIGRATEFS_TLS_CERT'))
    .addOption(new Option('--tls-key <file>', 'key of the certificate (PEM)').env('MIGRATEFS_TLS_KEY'));

export const addClientOptions = (command: Command): Command =>
  addTlsOptions(
    command.addOption(
      new Option('--server <host:port>', 'control address of the daemon')
        .env('MIGRATEFS_SERVER')
        .argParser(checkedBy(parsePeer))
        .default(parseHostPort(CONTROL_DEFAULT), CONTROL_DEFAULT),
    ),
  );

/** INVALID_ARGUMENT: the files are incomplete or cannot be read. */
export const tlsOf = (options: TlsOptions) =>
  readTlsIdentity({ ca: options.tlsCa, cert: options.tlsCert, key: options.tlsKey });

/** Runs `work` with a client of the daemon that the options name, and closes it. */
export const withClient = async <T>(
  options: ClientOptions,
  work: (client: ControlClient) => Promise<T>,
): Promise<T> => {
  // Loaded here: help and usage errors need none of it.
  const { connect } = await import('../control/control-client.js');
  using client = connect({ server: options.server, tls: tlsOf(options) });
  return await work(client);
};
