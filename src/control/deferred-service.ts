import type {
  MethodDefinition,
  ServiceDefinition,
  UntypedHandleCall,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';

export interface ServedService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

interface Streams {
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/**
 * A service that few clients ask for: `load` gives it when the first call comes, so that a process which nobody asks does
 * not pay for the libraries behind it. `name` and `methods` are what the loaded one will have.
 */
export const deferredService = (
  name: string,
  methods: Readonly<Record<string, Streams>>,
  load: () => ServedService,
): ServedService => {
  let loaded: ServedService | undefined;
  const served = (): ServedService => {
    loaded ??= load();
    return loaded;
  };
  const methodOf = (method: string): MethodDefinition<object, object> => served().definition[method]!;
  // The library accepts the name of a method with a small first letter as well.
  const handlerOf = (method: string): ((...args: unknown[]) => void) => {
    const { implementation } = served();
    const small = `${method[0]!.toLowerCase()}${method.slice(1)}`;
    return (implementation[method] ?? implementation[small]) as unknown as (...args: unknown[]) => void;
  };
  const definition: Record<string, MethodDefinition<object, object>> = {};
  const implementation: UntypedServiceImplementation = {};
  for (const [method, streams] of Object.entries(methods)) {
    definition[method] = {
      path: `/${name}/${method}`,
      ...streams,
      requestSerialize: (message) => methodOf(method).requestSerialize(message),
      requestDeserialize: (bytes) => methodOf(method).requestDeserialize(bytes),
      responseSerialize: (message) => methodOf(method).responseSerialize(message),
      responseDeserialize: (bytes) => methodOf(method).responseDeserialize(bytes),
    };
    implementation[method] = ((...args: unknown[]) => handlerOf(method)(...args)) as UntypedHandleCall;
  }
  return { definition, implementation };
};
