/** Two daemons whose processes, disks and network can fail, and be well again. */
import { mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CutProxy } from '../support/cut-proxy.js';
import { type Host, restartHost, startHost } from '../support/pair.js';
import type { Random } from '../support/random.js';
import { scratchDir, type Teardown } from '../support/scratch.js';
import { fillDisk, smallDisk } from '../support/small-disk.js';
import { waitFor } from '../support/wait-for.js';

/** A silent peer counts as lost after this, so that an episode is short. */
const ARGS = ['--peer-timeout', '2s'];

/** A host by its place: 0 or 1. */
export type Place = 0 | 1;
export const other = (place: Place): Place => (place === 0 ? 1 : 0);

export class ChaosCloud {
  readonly #t: Teardown;
  readonly #hosts: Host[];
  /** In front of each host's data port. */
  readonly #proxies: CutProxy[];
  readonly #stopped = new Set<Place>();
  readonly #full = new Set<Place>();

  private constructor(t: Teardown, hosts: Host[], proxies: CutProxy[]) {
    this.#t = t;
    this.#hosts = hosts;
    this.#proxies = proxies;
  }

  /** Disks of `size` bytes. */
  static async start(t: Teardown, size: number): Promise<ChaosCloud> {
    const folder = scratchDir(t, 'chaos');
    const hosts: Host[] = [];
    const proxies: CutProxy[] = [];
    for (const name of ['a', 'b']) {
      const imageDir = join(folder, name, 'images');
      const mountpoint = join(folder, name, 'mount');
      mkdirSync(mountpoint, { recursive: true });
      await smallDisk(t, imageDir, size);
      const host = await startHost(t, { imageDir, mountpoint, extraArgs: ARGS });
      hosts.push(host);
      proxies.push(await CutProxy.start(t, host.daemon.dataAddress));
    }
    const cloud = new ChaosCloud(t, hosts, proxies);
    t.teardown(() => cloud.heal());
    return cloud;
  }

  host(place: Place): Host {
    return this.#hosts[place]!;
  }

  /** Where peers of the host connect to. */
  address(place: Place): string {
    return this.#proxies[place]!.address;
  }

  async kill(place: Place): Promise<void> {
    this.resume(place);
    await this.host(place).daemon.kill();
    const host = await restartHost(this.#t, this.host(place), { extraArgs: ARGS });
    this.#hosts[place] = host;
    const answers = (): Promise<boolean> =>
      host.client.status().then(
        () => true,
        () => false,
      );
    await waitFor(answers, 'the daemon answers');
  }

  suspend(place: Place): void {
    this.#stopped.add(place);
    process.kill(this.host(place).daemon.pid, 'SIGSTOP');
  }

  resume(place: Place): void {
    if (this.#stopped.delete(place)) process.kill(this.host(place).daemon.pid, 'SIGCONT');
  }

  cut(place: Place, random: Random): void {
    if (random.chance(50)) this.#proxies[place]!.cut();
    else this.#proxies[place]!.silence();
  }

  connect(place: Place): void {
    this.#proxies[place]!.heal();
  }

  async fill(place: Place, leave: number): Promise<void> {
    this.#full.add(place);
    await fillDisk(this.host(place).daemon.imageDir, leave);
  }

  async makeRoom(place: Place): Promise<void> {
    if (!this.#full.delete(place)) return;
    await rm(join(this.host(place).daemon.imageDir, 'ballast'), { force: true });
  }

  /** Nothing is broken any more. */
  async heal(): Promise<void> {
    for (const place of [0, 1] as const) {
      this.resume(place);
      await this.makeRoom(place);
      this.connect(place);
    }
  }
}
