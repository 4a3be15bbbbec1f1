/** Certificates for tests, made with openssl(1). */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/** Paths of PEM files. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const opensslIn =
  (folder: string) =>
  (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' });
  };

/** A certificate for 127.0.0.1 with that subject (`/CN=x/OU=y`), signed by an authority that is in `folder`. */
export const signCertificate = (
  folder: string,
  authority: string,
  name: string,
  subject: string,
): TlsFiles => {
  const openssl = opensslIn(folder);
  const ca = `${authority}-ca`;
  openssl('req', ...EC, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', subject);
  writeFileSync(join(folder, 'san'), 'subjectAltName=IP:127.0.0.1');
  openssl(
    ...['x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial'],
    ...['-out', `${name}.pem`, '-days', '2', '-extfile', 'san'],
  );
  return {
    ca: join(folder, `${ca}.pem`),
    cert: join(folder, `${name}.pem`),
    key: join(folder, `${name}.key`),
  };
};

/** An authority `name` and one certificate for 127.0.0.1 signed by it, as files in `folder`. */
export const makeTlsFiles = (folder: string, name: string): TlsFiles => {
  const ca = `${name}-ca`;
  const files = ['-keyout', `${ca}.key`, '-out', `${ca}.pem`, '-days', '2', '-subj', `/CN=${ca}`];
  opensslIn(folder)('req', '-x509', ...EC, ...files);
  return signCertificate(folder, name, name, `/CN=${name}`);
};
