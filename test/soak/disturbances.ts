/** What may go wrong, or be asked for, while a VM's images migrate. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlClient } from '../../src/control/control-client.js';
import { bytesPerSecond, MiB, UNLIMITED } from '../../src/leaves/units.js';
import type { Random } from '../support/random.js';
import { type ChaosCloud, other, type Place } from './chaos-cloud.js';

const STORM = 12;

export interface Scene {
  readonly cloud: ChaosCloud;
  readonly random: Random;
  readonly source: Place;
  /** Of the migration under way. */
  readonly id: string;
}

export interface Disturbance {
  readonly name: string;
  /** The guest on the source dies with it. */
  readonly killsGuest?: boolean;
  readonly act: (scene: Scene) => Promise<void>;
}

const clientOf = ({ cloud, source }: Scene): ControlClient => cloud.host(source).client;
/** The answer does not matter: the migration may not be in a state for it, or over. */
const ask = (call: Promise<unknown>): Promise<unknown> => call.catch(() => undefined);

export const DISTURBANCES: readonly Disturbance[] = [
  {
    name: 'network',
    act: async ({ cloud, random, source }) => {
      cloud.cut(other(source), random);
      await sleep(random.below(3_000));
      cloud.connect(other(source));
    },
  },
  {
    name: 'network twice',
    act: async ({ cloud, random, source }) => {
      for (let i = 0; i < 2; i++) {
        cloud.cut(other(source), random);
        await sleep(random.below(300));
        cloud.connect(other(source));
        await sleep(random.below(300));
      }
    },
  },
  { name: 'kill target', act: ({ cloud, source }) => cloud.kill(other(source)) },
  { name: 'kill source', killsGuest: true, act: ({ cloud, source }) => cloud.kill(source) },
  {
    name: 'suspend target',
    act: async ({ cloud, random, source }) => {
      cloud.suspend(other(source));
      await sleep(random.below(5_000));
      cloud.resume(other(source));
    },
  },
  {
    name: 'suspend source',
    act: async ({ cloud, random, source }) => {
      cloud.suspend(source);
      await sleep(random.below(5_000));
      cloud.resume(source);
    },
  },
  {
    name: 'limits',
    act: async (scene) => {
      const { random, id } = scene;
      for (let i = 0; i < STORM; i++) {
        const limit = random.pick([
          UNLIMITED,
          bytesPerSecond(MiB),
          bytesPerSecond(20 * MiB),
          bytesPerSecond(1),
        ]);
        const client = clientOf(scene);
        await ask(random.chance(50) ? client.setDiskLimit(id, limit) : client.setNetworkLimit(id, limit));
        await sleep(random.below(60));
      }
    },
  },
  {
    name: 'pauses',
    act: async (scene) => {
      const { random, id } = scene;
      for (let i = 0; i < STORM; i++) {
        await ask(clientOf(scene).pause(id));
        await sleep(random.below(60));
        await ask(clientOf(scene).resume(id));
        await sleep(random.below(60));
      }
    },
  },
  { name: 'cancel', act: async (scene) => void (await ask(clientOf(scene).cancel(scene.id))) },
  {
    name: 'cancel at target',
    act: async ({ cloud, source, id }) => void (await ask(cloud.host(other(source)).client.cancel(id))),
  },
  { name: 'verify', act: async (scene) => void (await ask(clientOf(scene).verify(scene.id))) },
  {
    name: 'full disk',
    act: async ({ cloud, random, source }) => {
      await cloud.fill(other(source), random.below(2 * MiB));
      await sleep(random.below(2_000));
      await cloud.makeRoom(other(source));
    },
  },
];
