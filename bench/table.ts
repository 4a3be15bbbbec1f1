/** A table for a terminal or a log: columns as wide as their widest cell, numbers to the right. */
export const formatTable = (head: readonly string[], rows: readonly (readonly string[])[]): string => {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)),
  );
  const numeric = head.map((_title, column) => rows.every((row) => /^[-\d.,x\s]*$/.test(row[column] ?? '')));
  const line = (cells: readonly string[]): string =>
    widths
      .map((width, column) => {
        const cell = cells[column] ?? '';
        return numeric[column] ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
};

export const fixed = (value: number, digits: number): string =>
  Number.isFinite(value) ? value.toFixed(digits) : '-';

/** A measured ratio against its bar; without a bar it is information. */
export interface Verdict {
  readonly ratio: number;
  readonly bar?: number;
  /** `at-most`: the bar is a ceiling. */
  readonly sense?: 'at-least' | 'at-most';
}

export const passes = ({ ratio, bar, sense }: Verdict): boolean =>
  bar === undefined || (sense === 'at-most' ? ratio <= bar : ratio >= bar);

/** Cells: the ratio, the bar, the verdict. */
export const verdictCells = (verdict: Verdict): string[] => {
  if (verdict.bar === undefined) return [`${fixed(verdict.ratio, 2)}x`, '', ''];
  const sign = verdict.sense === 'at-most' ? '<=' : '>=';
  return [`${fixed(verdict.ratio, 2)}x`, `${sign} ${verdict.bar}`, passes(verdict) ? 'pass' : 'MISS'];
};
