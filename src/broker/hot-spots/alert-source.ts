/** Links that somebody's alerting rules call hot. */
import type { Clock } from '../../leaves/clock.js';
import type { LogSink } from '../../leaves/log-sink.js';
import { millis } from '../../leaves/units.js';
import { parseAlerts } from './alert-message.js';
import type { AlertsConfig } from './config.js';
import { isLinkName } from './config.js';
import type { LinkBoard } from './link-board.js';

interface AlertSourceOptions {
  readonly config: Pick<AlertsConfig, 'label' | 'names' | 'expiresAfter'>;
  readonly board: LinkBoard;
  readonly clock: Clock;
  readonly log: LogSink;
}

export class AlertSource {
  readonly #options: AlertSourceOptions;
  #ignoring = false;

  constructor(options: AlertSourceOptions) {
    this.#options = options;
  }

  /** Takes the body of one message. INVALID_ARGUMENT: it is malformed, and nothing of it counts. */
  take(body: string): void {
    const { config, board, clock, log } = this.#options;
    const { alerts, ignored } = parseAlerts(body, config);
    const wall = clock.wall();
    let unusable = ignored;
    for (const { fingerprint, name, link, firing, endsAt } of alerts) {
      if (!isLinkName(link)) {
        unusable++;
        continue;
      }
      const key = `alert ${fingerprint}`;
      const goodFor =
        endsAt === undefined ? config.expiresAfter : Math.min(config.expiresAfter, endsAt - wall);
      if (!firing || goodFor <= 0) {
        board.withdraw(key, link);
        continue;
      }
      const load = { link, at: wall, saturated: true, hot: true, source: `alert ${name.slice(0, 128)}` };
      board.report(key, { load, evidence: 'alert' }, millis(goodFor));
    }
    if (unusable > 0 && !this.#ignoring)
      log('warn', `alerts without a label '${config.label}' that names a link are ignored`);
    this.#ignoring = unusable > 0;
  }
}
