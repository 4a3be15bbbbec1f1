/**
 * One episode: a VM's images migrate while things go wrong, then everything is well again, and after the end of the
 * migration, whichever it is, the guarantees are checked: G1, G2 (where it completed), G3, G4 and G6.
 */
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import { CUTOVER_POLICIES, isFinal } from '../../src/leaves/migration.js';
import { bytesPerSecond, MiB, UNLIMITED } from '../../src/leaves/units.js';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import { recordOf } from '../support/debris.js';
import { allocatedBytes } from '../support/files.js';
import type { Random } from '../support/random.js';
import { waitFor } from '../support/wait-for.js';
import { type ChaosCloud, other, type Place } from './chaos-cloud.js';
import { type ChaosGuest, STILL_OFFSET } from './chaos-guest.js';
import { DISTURBANCES, type Scene } from './disturbances.js';

const DISTURBANCES_MAX = 4;
/** After everything is well again. */
const END_MAX_MS = 120_000;
const POLL_MS = 100;
/** Rounding of what file systems allocate, an image. */
const ALLOCATED_SLACK = MiB;

export interface Episode {
  readonly happened: readonly string[];
  readonly owner: Place | undefined;
  readonly errors: readonly string[];
}

/** Who owns all the images by their records; undefined: nobody, or some are here and some there. */
const ownerOf = async (cloud: ChaosCloud, images: readonly string[]): Promise<Place | undefined> => {
  const owners: Place[] = [];
  for (const place of [0, 1] as const) {
    const found = await cloud.host(place).client.describeImages(images);
    if (found.every((image) => !('error' in image) && image.role === 'owner')) owners.push(place);
  }
  return owners.length === 1 ? owners[0] : undefined;
};

class EpisodeRun {
  readonly #cloud: ChaosCloud;
  readonly #guest: ChaosGuest;
  readonly #random: Random;
  readonly #source: Place;
  readonly #happened: string[] = [];
  readonly #errors: string[] = [];
  #id = '';
  #sourceKilled = false;
  #taken = false;

  constructor(cloud: ChaosCloud, guest: ChaosGuest, source: Place, random: Random) {
    this.#cloud = cloud;
    this.#guest = guest;
    this.#source = source;
    this.#random = random;
  }

  async run(): Promise<Episode> {
    await this.#guest.start(this.#cloud.host(this.#source));
    await this.#migrate();
    await this.#disturb();
    await this.#cloud.heal();
    await this.#end();
    await this.#guest.stop();
    const owner = await this.#judge();
    return { happened: this.#happened, owner, errors: this.#errors };
  }

  #expect(truth: boolean, what: string): void {
    if (!truth) this.#errors.push(what);
  }

