import type { SecureVersion } from 'node:tls';
import type { TlsIdentity } from '../../leaves/tls-identity.js';

/** For both ends of a peer connection: TLS 1.3, and a certificate of the cluster's authority from each. */
export const tlsOptions = ({ ca, cert, key }: TlsIdentity) => ({
  ca,
  cert,
  key,
  minVersion: 'TLSv1.3' as SecureVersion,
  rejectUnauthorized: true,
});
