/** Those who are compared take turns, and who begins changes, so that drift of the machine hits all of them. */
export const inTurn = <T>(items: readonly T[], round: number): readonly T[] => [
  ...items.slice(round % items.length),
  ...items.slice(0, round % items.length),
];

export interface Rounds<T> {
  readonly samples: ReadonlyMap<string, readonly T[]>;
  /** Why a competitor has no samples: one that fails once is left out. */
  readonly failures: ReadonlyMap<string, string>;
}

/** Measures each of `competitors` once a round, until `signal` ends it all. */
export const measureRounds = async <C extends { readonly name: string }, T>(
  competitors: readonly C[],
  rounds: number,
  measure: (competitor: C) => T | Promise<T>,
  signal: AbortSignal,
): Promise<Rounds<T>> => {
  const samples = new Map<string, T[]>(competitors.map(({ name }) => [name, []]));
  const failures = new Map<string, string>();
  for (let round = 0; round < rounds; round++)
    for (const competitor of inTurn(competitors, round)) {
      if (failures.has(competitor.name)) continue;
      try {
        samples.get(competitor.name)!.push(await measure(competitor));
      } catch (error) {
        signal.throwIfAborted();
        failures.set(competitor.name, (error as Error).message.trim());
        samples.delete(competitor.name);
      }
    }
  return { samples, failures };
};
