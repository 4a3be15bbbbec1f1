/** The links of running migrations with whom they share them: what their brokers are told. */
import type { PathLink, Sharer } from '../../leaves/broker.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { linkKey } from './demand.js';
import type { Paths, PlanLink } from './task.js';

/** A broker is told this many sharers of a link: the next ones by id, so that each is known to somebody. */
export const SHARERS_MAX = 64;

export interface RunningMigration extends Sharer {
  /** Names of hosts in the topology. */
  readonly source: string;
  readonly target: string;
}

/** The topology may have changed under a migration that runs. */
const pathOf = ({ source, target }: RunningMigration, paths: Paths): readonly PlanLink[] => {
  try {
    return paths.path(source, target);
  } catch (error) {
    if (error instanceof MigrateFsError) return [];
    throw error;
  }
};

/** By migration id; nothing for a migration that the topology has no route for. */
export const sharedLinks = (
  running: readonly RunningMigration[],
  paths: Paths,
): ReadonlyMap<string, readonly PathLink[]> => {
  const sorted = [...running].sort((a, b) => (a.migrationId < b.migrationId ? -1 : 1));
  const users = new Map<string, Sharer[]>();
  const positions = new Map<string, number>();
  const links = sorted.map((migration) => {
    const { server, migrationId } = migration;
    const path = pathOf(migration, paths);
    for (const link of path) {
      const key = linkKey(link);
      const sharers = users.get(key) ?? [];
      users.set(key, sharers);
      positions.set(`${migrationId} ${key}`, sharers.length);
      sharers.push({ server, migrationId });
    }
    return { migrationId, path };
  });
  return new Map(
    links.map(({ migrationId, path }) => [
      migrationId,
      path.map((link): PathLink => {
        const all = users.get(linkKey(link))!;
        const next = positions.get(`${migrationId} ${linkKey(link)}`)! + 1;
        return {
          link: link.name,
          capacity: link.capacity,
          sharers: [...all.slice(next), ...all.slice(0, next - 1)].slice(0, SHARERS_MAX),
        };
      }),
    ]),
  );
};
