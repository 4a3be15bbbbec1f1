import type { MessagePort } from 'node:worker_threads';
import type { PlainError } from './errors.js';
import { MigrateFsError, plainError, revivedError } from './errors.js';

type Methods = Record<string, (...args: never[]) => unknown>;
type Call = { readonly call: number; readonly method: string; readonly args: unknown[] };
type Answer = { readonly answer: number; readonly value?: unknown; readonly error?: PlainError };

/** The methods of `T` as seen through a port: arguments and results are structured clones, every call a promise. */
export type Remote<T> = {
  readonly [K in keyof T]: T[K] extends (...args: infer A) => infer R
    ? (...args: A) => Promise<Awaited<R>>
    : never;
};

/** Serves `methods` on `port`; thrown errors travel as code and message. Async methods are awaited. */
export const servePort = <T extends object>(port: MessagePort, methods: T): void => {
  port.on('message', (message: Call) => {
    void Promise.resolve(answerCall(methods, message)).then((answer) => port.postMessage(answer));
  });
};

/** Performs one call synchronously where the method is synchronous; for threads that poll their port. */
export const answerCall = (methods: object, { call, method, args }: Call): Answer | Promise<Answer> => {
  try {
    const target = (methods as Methods)[method];
    if (!target) throw new MigrateFsError('INTERNAL', `no method ${method}`);
    const value = (target as (...a: unknown[]) => unknown).apply(methods, args);
    if (!(value instanceof Promise)) return { answer: call, value };
    return value.then(
      (v: unknown) => ({ answer: call, value: v }),
      (error: unknown) => ({ answer: call, error: plainError(error) }),
    );
  } catch (error) {
    return { answer: call, error: plainError(error) };
  }
};

/** A client of what the other end of `port` serves. `afterPost` wakes a peer that does not run an event loop. */
export const remotePort = <T extends object>(port: MessagePort, afterPost?: () => void): Remote<T> => {
  const pending = new Map<number, { resolve: (v: unknown) => void; reject: (e: Error) => void }>();
  let next = 1;
  let closed = false;
  port.on('message', (message: Answer) => {
    const waiter = pending.get(message.answer);
    if (!waiter) return;
    pending.delete(message.answer);
    if (message.error) waiter.reject(revivedError(message.error));
    else waiter.resolve(message.value);
  });
  port.on('close', () => {
    closed = true;
    for (const waiter of pending.values())
      waiter.reject(new MigrateFsError('UNAVAILABLE', 'the thread has ended'));
    pending.clear();
  });
  return new Proxy({} as Remote<T>, {
    get: (_target, method) => {
      if (typeof method !== 'string' || method === 'then') return undefined;
      return (...args: unknown[]) =>
        new Promise((resolve, reject) => {
          if (closed) return reject(new MigrateFsError('UNAVAILABLE', 'the thread has ended'));
          const call = next++;
          pending.set(call, { resolve, reject });
          port.postMessage({ call, method, args } satisfies Call);
          afterPost?.();
        });
    },
  });
};
