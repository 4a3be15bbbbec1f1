import { formatDuration } from '../../leaves/duration.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { ImageDescription } from '../../leaves/migration.js';
import type { TaskRequest } from '../../leaves/scheduler.js';
import { NO_DRIVER } from '../../leaves/scheduler.js';
import type { Bytes, Millis } from '../../leaves/units.js';
import { bytes } from '../../leaves/units.js';
import { completeTerms } from '../terms.js';
import type { Task, TaskOrder } from './task.js';
import type { TaskBook } from './task-book.js';

/** What a request is checked against. */
export interface SubmissionRules {
  readonly book: TaskBook;
  /** Throws for a name that the topology does not have. */
  readonly checkHost: (name: string) => void;
  readonly drivers: ReadonlyMap<string, unknown>;
  readonly tasksMax: number;
}

const invalid = (message: string): MigrateFsError => new MigrateFsError('INVALID_ARGUMENT', message);

const checkHost = (what: string, name: string, { checkHost: check }: SubmissionRules): void => {
  try {
    check(name);
  } catch (error) {
    throw invalid(`${what} host: ${(error as Error).message}`);
  }
};

const checkTimes = ({ deadline, notBefore }: TaskRequest, now: Millis): void => {
  if (deadline !== undefined && deadline <= now)
    throw invalid(
      `the deadline ${new Date(deadline).toISOString()} is ${formatDuration(now - deadline)} in the past by the scheduler's clock`,
    );
  if (deadline !== undefined && notBefore !== undefined && notBefore >= deadline)
    throw invalid(
      `not before ${new Date(notBefore).toISOString()} leaves no time: the deadline is ${new Date(deadline).toISOString()}`,
    );
};

/** A driver's program gets the names one a line, and libvirt shows them so. */
const checkNames = (images: readonly string[], driver: string): void => {
  const twice = images.find((name, index) => images.indexOf(name) !== index);
  if (twice !== undefined) throw invalid(`image ${JSON.stringify(twice)} is given twice`);
  const unclear = driver === NO_DRIVER ? undefined : images.find((name) => /\p{Cc}/u.test(name));
  if (unclear !== undefined)
    throw invalid(
      `image ${JSON.stringify(unclear)} has a control character in its name, which no driver takes: rename it, or move it with driver '${NO_DRIVER}'`,
    );
};

/** Everything that can be said without asking a daemon. `driver` is the one that it is to have. */
export const checkRequest = (
  request: TaskRequest,
  driver: string,
  rules: SubmissionRules,
  now: Millis,
): void => {
  const { source, target, images, danger, warning } = request;
  checkHost('source', source, rules);
  checkHost('target', target, rules);
  if (source === target) throw invalid(`source and target are the same host, '${source}'`);
  if (driver !== NO_DRIVER && !rules.drivers.has(driver)) {
    const known = [...rules.drivers.keys(), NO_DRIVER].map((name) => `'${name}'`);
    throw invalid(`the scheduler has no driver '${driver}': give ${known.join(' or ')}`);
  }
  checkNames(images, driver);
  if (danger !== undefined && warning !== undefined && warning < danger)
    throw invalid(`the warning ratio ${warning} is below the danger ratio ${danger}`);
  checkTimes(request, now);
  if (rules.book.open >= rules.tasksMax)
    throw new MigrateFsError(
      'RESOURCE_EXHAUSTED',
      `${rules.tasksMax} tasks are in the queue already: submit again when some have ended`,
    );
  for (const image of images) {
    const other = rules.book.findImage(source, image);
    if (other !== undefined)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `image ${image} of ${source} belongs to task ${other} already: wait for it, or cancel it`,
      );
  }
};

/** What the images allocate together; throws unless each is there, the source's own, and not migrating. */
export const checkImages = (source: string, images: readonly ImageDescription[]): Bytes => {
  let total = 0;
  for (const image of images) {
    if ('error' in image) throw new MigrateFsError(image.error.code, `${source}: ${image.error.message}`);
    const { name, role, peer = 'another host', migrationId } = image;
    if (migrationId !== undefined)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `image ${name} of ${source} is migrating already: migration ${migrationId}`,
      );
    if (role !== 'owner')
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        role === 'fenced'
          ? `image ${name} was moved from ${source}: ${peer} owns it`
          : `image ${name} of ${source} is an unfinished copy sent by ${peer}`,
      );
    total += image.allocated;
  }
  return bytes(total);
};

/** What is asked for, with what was left open; admission has still to say what it thinks of it. */
export const orderOf = (request: TaskRequest, driver: string, bytesTotal: Bytes): TaskOrder => {
  const { insist: _insist, danger, warning, ...rest } = request;
  const terms = completeTerms({
    ...(danger !== undefined && { danger }),
    ...(warning !== undefined && { warning }),
  });
  return {
    ...rest,
    driver,
    danger: terms.danger,
    warning: Math.max(terms.warning, terms.danger),
    bytesTotal,
    late: false,
    admission: '',
  };
};

const same = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((value, at) => value === b[at]);

/** The task of an earlier request with the same id; ALREADY_EXISTS where that asked for something else. */
export const repeated = (request: TaskRequest, book: TaskBook): Task | undefined => {
  if (request.requestId === undefined) return undefined;
  const task = book.findRequest(request.requestId);
  if (!task) return undefined;
  const { vm, source, target, images } = task;
  if (
    vm !== request.vm ||
    source !== request.source ||
    target !== request.target ||
    !same(images, request.images)
  )
    throw new MigrateFsError(
      'ALREADY_EXISTS',
      `request id ${request.requestId} was used for task ${task.id}, which moves ${vm} from ${source} to ${target}`,
    );
  return task;
};
