/** What a caller of the control port may do, by the role in its certificate. */
import type { PeerCertificate } from 'node:tls';
import type { Role } from '../leaves/role.js';
import { certificateRole } from '../leaves/role.js';

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

/** Everybody is an admin where nobody has certificates. Undefined: certificates are wanted and none is seen. */
export const callerRole = (context: AuthContext | null, tls: boolean): Role | undefined =>
  tls ? certificateRole(context?.sslPeerCertificate) : 'admin';

/** `path` is `/package.Service/Method`. */
export const mayCall = (role: Role | undefined, path: string): boolean =>
  role === 'admin' || (role !== undefined && OPEN_TO[role].test(path));
