/** All sources of hot spots of a daemon or a scheduler, opened and closed together. */
import type { Clock } from '../../leaves/clock.js';
import type { DaemonOptions } from '../../leaves/daemon-options.js';
import type { HotSpots } from '../../leaves/hot-spots.js';
import type { LogSink } from '../../leaves/log-sink.js';
import type { SettingNames } from '../../leaves/setting-names.js';
import type { TlsIdentity } from '../../leaves/tls-identity.js';
import { assertSafeListener } from '../../leaves/tls-identity.js';
import { AlertFile } from './alert-file.js';
import type { AlertListener } from './alert-listener.js';
import { ALERTS_HARM, ALERTS_PATH, listenForAlerts } from './alert-listener.js';
import { AlertSource } from './alert-source.js';
import type { HotSpotsConfig } from './config.js';
import { hotSpotsConfigOf } from './config.js';
import { hostInterfaces } from './host-interfaces.js';
import { InterfaceSource } from './interface-source.js';
import { LinkBoard } from './link-board.js';
import type { NetworkInterfaces } from './network-interfaces.js';
import type { OwnTraffic } from './own-traffic.js';
import { askServer, PrometheusSource, secretFile } from './prometheus-source.js';

interface HotSpotsOptions {
  readonly clock: Clock;
  readonly log: LogSink;
  /** What the migrations of this host send and receive (`meterOwnTraffic`); absent: nothing. */
  readonly ownTraffic?: OwnTraffic;
  /** Closes them when it aborts. */
  readonly signal?: AbortSignal;
  /** Of the alert port; absent: plain text, on loopback only unless `insecure`. */
  readonly tls?: TlsIdentity | undefined;
  readonly insecure?: boolean | undefined;
  /** Of `tls` and `insecure`; absent: they are flags. */
  readonly named?: SettingNames | undefined;
  readonly interfaces?: NetworkInterfaces;
  /** Path of the file that keeps alerts for the next process; absent: they are forgotten. */
  readonly alertFile?: string;
}

export interface OpenHotSpots extends HotSpots, AsyncDisposable {
  /**
   * The link of this host that leads to `host`, a name or an address. Undefined: loopback, no interfaces are watched, or
   * not known yet; the first question starts the look-up, so ask again at each decision.
   */
  linkTowards(host: string): string | undefined;
  /** `host:port` of the alert port; absent: there is none. */
  readonly alertAddress?: string;
  /** Ends polling and listening. Idempotent. */
  close(): Promise<void>;
}

/** What asks and is asked, as the files of a configuration say. */
const prepare = ({ prometheus, alerts }: HotSpotsConfig) => ({
  servers: prometheus.map((server) => ({ config: server, ask: askServer(server) })),
  token: alerts?.tokenFile === undefined ? undefined : secretFile('token', alerts.tokenFile),
});

/**
 * Where the hot spots of a daemon come from, checked before anything is mounted. INVALID_ARGUMENT: described wrongly, or a
 * file cannot be read. FAILED_PRECONDITION: the alert port would not be safe.
 */
export const checkedHotSpots = ({
  hotSpots,
  ...security
}: Pick<DaemonOptions, 'hotSpots' | 'tls' | 'insecure'>): HotSpotsConfig => {
  const config = hotSpotsConfigOf(hotSpots ?? {}, true);
  prepare(config);
  if (config.alerts) assertSafeListener('alert', config.alerts.listen, security, ALERTS_HARM);
  return config;
};

/**
 * Opens the sources that a configuration names (`hotSpotsConfigOf`). INVALID_ARGUMENT: a file of it cannot be read.
 * FAILED_PRECONDITION: the alert port cannot be served.
 */
export const openHotSpots = async (
  config: HotSpotsConfig,
  { clock, log, ownTraffic = () => [], signal, tls, insecure, named, interfaces, alertFile }: HotSpotsOptions,
): Promise<OpenHotSpots> => {
  const { thresholds } = config;
  const board = new LinkBoard(clock, log);
  const common = { thresholds, board, clock, log };
  const sources: Disposable[] = [board];
  let listener: AlertListener | undefined;
  let closed: Promise<void> | undefined;
  const closeAll = async (): Promise<void> => {
    signal?.removeEventListener('abort', close);
    await listener?.close();
    for (const source of sources.reverse()) source[Symbol.dispose]();
  };
  const close = (): Promise<void> => {
    closed ??= closeAll();
    return closed;
  };
  try {
    signal?.throwIfAborted();
    // What may fail comes before what runs.
    const { servers, token } = prepare(config);
    if (config.alerts) {
      const { listen } = config.alerts;
      const file = alertFile === undefined ? undefined : new AlertFile(alertFile, log);
      const alerts = new AlertSource({ config: config.alerts, board, clock, log, file });
      listener = await listenForAlerts({
        listen,
        token,
        tls,
        insecure,
        named,
        log,
        take: (body) => alerts.take(body),
      });
      log('info', `alerts are taken at ${tls ? 'https' : 'http'}://${listener.address}${ALERTS_PATH}`);
    }
    for (const server of servers) sources.push(new PrometheusSource({ ...server, ...common }));
    const watched =
      config.interfaces &&
      new InterfaceSource({
        ...common,
        config: config.interfaces,
        interfaces: interfaces ?? hostInterfaces(),
        ownTraffic,
      });
    if (watched) sources.push(watched);
    signal?.addEventListener('abort', close);
    return {
      loads: () => board.loads(),
      watch: (onChange) => board.watch(onChange),
      linkTowards: (host) => watched?.linkTowards(host),
      ...(listener ? { alertAddress: listener.address } : {}),
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
};
