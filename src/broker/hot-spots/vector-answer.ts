/** The answer of a Prometheus server to an instant query (https://prometheus.io/docs/prometheus/latest/querying/api/). */
import { MigrateFsError } from '../../leaves/errors.js';

export interface VectorSample {
  readonly labels: Readonly<Record<string, string>>;
  /** NaN and infinities are left as they are. */
  readonly value: number;
}

const SAMPLES_MAX = 4096;
const ERROR_LENGTH_MAX = 200;

const malformed = (what: string): MigrateFsError =>
  new MigrateFsError('INVALID_ARGUMENT', `not the answer of a Prometheus server: ${what}`);

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const numberOf = (text: unknown): number => {
  if (typeof text !== 'string') throw malformed('a value that is not a text');
  if (text === '+Inf') return Number.POSITIVE_INFINITY;
  if (text === '-Inf') return Number.NEGATIVE_INFINITY;
  if (text === 'NaN') return Number.NaN;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isNaN(value)) throw malformed('a value that is not a number');
  return value;
};

const sampleOf = (item: unknown): VectorSample => {
  if (!isObject(item) || !isObject(item['metric']) || !Array.isArray(item['value']))
    throw malformed('a sample without metric or value');
  const labels = item['metric'];
  if (!Object.values(labels).every((label) => typeof label === 'string'))
    throw malformed('a label that is not a text');
  return { labels: labels as Record<string, string>, value: numberOf(item['value'][1]) };
};

/** Reads the body of an answer. INVALID_ARGUMENT: it is malformed, or the server refused the query and says why. */
export const parseVector = (body: string): readonly VectorSample[] => {
  let answer: unknown;
  try {
    answer = JSON.parse(body);
  } catch (error) {
    throw malformed((error as Error).message);
  }
  if (!isObject(answer)) throw malformed('not an object');
  if (answer['status'] === 'error')
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `the Prometheus server refuses the query: ${String(answer['error']).slice(0, ERROR_LENGTH_MAX)}`,
    );
  const data = answer['data'];
  if (answer['status'] !== 'success' || !isObject(data)) throw malformed('no data');
  const { resultType, result } = data;
  if (resultType !== 'vector')
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `the query gives a ${String(resultType).slice(0, ERROR_LENGTH_MAX)}; it has to give an instant vector`,
    );
  if (!Array.isArray(result) || result.length > SAMPLES_MAX)
    throw malformed(`no list of at most ${SAMPLES_MAX} samples`);
  return result.map(sampleOf);
};
