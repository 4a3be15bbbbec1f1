/** Steps that are undone in reverse order at the end of a `using` block, unless `keep` was called: the work succeeded. */
export class UndoStack implements Disposable {
  readonly #steps: (() => void)[] = [];

  defer(step: () => void): void {
    this.#steps.push(step);
  }

  /** Forgets every step. */
  keep(): void {
    this.#steps.length = 0;
  }

  [Symbol.dispose](): void {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) step();
  }
}
