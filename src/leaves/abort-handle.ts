/**
 * An `AbortController` that is made when somebody asks for its signal: that takes 15 us, and of the writes that each have
 * one hardly any waits for anything.
 */
export class AbortHandle {
  #controller: AbortController | undefined;

  get signal(): AbortSignal {
    return this.#own.signal;
  }

  abort(): void {
    this.#own.abort();
  }

  get #own(): AbortController {
    this.#controller ??= new AbortController();
    return this.#controller;
  }
}

/** The part of a controller that whoever can be interrupted needs; it looks only when it has to wait. */
export interface Abortable {
  readonly signal: AbortSignal;
}
