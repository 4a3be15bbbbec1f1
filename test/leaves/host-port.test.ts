import fc from 'fast-check';
import t from 'tap';
import { formatHostPort, isLoopback, parseHostPort } from '../../src/leaves/host-port.js';

t.test('names and addresses, IPv6 in brackets, read back as printed', async (t) => {
  const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6());
  fc.assert(
    fc.property(host, fc.integer({ min: 0, max: 65_535 }), (host, port) => {
      const read = parseHostPort(formatHostPort({ host, port }));
      return read.host === host && read.port === port;
    }),
  );
  t.same(parseHostPort('[::1]:7071'), { host: '::1', port: 7071 });
  t.same(parseHostPort('[fe80::1%eth0]:7071'), { host: 'fe80::1%eth0', port: 7071 });
});

t.test('anything else is refused with examples', async (t) => {
  const bad = [
    '',
    'host',
    'host:',
    ':7071',
    'host:70000',
    'host:-1',
    'host:7x',
    '::1:7071',
    '[::1]',
    '[::1]7071',
  ];
  for (const text of [...bad, 'http://host:80', 'a b:1', 'host:1:2', 'user@host:1', `${'x'.repeat(254)}:1`])
    t.throws(() => parseHostPort(text), { code: 'INVALID_ARGUMENT', message: /\[::1\]:7071/ }, `'${text}'`);
});

t.test('only this machine reaches loopback addresses', async (t) => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost']) t.ok(isLoopback(host), host);
  for (const host of [
    '0.0.0.0',
    '::',
    '10.0.0.1',
    'host-b',
    '127.0.0.1.example.org',
    'localhost.example.org',
  ])
    t.notOk(isLoopback(host), host);
});
