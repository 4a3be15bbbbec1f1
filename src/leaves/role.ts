import type { PeerCertificate } from 'node:tls';

/**
 * What the holder of a certificate may do. `admin`: everything. `broker`: looks, and sets the limits of a broker.
 * `peer`: another daemon.
 */
export type Role = 'admin' | 'broker' | 'peer';

/** Least rights first. */
const ROLES: readonly Role[] = ['peer', 'broker', 'admin'];

/**
 * The role is in the certificate, as an organizational unit (OU) of its subject. Without one of ours it is an admin's;
 * of several the least counts. Undefined: there is no certificate.
 */
export const certificateRole = (certificate: PeerCertificate | undefined): Role | undefined => {
  // Without one Node gives an empty object.
  if (!certificate?.raw) return undefined;
  // The type knows one unit only; Node gives several as an array.
  const units = [certificate.subject?.OU ?? []].flat() as readonly string[];
  return ROLES.find((role) => units.includes(role)) ?? 'admin';
};
