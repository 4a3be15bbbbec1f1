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

/** Commands that only show something. */
const SHOWING = ['status', 'tasks', 'images', 'help'];

/**
 * `migratefs status | head -1`: the reader has what it wanted. What a command does, and its exit code says of it, does not depend
 * on whether somebody reads of it.
 */
const onOutputLost = (error: NodeJS.ErrnoException): void => {
  const command = process.argv[2] ?? 'help';
  const shows = SHOWING.includes(command) || command.startsWith('-');
  if (error.code === 'EPIPE') {
    if (shows) process.exit(0);
    return;
  }
  console.error(`migratefs: cannot write to standard output: ${error.message}`);
  if (shows) process.exit(EXIT_FAILED);
};
process.stdout.once('error', (error: NodeJS.ErrnoException) => {
  process.stdout.on('error', () => {});
  onOutputLost(error);
});

try {
  await buildProgram().parseAsync();
} catch (error) {
  // Not left to the event loop: threads that serve a mount with open files would keep the process.
  process.exit(exitCodeOf(error));
}
