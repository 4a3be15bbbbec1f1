/** QEMU's machine protocol (QEMU documentation, "QEMU Machine Protocol Specification"): one JSON object a line. */
import { connect, type Socket } from 'node:net';
import { MigrateFsError } from '../../leaves/errors.js';
import { type HostPort, parseHostPort } from '../../leaves/host-port.js';

/** Where a monitor listens. */
export type QmpAddress = { readonly path: string } | HostPort;

/** Reads `unix:/PATH` or `tcp:HOST:PORT`. INVALID_ARGUMENT says what is accepted. */
export const parseQmpAddress = (text: string): QmpAddress => {
  if (text.startsWith('unix:/')) return { path: text.slice('unix:'.length) };
  if (text.startsWith('tcp:')) return parseHostPort(text.slice('tcp:'.length));
  throw new MigrateFsError(
    'INVALID_ARGUMENT',
    `not the address of a QEMU monitor: '${text}'; give unix:/PATH or tcp:HOST:PORT`,
  );
};

/** A line that is longer comes from something that is not a QEMU monitor. */
const LINE_LENGTH_MAX = 4 * 1024 * 1024;
const TEXT_SHOWN_MAX = 300;

interface QmpMessage {
  readonly QMP?: unknown;
  readonly return?: unknown;
  readonly error?: { readonly class?: unknown; readonly desc?: unknown };
  readonly event?: unknown;
  readonly id?: unknown;
}

interface Waiting {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

const oneLine = (text: unknown): string => String(text).replace(/\s+/g, ' ').slice(0, TEXT_SHOWN_MAX);

/** QEMU has understood a command and refused it. */
export class QmpRefusal extends MigrateFsError {
  constructor(who: string, command: string, reason: string) {
    super('FAILED_PRECONDITION', `${who} refused ${command}: ${reason}`);
  }
}

/** One connection to a monitor; it serves one client at a time, so keep it short. Commands are answered in order. */
export class QmpClient {
  readonly #socket: Socket;
  readonly #who: string;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #text = '';
  #broken: MigrateFsError | undefined;
  #greeted: (() => void) | undefined;
  #refused: ((error: Error) => void) | undefined;

  private constructor(address: QmpAddress, who: string) {
    this.#who = who;
    this.#socket = connect(address);
    this.#socket.setEncoding('utf8');
    this.#socket.on('data', (text) => this.#take(String(text)));
    this.#socket.on('error', (error) => this.#break(oneLine(error.message), error));
    this.#socket.on('close', () => this.#break('it closed the connection'));
  }

  /**
   * Connects and agrees on the protocol. `who` names this QEMU in errors: `the QEMU of vm7 on host-a`. UNAVAILABLE when
   * nobody answers as a monitor does; the signal's reason when it aborts, which is the only limit of time here.
   */
  static async open(address: QmpAddress, who: string, signal: AbortSignal): Promise<QmpClient> {
    signal.throwIfAborted();
    const client = new QmpClient(address, who);
    try {
      await client.#unless(
        signal,
        new Promise<void>((resolve, reject) => {
          client.#greeted = resolve;
          client.#refused = reject;
        }),
      );
      await client.call('qmp_capabilities', {}, signal);
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Its answer. QmpRefusal with QEMU's reason; UNAVAILABLE when the connection is lost; the signal's reason. */
  async call(command: string, args: object, signal: AbortSignal): Promise<unknown> {
    signal.throwIfAborted();
    if (this.#broken) throw this.#broken;
    this.#lastId += 1;
    const id = this.#lastId;
    try {
      return await this.#unless(
        signal,
        new Promise((resolve, reject) => {
          this.#waiting.set(id, { command, resolve, reject });
          this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
        }),
      );
    } finally {
      this.#waiting.delete(id);
    }
  }

  close(): void {
    this.#break('it was closed here');
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #unless<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason as Error);
      signal.addEventListener('abort', onAbort, { once: true });
      promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
    });
  }

  #take(text: string): void {
    this.#text += text;
    const lines = this.#text.split('\n');
    this.#text = lines.pop()!;
    for (const line of lines) if (!this.#broken && line.trim() !== '') this.#takeLine(line);
    if (this.#text.length > LINE_LENGTH_MAX) this.#speaksOtherwise();
  }

  #takeLine(line: string): void {
    let message: QmpMessage;
    try {
      message = JSON.parse(line) as QmpMessage;
    } catch {
      this.#speaksOtherwise();
      return;
    }
    if (typeof message !== 'object' || message === null) {
      this.#speaksOtherwise();
      return;
    }
    if (message.QMP !== undefined) this.#greeted?.();
    const waiting = this.#waiting.get(message.id as number);
    if (!waiting) return;
    if (message.error) {
      waiting.reject(new QmpRefusal(this.#who, waiting.command, oneLine(message.error.desc)));
    } else waiting.resolve(message.return);
  }

  #speaksOtherwise(): void {
    this.#break('it does not speak QMP: give the address of a monitor with mode=control');
    this.#socket.destroy();
  }

  #break(reason: string, cause?: Error): void {
    this.#broken ??= new MigrateFsError('UNAVAILABLE', `${this.#who} cannot be reached: ${reason}`, {
      cause,
    });
    this.#refused?.(this.#broken);
    for (const { reject } of this.#waiting.values()) reject(this.#broken);
    this.#waiting.clear();
  }
}
