import type { Command } from 'commander';
import { Option } from 'commander';
import type { SchedulerClient } from '../control/scheduler-client.js';
import { parseHostPort } from '../leaves/host-port.js';
import type { ClientOptions } from './option-parsers.js';
import { addTlsOptions, checkedBy, parsePeer, tlsOf } from './option-parsers.js';

const SCHEDULER_DEFAULT = '127.0.0.1:7080';

export type SchedulerClientOptions = ClientOptions;

export const addSchedulerOptions = (command: Command): Command =>
  addTlsOptions(
    command.addOption(
      new Option('--server <host:port>', 'address of the scheduler')
        .env('MIGRATEFS_SCHEDULER')
        .argParser(checkedBy(parsePeer))
        .default(parseHostPort(SCHEDULER_DEFAULT), SCHEDULER_DEFAULT),
    ),
  );

/** Runs `work` with a client of the scheduler that the options name, and closes it. */
export const withScheduler = async <T>(
  options: SchedulerClientOptions,
  work: (client: SchedulerClient) => Promise<T>,
): Promise<T> => {
  // Loaded here: help and usage errors need none of it.
  const { SchedulerClient: Client } = await import('../control/scheduler-client.js');
  using client = new Client({ server: options.server, tls: tlsOf(options) });
  return await work(client);
};
