/** Line charts as SVG: panels above each other over one axis of time. */
import { writeFileSync } from 'node:fs';

export interface ChartLine {
  readonly name: string;
  readonly values: readonly (number | undefined)[];
  /** A quantity that is set and stays until it is set again, such as a limit: dashed, in steps. */
  readonly steps?: boolean;
  /** Lines of one colour number belong together, also across panels; default: its position. */
  readonly colour?: number;
}

export interface Panel {
  /** What the vertical axis shows, with its unit. */
  readonly label: string;
  readonly lines: readonly ChartLine[];
  /** Values above it are drawn at it; default: the largest. */
  readonly max?: number;
}

export interface Mark {
  /** Seconds. */
  readonly at: number;
  readonly text: string;
}

export interface Chart {
  readonly title: string;
  readonly seconds: readonly number[];
  readonly panels: readonly Panel[];
  readonly marks?: readonly Mark[];
}

/** Distinct also for the colour-blind (Okabe and Ito, 2008). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'];
const WIDTH = 900;
const PANEL_HEIGHT = 240;
const GAP = 34;
const LEFT = 70;
const RIGHT = 20;
const TOP = 64;
const BOTTOM = 46;
const LEGEND_CHARACTER = 7;
const TICKS = 6;

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Round steps: 1, 2 or 5 times a power of ten, about `TICKS` of them up to `max`. */
const ticksTo = (max: number): number[] => {
  const rough = max / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough)!;
  return Array.from({ length: Math.floor(max / step + 1e-9) + 1 }, (_, i) =>
    Number((i * step).toPrecision(6)),
  );
};

const shown = (value: number): string => value.toFixed(1);

const pathOf = (
  { values, steps }: ChartLine,
  x: (row: number) => number,
  y: (value: number) => number,
): string => {
  let path = '';
  let open = false;
  values.forEach((value, row) => {
    if (value === undefined || Number.isNaN(value)) {
      open = false;
      return;
    }
    const [px, py] = [shown(x(row)), shown(y(value))];
    if (!open) path += `M${px} ${py}`;
    else path += steps ? `H${px}V${py}` : `L${px} ${py}`;
    open = true;
  });
  return path;
};

const panelMax = ({ lines, max }: Panel): number => {
  if (max !== undefined) return max;
  const known = lines.flatMap(({ values }) => values.filter((value) => Number.isFinite(value)) as number[]);
  return Math.max(...known, 1e-9) * 1.05;
};

const drawPanel = (panel: Panel, chart: Chart, top: number): string[] => {
  const end = chart.seconds.at(-1) ?? 1;
  const max = panelMax(panel);
  const right = WIDTH - RIGHT;
  const bottom = top + PANEL_HEIGHT;
  const xAt = (second: number): number => LEFT + (second / end) * (right - LEFT);
  const y = (value: number): number => bottom - (Math.min(Math.max(value, 0), max) / max) * PANEL_HEIGHT;
  const out: string[] = [];
  for (const tick of ticksTo(max)) {
    const at = shown(y(tick));
    out.push(
      `<line class="grid" x1="${LEFT}" x2="${right}" y1="${at}" y2="${at}"/>`,
      `<text x="${LEFT - 8}" y="${shown(y(tick) + 4)}" text-anchor="end">${tick}</text>`,
    );
  }
  for (const tick of ticksTo(end)) {
    const at = shown(xAt(tick));
    out.push(
      `<line class="grid" x1="${at}" x2="${at}" y1="${top}" y2="${bottom}"/>`,
      `<text x="${at}" y="${bottom + 16}" text-anchor="middle">${tick}</text>`,
    );
  }
  const middle = top + PANEL_HEIGHT / 2;
  out.push(
    `<text x="18" y="${middle}" text-anchor="middle" transform="rotate(-90 18 ${middle})">${escaped(panel.label)}</text>`,
  );
  (chart.marks ?? []).forEach(({ at, text }, index) => {
    out.push(
      `<line class="mark" x1="${shown(xAt(at))}" x2="${shown(xAt(at))}" y1="${top}" y2="${bottom}"/>`,
      `<text class="note" x="${shown(xAt(at) + 3)}" y="${top + 12 + (index % 3) * 13}">${escaped(text)}</text>`,
    );
  });
  let legend = LEFT;
  panel.lines.forEach((line, index) => {
    const colour = COLOURS[(line.colour ?? index) % COLOURS.length]!;
    const style = `fill="none" stroke="${colour}" stroke-width="1.6"${line.steps ? ' stroke-dasharray="5 3"' : ''}`;
    out.push(
      `<path ${style} d="${pathOf(line, (row) => xAt(chart.seconds[row]!), y)}"/>`,
      `<line x1="${legend}" x2="${legend + 22}" y1="${top - 9}" y2="${top - 9}" ${style}/>`,
      `<text x="${legend + 27}" y="${top - 5}">${escaped(line.name)}</text>`,
    );
    legend += 27 + line.name.length * LEGEND_CHARACTER + 18;
  });
  return out;
};

export const chartSvg = (chart: Chart): string => {
  const bottom = TOP + chart.panels.length * (PANEL_HEIGHT + GAP) - GAP;
  const height = bottom + BOTTOM;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">`,
    '<style>text{font:12px sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}.note{font-size:11px;fill:#555}' +
      '.grid{stroke:#ddd}.mark{stroke:#888;stroke-dasharray:2 3}</style>',
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text class="title" x="${LEFT}" y="26">${escaped(chart.title)}</text>`,
    ...chart.panels.flatMap((panel, index) => drawPanel(panel, chart, TOP + index * (PANEL_HEIGHT + GAP))),
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${bottom + 36}" text-anchor="middle">seconds</text>`,
    '</svg>\n',
  ].join('\n');
};

export const writeChart = (path: string, chart: Chart): void => writeFileSync(path, chartSvg(chart));