  async #migrate(): Promise<void> {
    const random = this.#random;
    const cutover = random.pick([...CUTOVER_POLICIES, 'on-first-write'] as const);
    const limit = random.pick([UNLIMITED, bytesPerSecond(4 * MiB), bytesPerSecond(20 * MiB)]);
    const { id } = await this.#cloud.host(this.#source).client.start({
      images: this.#guest.images,
      target: this.#cloud.address(other(this.#source)),
      cutover,
      netLimit: limit,
      diskLimit: random.pick([UNLIMITED, UNLIMITED, bytesPerSecond(4 * MiB)]),
      priority: 5,
      broker: 'off',
    });
    this.#id = id;
    this.#happened.push(`start ${id} ${cutover} ${limit / MiB} MiB/s`);
  }

  async #disturb(): Promise<void> {
    const random = this.#random;
    const count = 1 + random.below(DISTURBANCES_MAX);
    for (let i = 0; i < count; i++) {
      await sleep(random.below(1_500));
      const disturbance = random.pick(DISTURBANCES);
      const state = await this.#state();
      this.#happened.push(`${disturbance.name} (${state?.state ?? 'unknown'})`);
      // Half of the time a guest's first write on the target, or a cutover that is asked for, falls into it.
      const meanwhile = random.chance(50) ? this.#takeLater(random.below(1_000)) : Promise.resolve();
      const scene: Scene = { cloud: this.#cloud, random, source: this.#source, id: this.#id };
      await Promise.all([disturbance.act(scene), meanwhile]);
      if (disturbance.killsGuest) await this.#sourceDied();
    }
  }

  async #takeLater(milliseconds: number): Promise<void> {
    await sleep(milliseconds);
    await this.#take();
  }

  /** A resumed guest's first write on the target, or an operator's wish, by the policy. */
  async #take(): Promise<void> {
    const { client } = this.#cloud.host(this.#source);
    if ((await this.#state())?.cutover === 'explicit') {
      this.#happened.push('cutover asked for');
      await client.cutover(this.#id).catch(() => undefined);
      return;
    }
    this.#happened.push('first write');
    const [image] = this.#guest.images;
    const [from, to] = [this.#cloud.host(this.#source), this.#cloud.host(other(this.#source))];
    try {
      await rewriteBlock(from.daemon.below(image!), to.daemon.at(image!), STILL_OFFSET);
      this.#taken = true;
      this.#happened.push('first write taken');
    } catch (error) {
      this.#happened.push(`first write ${(error as NodeJS.ErrnoException).code}`);
    }
  }

  async #state(): Promise<MigrationSnapshot | undefined> {
    return this.#cloud
      .host(this.#source)
      .client.get(this.#id)
      .catch(() => undefined);
  }

  /** The guest is gone; where the source owns the images still it is started anew there, and migrates again. */
  async #sourceDied(): Promise<void> {
    this.#sourceKilled = true;
    await this.#guest.stop();
    await this.#cloud.heal();
    const host = this.#cloud.host(this.#source);
    const found = await host.client.describeImages(this.#guest.images);
    if (!found.every((image) => !('error' in image) && image.role === 'owner')) return;
    this.#happened.push('guest started anew');
    await this.#guest.start(host);
    await this.#migrate().catch((error: Error) => this.#happened.push(`not started: ${error.message}`));
  }

  /** Brings the migration to an end. */
  async #end(): Promise<void> {
    const { client } = this.#cloud.host(this.#source);
    await client.setNetworkLimit(this.#id, UNLIMITED).catch(() => undefined);
    await client.setDiskLimit(this.#id, UNLIMITED).catch(() => undefined);
    const cancels = this.#random.chance(30);
    const late = performance.now() + END_MAX_MS;
    for (;;) {
      const state = await this.#state();
      if (!state || isFinal(state.state)) {
        this.#happened.push(`ended ${state?.state ?? 'unknown'}`);
        return;
      }
      if (performance.now() > late) {
        this.#errors.push(`no end: ${JSON.stringify(state)}`);
        return;
      }
      if (state.state === 'paused') await client.resume(this.#id).catch(() => undefined);
      const take = state.state === 'mirroring' ? this.#take() : undefined;
      // Right at the first write.
      if (cancels && (take || this.#random.chance(20))) {
        await sleep(this.#random.below(10));
        this.#happened.push('cancel');
        await client
          .cancel(this.#id)
          .catch((error: Error) => this.#happened.push(error.message.slice(0, 60)));
      }
      await take;
      await sleep(POLL_MS);
    }
  }

  async #judge(): Promise<Place | undefined> {
    const [source, target] = [this.#cloud.host(this.#source), this.#cloud.host(other(this.#source))];
    const { images, refusals } = this.#guest;
    const end = await this.#state();
    const owner = await ownerOf(this.#cloud, images);
    if (owner === undefined) {
      const records = await Promise.all(
        [source, target].flatMap(({ daemon }) => images.map((image) => recordOf(daemon.below(image)))),
      );
      this.#errors.push(
        `G3: not one owner${this.#sourceKilled ? ' (source killed)' : ''}: ${records.join(' | ')}`,
      );
      return undefined;
    }
    const kept = owner === this.#source;
    this.#expect(
      !(this.#taken && kept),
      'G1: a first write was acknowledged by a target that does not own the image',
    );
    if (end)
      this.#expect(
        (end.state === 'completed') === !kept,
        `the migration is ${end.state}, owner is host ${owner}`,
      );
    const expected = kept ? [] : ['EROFS'];
    const odd = this.#sourceKilled ? [] : refusals.filter((code) => !expected.includes(code));
    this.#expect(odd.length === 0, `the guest met ${odd.join(', ')}`);
    const host = kept ? source : target;
    for (const lost of await this.#guest.lost((image) => host.daemon.at(image)))
      this.#errors.push(`G1: ${lost}`);
    for (const image of images) {
      if (kept) await this.#judgeKept(image);
      else await this.#judgeMoved(image);
    }
    return owner;
  }

  async #judgeMoved(image: string): Promise<void> {
    const [source, target] = [this.#cloud.host(this.#source), this.#cloud.host(other(this.#source))];
    const [below, there] = [source.daemon.below(image), target.daemon.below(image)];
    this.#expect(await identical(below, there), `G2: ${image} differs at the fence`);
    this.#expect(
      (await writeRefusal(source.daemon.at(image))) === 'EROFS',
      `G3: the source takes writes to ${image}`,
    );
    const refusal = await writeRefusal(target.daemon.at(image));
    this.#expect(refusal === '', `the target refuses writes to ${image}: ${refusal}`);
    const [from, to] = [allocatedBytes(below), allocatedBytes(there)];
    this.#expect(
      to <= from + ALLOCATED_SLACK,
      `G6: ${image} takes ${to} bytes on the target, ${from} on the source`,
    );
  }

  async #judgeKept(image: string): Promise<void> {
    const [source, target] = [this.#cloud.host(this.#source), this.#cloud.host(other(this.#source))];
    const refusal = await writeRefusal(source.daemon.at(image));
    this.#expect(refusal === '', `G4: the source refuses writes to ${image}: ${refusal}`);
    const gone = (): boolean => !existsSync(target.daemon.below(image));
    // A source that was killed has forgotten what to remove; an operator does that.
    if (this.#sourceKilled && !gone()) await target.client.cancel(this.#id).catch(() => undefined);
    await waitFor(gone, 'gone', 40_000).catch(() => this.#errors.push(`G4: ${image} is left on the target`));
  }
}

export const chaosEpisode = (
  cloud: ChaosCloud,
  guest: ChaosGuest,
  source: Place,
  random: Random,
): Promise<Episode> => new EpisodeRun(cloud, guest, source, random).run();
