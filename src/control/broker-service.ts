/** The service Brokers of proto/broker.proto, on top of the brokers of a daemon. */
import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import type { BrokerControl } from '../leaves/broker.js';
import type { LogSink } from '../leaves/log-sink.js';
import {
  backOffAnswerName,
  backOffRequestOf,
  brokerMessage,
  checkedMigrationId,
  pathOf,
} from './broker-message.js';
import type { BrokerMethod, BrokerMethods } from './broker-wire.js';
import { unaryHandler } from './grpc-server.js';
import { pageOf } from './page.js';

type Handlers = {
  readonly [M in BrokerMethod]: (request: BrokerMethods[M][0]) => Promise<BrokerMethods[M][1]>;
};

const handlersOf = (brokers: BrokerControl): Handlers => ({
  GetBroker: async ({ migrationId }) => brokerMessage(await brokers.get(checkedMigrationId(migrationId))),
  ListBrokers: async ({ pageToken }) => {
    const all = await brokers.list();
    const { messages, nextPageToken } = pageOf(all, ({ migrationId: id }) => id, brokerMessage, pageToken);
    return { brokers: messages, nextPageToken };
  },
  SetBrokerPath: async ({ migrationId, path }) =>
    brokerMessage(await brokers.setPath(checkedMigrationId(migrationId), pathOf(path))),
  BackOff: async (request) => ({
    answer: backOffAnswerName(await brokers.backOff(backOffRequestOf(request))),
  }),
});

export const brokerImplementation = (brokers: BrokerControl, log: LogSink): UntypedServiceImplementation => {
  const handlers = handlersOf(brokers);
  return Object.fromEntries(
    (Object.keys(handlers) as BrokerMethod[]).map((method) => [
      method,
      unaryHandler(method, handlers[method] as (request: object) => object, log) as never,
    ]),
  );
};
