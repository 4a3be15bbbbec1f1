/**
 * Entry of the source's thread of one stream: reads runs of blocks and sends them, and takes in what the target
 * acknowledges, of these and of the lane. Sleeps in poll(2), so it has no event loop to speak of.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Errno, errnoName } from '../../fs/errno.js';
import type { ImageSlot } from '../../fs/image-table.js';
import { KernelAnswer } from '../../fs/kernel/reply.js';
import type { SyncAnswer } from '../../fs/lane-syncs.js';
import {
  lastErrno,
  MSG_DONTWAIT,
  POLLERR,
  POLLHUP,
  POLLIN,
  rawPoll,
  read,
  recv,
  SHUT_RDWR,
  shutdown,
} from '../../fs/libc.js';
import { MirrorLane } from '../../fs/mirror-lane.js';
import { MigrateFsError, plainError } from '../../leaves/errors.js';
import { RecordReader } from '../../leaves/record-reader.js';
import { RECORD_BYTES_MAX, RECORD_KIND } from '../../leaves/stream-record.js';
import type {
  CopyCommand,
  FromSourceStream,
  PlainCommand,
  SentReport,
  SourceStreamSetup,
  ToSourceStream,
} from '../stream-messages.js';
import { BY_NUMBER } from '../stream-messages.js';
import type { LaneTracks } from './lane-tracks.js';
import { laneTracks } from './lane-tracks.js';
import { StreamCopier } from './stream-copier.js';
import { StreamWriter } from './stream-writer.js';

/** Sendings before their outcomes are posted. */
const REPORTS_MAX = 16;
/** Until a write that the lane did not take is tried again. */
const RETRY_MS = 1;

const { fd, sendKey, receiveKey, wakeFd, lane: laneBuffer, port } = workerData as SourceStreamSetup;
const lane = new MirrorLane(laneBuffer);
const copier = new StreamCopier(fd, sendKey, lane);
const reader = new RecordReader(receiveKey, RECORD_BYTES_MAX);
const answer = new KernelAnswer();
const pollfds = Int32Array.of(fd, POLLIN, wakeFd, POLLIN);
const woken = new Uint8Array(8);
let tracks: ReadonlyMap<ImageSlot, LaneTracks> = new Map();
const commands: (CopyCommand | PlainCommand)[] = [];
/** Of the first command. */
let sentRuns = 0;
let reports: SentReport[] = [];
let drains: number[] = [];
let broken: string | undefined;
/** The last record that the replica thread waits for, and the last that it knows to be acknowledged. */
let sentSequence = 0;
let toldSequence = 0;

const tell = (message: FromSourceStream): void => parentPort!.postMessage(message);

const flushReports = (): void => {
  if (reports.length > 0) tell({ type: 'sent', reports });
  reports = [];
};

const tracksOf = (slot: ImageSlot): LaneTracks => {
  const found = tracks.get(slot);
  if (!found) throw new Error(`no bitmap for slot ${slot}`);
  return found;
};

const marksOf = (slot: ImageSlot): LaneTracks['bitmap'] => tracksOf(slot).bitmap;

const written = (id: number, result: number): void => tell({ type: 'written', id, result });

const answerSync: SyncAnswer = (fuseFd, low, high, result, isWrite) =>
  answer.send(fuseFd, low, high, result, isWrite);

const sendAnswer = (fuseFd: number, low: number, high: number, result: number): void => {
  if (fuseFd === BY_NUMBER) written(low, result);
  else answer.send(fuseFd, low, high, result);
};

const writer = new StreamWriter({ buffer: laneBuffer, fd, key: sendKey }, tracksOf);

const takeMessages = (): void => {
  for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
    const message = got.message as ToSourceStream;
    switch (message.type) {
      case 'send':
        commands.push(...message.commands);
        break;
      case 'marks':
        tracks = laneTracks(message.images);
        break;
      case 'write':
        writer.add(message);
        break;
      case 'drain':
        drains.push(message.id);
        break;
      default:
        message satisfies never;
    }
  }
};

/** Sends a part of the command, or all of it. */
const perform = (command: CopyCommand | PlainCommand): void => {
  const { id } = command;
  try {
    const sent = 'kind' in command ? copier.resize(command) : copier.advance(command, sentRuns);
    if (!sent) {
      broken ??= 'sending failed';
      return;
    }
    reports.push({ id, sent });
    sentSequence = sent.sequence;
    sentRuns += sent.runs;
    if (!('kind' in command) && 2 * sentRuns < command.runs.length) return;
  } catch (error) {
    reports.push({ id, error: plainError(error) });
  }
  commands.shift();
  sentRuns = 0;
};

/** Takes in what is there. */
const receive = (): void => {
  const space = reader.space();
  const count = recv(fd, space, space.length, MSG_DONTWAIT);
  if (count < 0) {
    const errno = lastErrno();
    if (errno !== Errno.EAGAIN && errno !== Errno.EINTR) broken ??= errnoName(-errno);
    return;
  }
  if (count === 0) {
    broken ??= 'the target closed the stream';
    return;
  }
  reader.received(count);
  let sequence = 0;
  for (let record = reader.next(); record; record = reader.next()) {
    if (record.kind === RECORD_KIND.synced) {
      lane.syncs.settle(record.image, record.seq, answerSync);
      continue;
    }
    if (record.kind !== RECORD_KIND.ack || record.seq < sequence)
      throw new MigrateFsError('INVALID_ARGUMENT', `record of kind ${record.kind} from a target`);
    sequence = record.seq;
  }
  if (sequence === 0) return;
  lane.settle(sequence, false, marksOf, sendAnswer);
  // Writes of the lane are none of its business.
  if (toldSequence >= sentSequence) return;
  toldSequence = sequence;
  flushReports();
  tell({ type: 'acked', sequence });
};

const answerDrains = (): void => {
  if (drains.length === 0 || lane.underWay > 0 || !writer.idle) return;
  for (const id of drains) tell({ type: 'drained', id });
  drains = [];
};

/** One look at the world; sleeps when there is nothing to do. */
const turn = (): void => {
  const [command] = commands;
  if (command) {
    perform(command);
    if (reports.length >= REPORTS_MAX) flushReports();
  }
  if (commands.length === 0) flushReports();
  const waits = !writer.work();
  answerDrains();
  pollfds[1] = POLLIN;
  pollfds[3] = POLLIN;
  if (rawPoll(pollfds, 2, command ? 0 : waits ? RETRY_MS : -1) <= 0) return;
  if (pollfds[3]! >> 16 !== 0) {
    read(wakeFd, woken, woken.length);
    takeMessages();
  }
  if (((pollfds[1]! >> 16) & (POLLIN | POLLERR | POLLHUP)) !== 0) receive();
};

tell({ type: 'ready' });
try {
  while (broken === undefined) turn();
} catch (error) {
  if (!(error instanceof MigrateFsError)) throw error;
  broken = error.message;
} finally {
  shutdown(fd, SHUT_RDWR);
  lane.close();
  // Marks are posted before the first write that needs them, which may have begun since the last look.
  takeMessages();
  lane.settle(Number.MAX_SAFE_INTEGER, true, marksOf, sendAnswer);
  lane.syncs.lose(answerSync);
  writer.finish(written);
  flushReports();
  tell({ type: 'closed', reason: broken ?? 'the thread has crashed' });
}
