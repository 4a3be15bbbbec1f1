#!/usr/bin/env node
import { CommanderError } from 'commander';
import { MigrateFsError } from '../leaves/errors.js';
import { buildProgram } from './program.js';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

// The gRPC library gives TLS the IP address as a server name, and Node warns about it on stderr.
process.noDeprecation = true;

/** Prints the one line for `error` where that has not happened yet; returns the exit code. */
const exitCodeOf = (error: unknown): number => {
  // Commander has printed its message, or help or version for code 0.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  if (error instanceof MigrateFsError) console.error(`migratefs: ${error.message}`);
  else if (error instanceof Error && 'syscall' in error) console.error(`migratefs: ${error.message}`);
  else console.error('migratefs: internal error:', error);
  return EXIT_FAILED;
};

// `migratefs status | head -1`: the reader has what it wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  await buildProgram().parseAsync();
} catch (error) {
  // Not left to the event loop: threads that serve a mount with open files would keep the process.
  process.exit(exitCodeOf(error));
}
