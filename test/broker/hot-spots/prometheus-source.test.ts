import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { hotSpotsConfigOf } from '../../../src/broker/hot-spots/config.js';
import { RESPONSE_BYTES_MAX } from '../../../src/broker/hot-spots/http-query.js';
import { LinkBoard } from '../../../src/broker/hot-spots/link-board.js';
import type { AskPrometheus } from '../../../src/broker/hot-spots/prometheus-source.js';
import { askServer, PrometheusSource } from '../../../src/broker/hot-spots/prometheus-source.js';
import { ManualClock } from '../../support/manual-clock.js';
import { scratchDir } from '../../support/scratch.js';

/** An answer as https://prometheus.io/docs/prometheus/latest/querying/api/ gives it for an instant vector. */
const answer = (...samples: readonly (readonly [Record<string, string>, string])[]): string =>
  JSON.stringify({
    status: 'success',
    data: {
      resultType: 'vector',
      result: samples.map(([metric, value]) => ({ metric, value: [1_435_781_451.781, value] })),
    },
  });

const tor3 = (value: string): string => answer([{ __name__: 'link:utilisation', link: 'tor3' }, value]);

const fixture = (t: { teardown(undo: () => void): void }, ask: AskPrometheus, query: object = {}) => {
  const clock = new ManualClock(1_000_000);
  const logged: string[] = [];
  const board = new LinkBoard(clock, () => undefined);
  const { prometheus, thresholds } = hotSpotsConfigOf(
    {
      prometheus: [
        {
          server: 'http://127.0.0.1:9090',
          interval: '1s',
          timeout: '400ms',
          'stale-after': '5s',
          queries: [{ name: 'tor', query: 'link:utilisation', ...query }],
        },
      ],
    },
    false,
  );
  const source = new PrometheusSource({
    config: prometheus[0]!,
    thresholds,
    ask,
    board,
    clock,
    log: (level, message) => logged.push(`${level} ${message}`),
  });
  t.teardown(() => {
    source[Symbol.dispose]();
    board[Symbol.dispose]();
  });
  return { clock, board, logged, source };
};

t.test('a busy link becomes hot after the time to rise, and cools', async (t) => {
  let value = '0.95';
  const { clock, board, logged } = fixture(t, async () => tor3(value));
  await clock.advance(0);
  t.match(board.loads(), [{ link: 'tor3', hot: false, source: 'prometheus query tor' }]);
  await clock.advance(1000);
  t.match(board.loads(), [{ link: 'tor3', saturated: true, hot: true }]);
  value = '0.85';
  await clock.advance(10_000);
  t.match(board.loads(), [{ hot: true }], 'between the thresholds');
  value = '0.1';
  await clock.advance(3000);
  t.match(board.loads(), [{ hot: false, saturated: false }]);
  t.strictSame(logged, []);
});

t.test('bytes per second count against the capacity of their link', async (t) => {
  const body = answer([{ device: 'sw3' }, '1.2e9'], [{ device: 'tor4' }, '1.2e9']);
  const { clock, board } = fixture(t, async () => body, {
    label: 'device',
    names: { sw3: 'tor3' },
    value: 'rate',
    capacity: '1.25GB/s',
    capacities: { tor4: '5GB/s' },
  });
  await clock.advance(2000);
  t.match(board.loads(), [
    { link: 'tor3', rate: 1.2e9, capacity: 1.25e9, hot: true },
    { link: 'tor4', rate: 1.2e9, capacity: 5e9, hot: false },
  ]);
});

t.test('of several samples of one link the busiest counts', async (t) => {
  const body = answer([{ link: 'a' }, '0.2'], [{ link: 'a' }, '0.99'], [{ link: 'a' }, '0.1']);
  const { clock, board } = fixture(t, async () => body);
  await clock.advance(2000);
  t.match(board.loads(), [{ link: 'a', hot: true }]);
});

t.test('a server that is gone leaves no link hot, and is logged once', async (t) => {
  let here = true;
  const { clock, board, logged } = fixture(t, async () => {
    if (!here) throw new Error('connect ECONNREFUSED');
    return tor3('1');
  });
  const told: boolean[] = [];
  board.watch(({ hot }) => told.push(hot));
  await clock.advance(2000);
  t.match(board.loads(), [{ hot: true }]);
  here = false;
  await clock.advance(4000);
  t.match(board.loads(), [{ hot: true }], 'it counts while it is fresh');
  await clock.advance(3000);
  t.strictSame(board.loads(), []);
  t.strictSame(told, [true, false]);
  t.strictSame(logged, ['warn prometheus query tor: connect ECONNREFUSED']);
  here = true;
  await clock.advance(1000);
  t.match(board.loads(), [{ hot: false }], 'it begins anew');
  await clock.advance(1000);
  t.match(board.loads(), [{ hot: true }]);
  t.strictSame(logged.slice(1), ['info prometheus query tor answers again']);
});

t.test('a link that is not in the answers any more is left out', async (t) => {
  let body = tor3('1');
  const { clock, board, logged } = fixture(t, async () => body);
  await clock.advance(2000);
  body = answer();
  await clock.advance(6000);
  t.strictSame(board.loads(), []);
  t.strictSame(logged, ['warn prometheus query tor: the answer is empty']);
});

