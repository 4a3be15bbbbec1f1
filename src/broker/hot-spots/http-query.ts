/** One bounded HTTP request. */
import type { IncomingMessage } from 'node:http';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { MigrateFsError } from '../../leaves/errors.js';
import { MiB } from '../../leaves/units.js';

export const RESPONSE_BYTES_MAX = 4 * MiB;

interface HttpQuery {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** PEM; absent: the system's authorities. */
  readonly ca?: string;
  /** Ends it, at any point. */
  readonly signal: AbortSignal;
}

const bodyOf = async (response: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > RESPONSE_BYTES_MAX)
      throw new MigrateFsError('RESOURCE_EXHAUSTED', `the answer is longer than ${RESPONSE_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
};

/**
 * Gets a text. Answers that carry a JSON body with an error (400, 422, 503 of a Prometheus server) are returned as well.
 * UNAVAILABLE: no connection, or another status; RESOURCE_EXHAUSTED: too long.
 */
export const httpGet = async ({ url, headers, ca, signal }: HttpQuery): Promise<string> => {
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const options = { signal, headers, agent: false };
      const request =
        url.protocol === 'https:'
          ? httpsRequest(url, { ...options, ...(ca === undefined ? {} : { ca }) }, resolve)
          : httpRequest(url, options, resolve);
      request.on('error', reject).end();
    });
    const json = /^application\/json\b/.test(response.headers['content-type'] ?? '');
    if (response.statusCode !== 200 && !json) {
      response.destroy();
      throw new MigrateFsError('UNAVAILABLE', `HTTP status ${response.statusCode}`);
    }
    return await bodyOf(response);
  } catch (error) {
    if (error instanceof MigrateFsError) throw error;
    if (signal.aborted) throw signal.reason as Error;
    throw new MigrateFsError('UNAVAILABLE', (error as Error).message || String(error), { cause: error });
  }
};
