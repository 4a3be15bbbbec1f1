/** How flows share links: max-min fair by weight, as many long TCP connections roughly do. */

export interface Flow {
  readonly id: string;
  readonly links: readonly string[];
  /** Bytes per second that it would send, limits included. */
  readonly wanted: number;
  /** Number of connections, so to say. */
  readonly weight: number;
}

/** Progressive filling: all grow together, and stop at what they want or at the first full link. */
export const sharedRates = (
  flows: readonly Flow[],
  capacities: ReadonlyMap<string, number>,
): Map<string, number> => {
  const rates = new Map(flows.map(({ id }) => [id, 0]));
  const free = new Map(capacities);
  let growing = flows.filter(({ wanted }) => wanted > 0);
  while (growing.length > 0) {
    const weights = new Map<string, number>();
    for (const { links, weight } of growing) {
      for (const link of links) weights.set(link, (weights.get(link) ?? 0) + weight);
    }
    let step = Number.POSITIVE_INFINITY;
    for (const [link, weight] of weights) step = Math.min(step, (free.get(link) ?? 0) / weight);
    for (const { id, wanted, weight } of growing) step = Math.min(step, (wanted - rates.get(id)!) / weight);
    for (const { id, links, weight } of growing) {
      rates.set(id, rates.get(id)! + step * weight);
      for (const link of links) free.set(link, Math.max(0, free.get(link)! - step * weight));
    }
    const full = new Set(
      [...weights.keys()].filter((link) => free.get(link)! <= capacities.get(link)! * 1e-9),
    );
    growing = growing.filter(
      ({ id, links, wanted }) =>
        rates.get(id)! < wanted * (1 - 1e-9) && !links.some((link) => full.has(link)),
    );
  }
  return rates;
};
