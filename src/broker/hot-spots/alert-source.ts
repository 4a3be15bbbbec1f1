/** Links that somebody's alerting rules call hot. */
import type { Clock } from '../../leaves/clock.js';
import type { LogSink } from '../../leaves/log-sink.js';
import { millis } from '../../leaves/units.js';
import type { AlertFile, FiringAlert } from './alert-file.js';
import { parseAlerts } from './alert-message.js';
import type { AlertsConfig } from './config.js';
import { isLinkName } from './config.js';
import type { LinkBoard } from './link-board.js';

/** Alerts that are kept for the next process, and characters of the key of one. */
const KEPT_MAX = 4096;
const KEY_LENGTH_MAX = 1024;

interface AlertSourceOptions {
  readonly config: Pick<AlertsConfig, 'label' | 'names' | 'expiresAfter'>;
  readonly board: LinkBoard;
  readonly clock: Clock;
  readonly log: LogSink;
  /** Absent: what fires is forgotten with the process. */
  readonly file?: AlertFile | undefined;
}

export class AlertSource {
  readonly #options: AlertSourceOptions;
  readonly #firing = new Map<string, FiringAlert>();
  #ignoring = false;

  constructor(options: AlertSourceOptions) {
    this.#options = options;
    for (const alert of options.file?.read() ?? []) this.#fire(alert);
  }

  /** Takes the body of one message. INVALID_ARGUMENT: it is malformed, and nothing of it counts. */
  take(body: string): void {
    const { config, board, clock, log, file } = this.#options;
    const { alerts, ignored } = parseAlerts(body, config);
    const wall = clock.wall();
    let unusable = ignored;
    for (const { fingerprint, name, link, firing, endsAt } of alerts) {
      if (!isLinkName(link)) {
        unusable++;
        continue;
      }
      const key = `alert ${fingerprint}`;
      const until = Math.min(wall + config.expiresAfter, endsAt ?? Number.POSITIVE_INFINITY);
      if (firing && until > wall) {
        this.#fire({ key, link, name: name.slice(0, 128), at: wall, until });
        continue;
      }
      this.#firing.delete(key);
      board.withdraw(key, link);
    }
    for (const [key, { until }] of this.#firing)
      if (until <= wall || this.#firing.size > KEPT_MAX) this.#firing.delete(key);
    file?.write([...this.#firing.values()]);
    if (unusable > 0 && !this.#ignoring)
      log('warn', `alerts without a label '${config.label}' that names a link are ignored`);
    this.#ignoring = unusable > 0;
  }

  #fire(alert: FiringAlert): void {
    const { config, board, clock, file } = this.#options;
    const { key, link, name, at, until } = alert;
    const goodFor = Math.min(config.expiresAfter, until - clock.wall());
    if (goodFor <= 0) return;
    const load = { link, at: millis(at), saturated: true, hot: true, source: `alert ${name}` };
    board.report(key, { load, evidence: 'alert' }, millis(goodFor));
    if (file && key.length <= KEY_LENGTH_MAX) this.#firing.set(key, alert);
  }
}
