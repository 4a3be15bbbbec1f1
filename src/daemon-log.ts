/** The log of a program that serves: lines of JSON on standard output, or readable ones. */
import type { DestinationStream, Logger } from 'pino';
import { pino } from 'pino';
import type { LogLevel } from './leaves/daemon-options.js';
import { MiB } from './leaves/units.js';

/** What a full disk does not take is kept up to this much, and dropped beyond. */
const WAITING_BYTES_MAX = MiB;

export interface LogOptions {
  readonly logLevel: LogLevel;
  readonly logPretty: boolean;
}

/** A log that cannot be written stops nothing: those who serve disks go on without it, and write again when that is possible. */
export const openLog = async ({ logLevel, logPretty }: LogOptions): Promise<Logger> => {
  const output = pino.destination({ fd: process.stdout.fd, sync: true, maxLength: WAITING_BYTES_MAX });
  output.on('error', () => {});
  let stream: DestinationStream = output;
  if (logPretty) {
    const { PinoPretty } = await import('pino-pretty');
    stream = PinoPretty({ ignore: 'pid,hostname', destination: output });
  }
  return pino({ level: logLevel, base: { pid: process.pid } }, stream);
};
