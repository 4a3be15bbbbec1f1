import { MigrateFsError } from './errors.js';

/** A TCP address. `host` is a name or a literal address, IPv6 without brackets. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

const PORT_MAX = 65_535;
const HOST_LENGTH_MAX = 253;
const SHAPE = /^(?:\[([0-9a-fA-F:.%a-z]+)\]|([^:[\]\s/@]+)):(\d{1,5})$/;

/** Reads `host:port` or `[IPv6]:port`, port 0 to 65535. INVALID_ARGUMENT says what is accepted. */
export const parseHostPort = (text: string): HostPort => {
  const match = SHAPE.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (!host || host.length > HOST_LENGTH_MAX || !(port <= PORT_MAX))
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `not an address: '${text}'; give HOST:PORT, such as 10.0.0.2:7071, host-b:7071 or [::1]:7071`,
    );
  return { host, port };
};

/** The inverse of `parseHostPort`. */
export const formatHostPort = ({ host, port }: HostPort): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

/** Whether only this machine can reach a listener on `host`. A name other than `localhost` counts as reachable. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host);