t.test('malformed answers are unknown, not cool and not hot', async (t) => {
  const malformed = [
    '',
    '<html>',
    'null',
    '[]',
    '{"status":"success"}',
    '{"status":"success","data":{"resultType":"vector","result":{}}}',
    '{"status":"success","data":{"resultType":"vector","result":[{}]}}',
    '{"status":"success","data":{"resultType":"vector","result":[{"metric":{"link":"tor3"},"value":[1,1]}]}}',
    '{"status":"success","data":{"resultType":"vector","result":[{"metric":{"link":3},"value":[1,"1"]}]}}',
    '{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}',
    '{"status":"error","errorType":"bad_data","error":"parse error"}',
    tor3('lots'),
    tor3('NaN'),
    tor3('+Inf'),
    tor3('-0.1'),
    answer([{ elsewhere: 'tor3' }, '1']),
    answer([{ link: 'a b' }, '1']),
  ];
  for (const body of malformed) {
    const { clock, board, logged } = fixture(t, async () => body);
    await clock.advance(10_000);
    t.strictSame(board.loads(), [], body);
    t.equal(logged.length, 1, 'logged once');
  }
});

t.test('a rate without a capacity is unknown', async (t) => {
  const { clock, board, logged } = fixture(
    t,
    async () => answer([{ link: 'a' }, '5'], [{ link: 'b' }, '5']),
    {
      value: 'rate',
      capacities: { a: '5B/s' },
    },
  );
  await clock.advance(2000);
  t.match(board.loads(), [{ link: 'a' }]);
  t.match(logged, [/1 of 2 samples have no usable label 'link', value or capacity/]);
});

t.test('a server that does not answer is given up, and never asked twice at once', async (t) => {
  let [asked, waiting, most] = [0, 0, 0];
  const { clock, logged, source } = fixture(
    t,
    (_query, signal) =>
      new Promise((_resolve, reject) => {
        asked++;
        most = Math.max(most, ++waiting);
        signal.addEventListener('abort', () => {
          waiting--;
          reject(signal.reason as Error);
        });
      }),
  );
  await clock.advance(3100);
  t.match({ asked, most }, { asked: 4, most: 1 });
  t.strictSame(logged, ['warn prometheus query tor: no answer within 400 ms']);
  source[Symbol.dispose]();
  await clock.advance(5000);
  t.match({ asked, waiting }, { asked: 4, waiting: 0 }, 'closing ends the one under way, and the asking');
});

t.test('over HTTP: query, token, path, and bounds', async (t) => {
  const seen: { url: string | undefined; authorization: string | undefined }[] = [];
  let respond: (url: string, response: import('node:http').ServerResponse) => void = () => undefined;
  const server = createServer((request, response) => {
    seen.push({ url: request.url, authorization: request.headers.authorization });
    respond(request.url!, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const tokenFile = join(scratchDir(t), 'token');
  writeFileSync(tokenFile, 'geheim\n');
  const { port } = server.address() as AddressInfo;
  const { prometheus } = hotSpotsConfigOf(
    {
      prometheus: [
        {
          server: `http://127.0.0.1:${port}/metrics`,
          'token-file': tokenFile,
          timeout: '2s',
          queries: [{ query: 'up' }],
        },
      ],
    },
    false,
  );
  const ask = askServer(prometheus[0]!);
  const open = new AbortController();

  respond = (_url, response) => response.setHeader('content-type', 'application/json').end('{"a":"ä"}');
  t.equal(await ask('rate(x{a="b"}[5s]) & more', open.signal), '{"a":"ä"}');
  const url = new URL(seen[0]!.url!, 'http://any');
  t.equal(url.pathname, '/metrics/api/v1/query');
  t.equal(url.searchParams.get('query'), 'rate(x{a="b"}[5s]) & more');
  t.equal(seen[0]!.authorization, 'Bearer geheim');

  respond = (_url, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end();
  await t.rejects(ask('up', open.signal), { code: 'UNAVAILABLE', message: /302/ }, 'not followed');

  respond = (_url, response) =>
    response.writeHead(400, { 'content-type': 'application/json' }).end('{"status":"error","error":"no"}');
  t.match(await ask('up', open.signal), /"error":"no"/, 'the reason is in the body');

  respond = (_url, response) => {
    response.setHeader('content-type', 'application/json');
    const fill = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(1 << 20, ' ')));
    };
    response.on('drain', fill);
    fill();
  };
  await t.rejects(ask('up', open.signal), {
    code: 'RESOURCE_EXHAUSTED',
    message: new RegExp(String(RESPONSE_BYTES_MAX)),
  });

  let requested = (): void => undefined;
  const arrived = new Promise<void>((resolve) => {
    requested = resolve;
  });
  respond = (_url, response) => {
    response.setHeader('content-type', 'application/json').write('{');
    requested();
  };
  const ending = new AbortController();
  const hanging = ask('up', ending.signal);
  void arrived.then(() => ending.abort(new Error('enough')));
  await t.rejects(hanging, { message: 'enough' }, 'half an answer');

  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await t.rejects(ask('up', open.signal), { code: 'UNAVAILABLE' });
});

t.test('a token file that cannot be read is an error at the start', async (t) => {
  const { prometheus } = hotSpotsConfigOf(
    { prometheus: [{ server: 'http://a:1', 'token-file': '/nowhere/token', queries: [{ query: 'up' }] }] },
    false,
  );
  t.throws(() => askServer(prometheus[0]!), {
    code: 'INVALID_ARGUMENT',
    message: /cannot read the token \/nowhere\/token/,
  });
});
