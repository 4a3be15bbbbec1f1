import type { PlainError } from '../../leaves/errors.js';
import { plainError } from '../../leaves/errors.js';

/** Characters of a message to a peer: what it quotes, a peer may have made as long as it likes, and a frame has its bound. */
const MESSAGE_LENGTH_MAX = 1_000;

/** An error as a peer is told of it. */
export const failureFor = (error: unknown): PlainError => {
  const { code, message } = plainError(error);
  return { code, message: message.slice(0, MESSAGE_LENGTH_MAX) };
};
