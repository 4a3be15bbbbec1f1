/** A seeded generator of numbers (xorshift32, Marsaglia 2003): a printed seed replays a failure. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0 || 0x9e3779b9;
  }

  /** An integer from 0 to 2^32 - 1. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.next() / 2 ** 32) * limit);
  }

  /** True in `percent` of 100 cases. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  fill(buffer: Buffer): void {
    const whole = buffer.length & ~3;
    for (let i = 0; i < whole; i += 4) buffer.writeUInt32LE(this.next(), i);
    for (let i = whole; i < buffer.length; i++) buffer[i] = this.next() & 0xff;
  }
}

/** The seed to use: `MIGRATEFS_SEED` where set, to replay a run. */
export const seedFromEnvironment = (): number => {
  const given = Number(process.env['MIGRATEFS_SEED']);
  return Number.isInteger(given) && given > 0
    ? given
    : (Math.floor(performance.timeOrigin) % 1_000_000_007) + 1;
};
