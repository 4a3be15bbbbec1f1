import { MigrateFsError } from '../leaves/errors.js';
import type { MigrationRequest, MigrationSnapshot } from '../leaves/migration.js';

interface Starting {
  readonly request: MigrationRequest;
  readonly answer: Promise<MigrationSnapshot>;
}

interface Started {
  readonly request: MigrationRequest;
  snapshot(): MigrationSnapshot;
}

/**
 * Starts a migration once for each id that callers give their requests: a call that is repeated, because its answer
 * was lost, gets the migration that the first one started, or is starting. A start that failed is forgotten.
 */
export class RequestIds {
  readonly #startedBy: (requestId: string) => Started | undefined;
  /** As many as control calls are under way. */
  readonly #starting = new Map<string, Starting>();

  /** `startedBy`: the migration that is listed with that id. */
  constructor(startedBy: (requestId: string) => Started | undefined) {
    this.#startedBy = startedBy;
  }

  /** INVALID_ARGUMENT: the id is that of a request for something else. Rejects with what `start` throws. */
  async once(request: MigrationRequest, start: () => Promise<MigrationSnapshot>): Promise<MigrationSnapshot> {
    const { requestId } = request;
    if (requestId === undefined) return start();
    const starting = this.#starting.get(requestId);
    if (starting) {
      assertSame(requestId, request, starting.request);
      return starting.answer;
    }
    const started = this.#startedBy(requestId);
    if (started) {
      assertSame(requestId, request, started.request);
      return started.snapshot();
    }
    const answer = start();
    this.#starting.set(requestId, { request, answer });
    try {
      return await answer;
    } finally {
      this.#starting.delete(requestId);
    }
  }
}

const assertSame = (
  requestId: string,
  { images, target }: MigrationRequest,
  other: MigrationRequest,
): void => {
  const same =
    target === other.target &&
    images.length === other.images.length &&
    images.every((name) => other.images.includes(name));
  if (same) return;
  throw new MigrateFsError(
    'INVALID_ARGUMENT',
    `request_id ${JSON.stringify(requestId)} was used for ${other.images.join(', ')} to ${other.target}: give each request its own`,
  );
};
