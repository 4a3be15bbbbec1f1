/** What clients ask a server of any kind: is it alive (grpc.health.v1), and what does it speak (grpc.reflection). */
import { createRequire } from 'node:module';
import type { Server } from '@grpc/grpc-js';
import type { ServedService } from './deferred-service.js';
import { deferredService } from './deferred-service.js';

const require = createRequire(import.meta.url);

const UNARY = { requestStream: false, responseStream: false };
const ANSWERS = { requestStream: false, responseStream: true };
const BOTH_WAYS = { requestStream: true, responseStream: true };

const loadHealth = (): typeof import('grpc-health-check') => require('grpc-health-check');

/** What `addToServer` of a library adds to a server. */
const addedBy = (addToServer: (server: Server) => void): ServedService[] => {
  const added: ServedService[] = [];
  const addService: Server['addService'] = (definition, implementation) => {
    added.push({ definition, implementation });
  };
  addToServer({ addService } as Server);
  return added;
};

/** The health of named services: all of them serve until they all stop. */
export class HealthStates {
  readonly service: ServedService;
  readonly #names: readonly string[];
  #stopped = false;
  #implementation: InstanceType<ReturnType<typeof loadHealth>['HealthImplementation']> | undefined;

  constructor(names: readonly string[]) {
    this.#names = names;
    this.service = deferredService(
      'grpc.health.v1.Health',
      { Check: UNARY, Watch: ANSWERS, List: UNARY },
      () => {
        const { HealthImplementation } = loadHealth();
        const state = this.#stopped ? 'NOT_SERVING' : 'SERVING';
        const health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, state])));
        this.#implementation = health;
        return addedBy((server) => health.addToServer(server))[0]!;
      },
    );
  }

  notServing(): void {
    this.#stopped = true;
    for (const name of this.#names) this.#implementation?.setStatus(name, 'NOT_SERVING');
  }
}

/** Both versions of reflection, over the files at `protoPaths` and that of health. */
export const reflectionServices = (protoPaths: readonly string[]): ServedService[] => {
  let loaded: ServedService[] | undefined;
  const load = (): ServedService[] => {
    const { loadSync } = require('@grpc/proto-loader') as typeof import('@grpc/proto-loader');
    const { ReflectionService } = require('@grpc/reflection') as typeof import('@grpc/reflection');
    // Loaded for itself, because reflection shows the names of fields as they are written in the files.
    const reflected = loadSync([...protoPaths, loadHealth().protoPath], { keepCase: true });
    return addedBy((server) => new ReflectionService(reflected).addToServer(server));
  };
  return ['v1', 'v1alpha'].map((version, index) =>
    deferredService(
      `grpc.reflection.${version}.ServerReflection`,
      { ServerReflectionInfo: BOTH_WAYS },
      () => {
        loaded ??= load();
        return loaded[index]!;
      },
    ),
  );
};
