/** Reading a JSON configuration: every error names the place, and what is not known is refused. */
import { parseDuration } from './duration.js';
import { MigrateFsError } from './errors.js';
import { parseCapacity } from './quantity.js';
import type { BytesPerSecond, Millis } from './units.js';

const TEXT_LENGTH_MAX = 4096;
const LIST_LENGTH_MAX = 4096;

export const configError = (where: string, problem: string): MigrateFsError =>
  new MigrateFsError('INVALID_ARGUMENT', `${where}: ${problem}`);

/** The keys of one object of a configuration. Readers throw INVALID_ARGUMENT; `end` refuses keys that nobody read. */
export class ConfigFields {
  /** Such as `hot-spots: prometheus[0]`. */
  readonly where: string;
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #read = new Set<string>();

  constructor(where: string, value: unknown) {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw configError(where, 'give an object');
    this.where = where;
    this.#values = value as Record<string, unknown>;
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#values, key);
  }

  /** As it is; undefined when the key is missing. */
  raw(key: string): unknown {
    this.#read.add(key);
    return this.has(key) ? this.#values[key] : undefined;
  }

  text(key: string): string {
    const value = this.raw(key);
    if (typeof value !== 'string' || value === '' || value.length > TEXT_LENGTH_MAX)
      throw this.#wrong(key, `give a text of 1 to ${TEXT_LENGTH_MAX} characters`);
    return value;
  }

  optionalText(key: string): string | undefined {
    return this.has(key) ? this.text(key) : undefined;
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.raw(key) ?? fallback;
    if (typeof value !== 'boolean') throw this.#wrong(key, 'give true or false');
    return value;
  }

  number(key: string, min: number, max: number, fallback: number): number {
    const value = this.raw(key) ?? fallback;
    if (typeof value !== 'number' || !(value >= min && value <= max))
      throw this.#wrong(key, `give a number from ${min} to ${max}`);
    return value;
  }

  duration(key: string, min: Millis, max: Millis, fallback: Millis): Millis {
    if (!this.has(key)) return fallback;
    const value = this.#parsed(key, parseDuration);
    if (value < min || value > max) throw this.#wrong(key, `give a duration from ${min} to ${max} ms`);
    return value;
  }

  /** Such as `10Gbit/s` or `1.25GB/s`. */
  capacity(key: string): BytesPerSecond | undefined {
    return this.has(key) ? this.#parsed(key, parseCapacity) : undefined;
  }

  /** One of the keys of an object, where the object may be missing: an object without keys then. */
  object(key: string): ConfigFields {
    return new ConfigFields(`${this.where}.${key}`, this.raw(key) ?? {});
  }

  objects(key: string): readonly ConfigFields[] {
    const value = this.raw(key) ?? [];
    if (!Array.isArray(value) || value.length > LIST_LENGTH_MAX)
      throw this.#wrong(key, `give a list of at most ${LIST_LENGTH_MAX} objects`);
    return value.map((item, index) => new ConfigFields(`${this.where}.${key}[${index}]`, item));
  }

  keys(): readonly string[] {
    return Object.keys(this.#values);
  }

  end(): void {
    const unknown = this.keys().find((key) => !this.#read.has(key));
    if (unknown !== undefined) throw configError(this.where, `unknown key '${unknown}'`);
  }

  #parsed<T>(key: string, parse: (text: string) => T): T {
    const text = this.text(key);
    try {
      return parse(text);
    } catch (error) {
      throw this.#wrong(key, (error as Error).message);
    }
  }

  #wrong(key: string, problem: string): MigrateFsError {
    return configError(`${this.where}.${key}`, problem);
  }
}
