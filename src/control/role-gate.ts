import type { ServerInterceptor } from '@grpc/grpc-js';
import { Metadata, ServerInterceptingCall, ServerListenerBuilder, status } from '@grpc/grpc-js';
import type { LogSink } from '../leaves/log-sink.js';
import { callerRole, mayCall } from './roles.js';

/** Refuses calls that the role of the caller does not cover, before anything of them is read. */
export const roleGate =
  (tls: boolean, log: LogSink): ServerInterceptor =>
  ({ path }, call) =>
    new ServerInterceptingCall(call, {
      start: (next) => {
        const role = callerRole(call.getAuthContext(), tls);
        if (mayCall(role, path)) {
          next();
          return;
        }
        const listener = new ServerListenerBuilder()
          .withOnReceiveMetadata(() => {
            const method = path.slice(path.lastIndexOf('/') + 1);
            log('warn', 'a call was refused: its role does not cover it', {
              method,
              role,
              peer: call.getPeer(),
            });
            call.sendStatus({
              code: status.PERMISSION_DENIED,
              details:
                role === undefined
                  ? 'no certificate was seen: connect again with one'
                  : `a certificate with the role ${role} may not call ${method}: use one of an admin`,
              metadata: new Metadata(),
            });
          })
          .build();
        next(listener);
      },
    });
