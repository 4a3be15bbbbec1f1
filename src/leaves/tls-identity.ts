import { readFileSync } from 'node:fs';
import { MigrateFsError } from './errors.js';
import type { HostPort } from './host-port.js';
import { formatHostPort, isLoopback } from './host-port.js';
import type { SettingNames } from './setting-names.js';
import { FLAG_NAMES } from './setting-names.js';

/** Who this process is to its peers, and whom it trusts: PEM texts. */
export interface TlsIdentity {
  /** Certificates of the cluster's authorities. */
  readonly ca: string;
  /** Own certificate, its chain after it. */
  readonly cert: string;
  readonly key: string;
}

/** Paths of the files of a `TlsIdentity`. */
interface TlsFiles {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

const readPem = (what: string, path: string): string => {
  try {
    const text = readFileSync(path, 'utf8');
    if (text.includes('-----BEGIN ')) return text;
  } catch (error) {
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `cannot read the TLS ${what} ${path}: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
  throw new MigrateFsError('INVALID_ARGUMENT', `the TLS ${what} ${path} is not a PEM file`);
};

/** Reads all three files; undefined when none is named. INVALID_ARGUMENT: some are missing, or one cannot be read. */
export const readTlsIdentity = ({ ca, cert, key }: TlsFiles, named = FLAG_NAMES): TlsIdentity | undefined => {
  if (!ca && !cert && !key) return undefined;
  if (!ca || !cert || !key)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      `TLS needs all of ${named.tls}: both sides show a certificate`,
    );
  return { ca: readPem('authority', ca), cert: readPem('certificate', cert), key: readPem('key', key) };
};

/**
 * Throws unless a listener on `address` is safe: it has certificates, or only this machine can reach it, or the
 * operator said `insecure`. FAILED_PRECONDITION names the remedies. `what` names the listener: `control`, `data`; `harm`
 * is what anyone could do.
 */
export const assertSafeListener = (
  what: string,
  address: HostPort,
  security: {
    readonly tls?: TlsIdentity | undefined;
    readonly insecure?: boolean | undefined;
    readonly named?: SettingNames | undefined;
  },
  harm = 'read and change images',
): void => {
  if (security.tls || security.insecure || isLoopback(address.host)) return;
  const { named = FLAG_NAMES } = security;
  throw new MigrateFsError(
    'FAILED_PRECONDITION',
    `will not serve the ${what} port on ${formatHostPort(address)} without certificates, because anyone on that ` +
      `network could ${harm}: give ${named.tls}, or listen on 127.0.0.1, ` +
      `or accept the risk with ${named.insecure}`,
  );
};
