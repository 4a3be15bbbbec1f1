/** What a caller may do: the role is in its certificate, as an organizational unit (OU) of the subject. */
import type { PeerCertificate } from 'node:tls';

/** `admin`: everything. `broker`: looks, and sets the broker's limits. `peer`: another daemon. */
export type Role = 'admin' | 'broker' | 'peer';

/** Least rights first. */
const ROLES: readonly Role[] = ['peer', 'broker', 'admin'];

/** Full names, beside what admins may call: that is everything. */
const OPEN_TO: Readonly<Record<Exclude<Role, 'admin'>, RegExp>> = {
  broker:
    /^\/(migratefs\.v1\.\w+\/((Get|List|Query|Watch)\w*|SetNetworkLimit|SetDiskLimit|BackOff)|grpc\.(health|reflection)\.\w+\.\w+\/\w+)$/,
  peer: /^\/(migratefs\.v1\.(Brokers\/BackOff|MigrateFS\/GetStatus)|grpc\.health\.\w+\.\w+\/\w+)$/,
};

/** What the gRPC library tells of the other end of a call. */
interface AuthContext {
  readonly sslPeerCertificate?: PeerCertificate;
}

/**
 * The role of a caller. A certificate without one of our roles is an admin's, and so is everybody where nobody has
 * certificates; one with several has the least of them. Undefined: certificates are wanted and none is seen.
 */
export const callerRole = (context: AuthContext | null, tls: boolean): Role | undefined => {
  if (!tls) return 'admin';
  const certificate = context?.sslPeerCertificate;
  if (!certificate) return undefined;
  // The type knows one unit only; Node gives several as an array.
  const units = [certificate.subject?.OU ?? []].flat() as readonly string[];
  return ROLES.find((role) => units.includes(role)) ?? 'admin';
};

/** `path` is `/package.Service/Method`. */
export const mayCall = (role: Role | undefined, path: string): boolean =>
  role === 'admin' || (role !== undefined && OPEN_TO[role].test(path));
