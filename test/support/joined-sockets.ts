import type { Socket } from 'node:net';

/** Makes two sockets end together, and keeps them in `open` until then. What passes between them is the caller's. */
export const joinSockets = (open: Set<Socket>, a: Socket, b: Socket): void => {
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    open.add(one);
    one.setNoDelay(true);
    // The other end hears of it by 'close'.
    one.on('error', () => undefined);
    one.on('close', () => {
      open.delete(one);
      other.destroy();
    });
  }
};
